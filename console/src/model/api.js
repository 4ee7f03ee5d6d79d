// Requests to the server, with the key. Paths are relative to the page, which may lie below a proxy's prefix.
import { isFilePath } from "./paths.js";

/** The server said no: its status, its short name of the error, and its sentence. */
export class ApiError extends Error {
  constructor(status, name, message, headers) {
    super(message);
    this.status = status;
    this.name = name;
    this.requestId = headers.get("X-Request-Id");
    this.responseId = headers.get("X-Response-Id");
    this.retryAfter = Number(headers.get("Retry-After")) || 0;
  }

  /** Whether the same request may well work in a moment. */
  get isPassing() {
    return this.status >= 500 || this.status === 429;
  }
}

/** The server could not be reached. */
export class Unreachable extends Error {
  constructor() {
    super("The server can't be reached.");
  }
}

const ROOT = new URL(".", document.baseURI);

export class Api {
  /** Seconds that the server's clock is ahead of this machine's. */
  clockSkew = 0;

  /** `onUnauthorized` is called when the key works no more. */
  constructor(key, onUnauthorized = () => {}) {
    // A header is Latin-1 for a browser; a key of somebody's choosing may be anything, and goes as UTF-8.
    this.authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}`;
    this.onUnauthorized = onUnauthorized;
  }

  /** The answer to a request, when it is a good one; else ApiError or Unreachable. Aborting throws an AbortError. */
  async fetch(method, path, { json, body, headers = {}, signal } = {}) {
    const all = { Authorization: this.authorization, ...headers };
    if (json !== undefined) all["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(new URL(path, ROOT), {
        method,
        headers: all,
        body: json === undefined ? body : JSON.stringify(json),
        signal,
        cache: "no-store",
        credentials: "omit",
      });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Unreachable();
    }
    if (answer.ok) {
      const date = Date.parse(answer.headers.get("Date"));
      if (date) this.clockSkew = (date - Date.now()) / 1000;
      return answer;
    }
    throw await this.#error(answer);
  }

  async json(method, path, options) {
    const answer = await this.fetch(method, path, options);
    return answer.status === 204 ? null : answer.json();
  }

  /** All items of a list, page by page. */
  async all(path) {
    const items = [];
    let next = `${path}${path.includes("?") ? "&" : "?"}limit=1000`;
    while (next) {
      const answer = await this.fetch("GET", next);
      items.push(...(await answer.json()));
      next = nextPage(answer);
    }
    return items;
  }

  /** The server's time, in epoch seconds. */
  now() {
    return Date.now() / 1000 + this.clockSkew;
  }

  async #error(answer) {
    let name = "error";
    let message = `The server answered with status ${answer.status}.`;
    try {
      const body = await answer.json();
      if (body.error && body.message) ({ error: name, message } = body);
    } catch {
      // A proxy's own error page: its status says what there is to say.
    }
    const error = new ApiError(answer.status, name, message, answer.headers);
    if (error.status === 401) this.onUnauthorized(error);
    return error;
  }
}

/** Where the next page of a list is: the parameters of its Link header, on the path that the page knows. */
export function nextPage(answer) {
  const link = /<([^>]*)>;\s*rel="next"/.exec(answer.headers.get("Link") ?? "");
  if (!link) return null;
  const url = new URL(link[1], answer.url);
  return new URL(answer.url).pathname.slice(ROOT.pathname.length) + url.search;
}

export const sessionPath = (id, rest = "") => `v1/sessions/${encodeURIComponent(id)}${rest}`;

/** The path of a file's address; each component is encoded by itself. Throws where it would leave the workspace. */
export function filePath(id, path) {
  if (!isFilePath(path)) throw new Error("This is no path of a file in the workspace.");
  return sessionPath(id, `/files/${path.split("/").map(encodeURIComponent).join("/")}`);
}
