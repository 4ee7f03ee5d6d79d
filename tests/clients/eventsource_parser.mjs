// Reads a turn with eventsource-parser, the decoder below most JavaScript model SDKs.
import { createParser } from "eventsource-parser";
import { newSession, print, refuse } from "./session.mjs";

const [url, request] = await newSession();
const response = await fetch(url, request);
if (response.status !== 200) await refuse(response);

const parser = createParser({
  onEvent: ({ event, data }) => print(event, data),
  onError: (error) => { throw error; },
});
const decoder = new TextDecoder();
for await (const bytes of response.body) parser.feed(decoder.decode(bytes, { stream: true }));
