// What a screen reader is told, and nothing more: a log that speaks each piece of an answer is no use to anybody.
import { html, useEffect, useState } from "../html.js";

const APART_MS = 5_000;

class Announcer {
  #timer = null;
  #saidAt = 0;
  show = () => {};
  showAlert = () => {};

  /** Say it when nothing was said for five seconds; what comes meanwhile takes its place. */
  say(text) {
    clearTimeout(this.#timer);
    const wait = Math.max(0, this.#saidAt + APART_MS - Date.now());
    this.#timer = setTimeout(() => {
      this.#saidAt = Date.now();
      this.show(text);
    }, wait);
  }

  /** Say it at once. */
  alert(text) {
    // The same text again is news too.
    this.showAlert("");
    setTimeout(() => this.showAlert(text), 50);
  }
}

export const announcer = new Announcer();

export function Announcements() {
  const [text, show] = useState("");
  const [alert, showAlert] = useState("");
  useEffect(() => Object.assign(announcer, { show, showAlert }), []);
  return html`<div class="unseen"><div role="status">${text}</div><div role="alert">${alert}</div></div>`;
}
