// Reads a turn with @microsoft/fetch-event-source, which is written for browsers: it asks `document` whether the page
// is hidden, and takes its timers and its `fetch` from `window`.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const { fetchEventSource } = await import("@microsoft/fetch-event-source");
const { newSession, print, refuse } = await import("./session.mjs");

const [url, request] = await newSession();
await fetchEventSource(url, {
  ...request,
  async onopen(response) {
    if (response.status !== 200) await refuse(response);
  },
  onmessage({ event, data }) {
    // This library makes an empty message of every blank line, so of a heartbeat too.
    if (event || data) print(event, data);
  },
  onerror(error) {
    throw error; // or it would send the message again, once a second
  },
});
