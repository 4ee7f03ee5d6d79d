// Icons, drawn on 16 by 16.
import { html } from "../html.js";

const PATHS = {
  attach: "M8 3v10M3 8h10",
  back: "M10 3 5 8l5 5",
  close: "M4 4l8 8M12 4l-8 8",
  down: "M8 3v10M4 9l4 4 4-4",
  events: "M3 4h10M3 8h10M3 12h6",
  file: "M4 2h5l3 3v9H4zM9 2v3h3",
  files: "M2 4h4l1.5 2H14v7H2z",
  folder: "M2 4h4l1.5 2H14v7H2z",
  menu: "M2 4h12M2 8h12M2 12h12",
  more: "M3 8h.01M8 8h.01M13 8h.01",
  new: "M8 3v10M3 8h10",
  refresh: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3",
  send: "M8 13V3M4 7l4-4 4 4",
  stop: "M4.5 4.5h7v7h-7z",
  trash: "M3 4.5h10M6 4V2.5h4V4M4.5 4.5l.6 9h5.8l.6-9",
  upload: "M8 11V3M4.5 6.5 8 3l3.5 3.5M3 13h10",
  // The states of a call.
  writing: "M3 13l1-3 7-7 2 2-7 7z",
  running: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  asks: "M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.8-1.1 1.8M8 12.8h.01",
  waits: "M3 6h10M10.5 3.5 13 6M13 10H3M5.5 12.5 3 10",
  done: "M3 8.5l3.5 3.5L13 4.5",
  failed: "M4 4l8 8M12 4l-8 8",
  refused: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M4.2 4.2l7.6 7.6",
  "not run": "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M4.2 4.2l7.6 7.6",
  stopped: "M4.5 4.5h7v7h-7z",
};

export function Icon({ name }) {
  return html`<svg class=${`icon icon-${name.replace(" ", "-")}`} viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}

/** The mark of turnwire: a line that comes back to where it was. */
export function Mark() {
  return html`<svg class="mark" viewBox="0 0 20 20" aria-hidden="true">
    <path d="M2 6h10a4 4 0 0 1 0 8H7" /><path d="M10 11l-3 3 3 3" /><path d="M2 14h1" />
  </svg>`;
}
