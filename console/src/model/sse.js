// Server-Sent Events of this wire: two lines, or three with an id, and an empty one (PROTOCOL.md, section 1).

/**
 * The events of a body, as lists: what came in one piece is handled together. `onBytes` is called with each piece; `signal`
 * ends the reading, of an answer to whose request it does not belong too.
 */
export async function* eventsOf(body, signal, onBytes = () => {}) {
  const reader = body.getReader();
  const cancel = () => reader.cancel().catch(() => {});
  signal.addEventListener("abort", cancel);
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      onBytes();
      const pieces = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = pieces.pop();
      const events = pieces.map(parse).filter((event) => event.type);
      if (events.length) yield events;
    }
  } finally {
    signal.removeEventListener("abort", cancel);
    cancel();
  }
}

/** One event: `{seq, type, text, data}`. Comments, which are heartbeats, may stand before its lines. */
function parse(piece) {
  const event = { seq: null, type: "", text: "", data: {} };
  for (const line of piece.split("\n")) {
    if (line.startsWith("id: ")) event.seq = Number(line.slice(4));
    else if (line.startsWith("event: ")) event.type = line.slice(7);
    else if (line.startsWith("data: ")) event.text = line.slice(6);
  }
  if (event.text) event.data = JSON.parse(event.text);
  return event;
}

export const isTerminal = (type) =>
  type === "message.completed" || type === "message.error" || type === "message.cancelled";
