// Numbers and times, as people read them.

/** 840, 12k, 1.2M. */
export function count(n) {
  if (n < 1000) return String(n);
  return n < 1_000_000 ? `${(n / 1000).toFixed(n < 10_000 ? 1 : 0)}k` : `${(n / 1_000_000).toFixed(1)}M`;
}

/** 0.2 s, 14 s, 4 m, 2 h, 3 d. */
export function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  return coarse(seconds);
}

/** The same without fractions, for what runs. */
export function coarse(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** 12 B, 3.4 kB, 12 MB. */
export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${unit && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

// Controls, what makes text read in another order than it is, and what takes no room where no script needs it: as in the
// terminal (chat/plain.py).
const HIDDEN = new RegExp(
  "[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u034f\\u061c\\u115f\\u1160\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e" +
    "\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\u{e0000}-\\u{e007f}]",
  "gu",
);

/** A text with escapes in the place of characters that nobody sees: for what a person has to judge. */
export const visible = (text) => text.replace(HIDDEN, (it) => `\\u{${it.codePointAt(0).toString(16)}}`);

/** Whether a number is in there that a browser can't hold, and shows with other digits than it has. */
export function isRounded(value) {
  if (typeof value === "number") return Number.isInteger(value) && !Number.isSafeInteger(value);
  return typeof value === "object" && value !== null && Object.values(value).some(isRounded);
}

/** The time of day, or the day when it was another one. */
export function when(epoch) {
  const date = new Date(epoch * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}

export const full = (epoch) => new Date(epoch * 1000).toLocaleString();
