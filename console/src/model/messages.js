// Messages of a conversation: their pairs, their contents, and what a session is called after the first of them.

const TITLE_CHARS_MAX = 60;
export const UNNAMED = "New session";

/** The messages in pairs: what was said, and the turn that answers it. */
export function pairsOf(messages) {
  const pairs = [];
  for (const message of messages) {
    if (message.role === "user") pairs.push({ user: message.content, answer: null });
    else if (pairs.length && !pairs.at(-1).answer) pairs.at(-1).answer = message;
  }
  return pairs.filter(({ answer }) => answer);
}

export function contentOf(parts) {
  return typeof parts === "string" ? [{ type: "text", text: parts }] : parts;
}

/** The first line of a message, cut to a title's length. */
export function titleOf(parts) {
  const text = contentOf(parts).find(({ type }) => type === "text")?.text ?? "";
  const line = text.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  return line.length > TITLE_CHARS_MAX ? `${line.slice(0, TITLE_CHARS_MAX - 1).trimEnd()}…` : line || UNNAMED;
}

/** `crypto.randomUUID` is there on HTTPS and localhost only. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
