// The list of sessions: polled, since the wire has no stream of them, and at once when another tab says so.
import { nextPage, sessionPath } from "./api.js";
import { Observable } from "./observable.js";

const POLL_MS = 5_000;
const POLL_HIDDEN_MS = 15_000;

export class Sessions extends Observable {
  #timer = null;
  #channel = null;
  #refreshing = null;
  #again = false;
  #pages = 1;

  constructor(api) {
    super();
    this.api = api;
    this.records = [];
    this.isLoaded = false;
    this.hasMore = false;
    this.isLost = false;
  }

  start() {
    const onVisibility = () => this.refresh();
    document.addEventListener("visibilitychange", onVisibility);
    if ("BroadcastChannel" in window) {
      this.#channel = new BroadcastChannel(`turnwire ${new URL(".", document.baseURI).pathname}`);
      this.#channel.onmessage = () => this.refresh();
    }
    this.refresh();
    return () => {
      document.removeEventListener("visibilitychange", onVisibility);
      this.#channel?.close();
      clearTimeout(this.#timer);
      this.#timer = "ended";
    };
  }

  /** Something was changed here: look, and have the other tabs look. */
  touch() {
    this.#channel?.postMessage("changed");
    return this.refresh();
  }

  /** Look now; where an answer is under way that may be older than this wish, once more after it. */
  refresh() {
    if (this.#refreshing) {
      this.#again = true;
      return this.#refreshing;
    }
    this.#refreshing = this.#refresh().finally(() => {
      this.#refreshing = null;
      if (!this.#again) return;
      this.#again = false;
      this.refresh();
    });
    return this.#refreshing;
  }

  more() {
    this.#pages++;
    return this.refresh();
  }

  async #refresh() {
    try {
      const records = [];
      let next = "v1/sessions?limit=100";
      for (let page = 0; next && page < this.#pages; page++) {
        const answer = await this.api.fetch("GET", next);
        records.push(...(await answer.json()));
        next = nextPage(answer);
      }
      // The server has them by their creation; people look for what they did last.
      this.records = records.sort((a, b) => b.last_activity - a.last_activity);
      this.hasMore = next !== null;
      this.isLoaded = true;
      this.isLost = false;
    } catch {
      // What the list shows may be old, which it says; a key that works no more is handled by the API.
      this.isLost = true;
    }
    if (this.#timer === "ended") return;
    this.changed();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), document.hidden ? POLL_HIDDEN_MS : POLL_MS);
  }

  async remove(id) {
    await this.api.fetch("DELETE", sessionPath(id));
    this.records = this.records.filter((record) => record.id !== id);
    this.changed();
    this.touch();
  }
}

/** What a session is called. */
export const nameOf = (record) => {
  const title = record?.metadata?.title;
  return typeof title === "string" && title.trim() ? title : (record?.id ?? "New session");
};
