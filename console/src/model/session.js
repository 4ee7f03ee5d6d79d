// A session that is open in this tab: its conversation, its running turn, and what a person does to it.
import { ApiError, sessionPath } from "./api.js";
import { follow, sendUntilTaken } from "./follow.js";
import { Observable } from "./observable.js";
import { Turn } from "./turn.js";

/** A session that is not persistent is gone 5 minutes after its last turn; people come back later than that. */
const TTL_S = 30 * 24 * 3600;
const TITLE_CHARS_MAX = 60;

export class SessionModel extends Observable {
  /** `id`: null of a session that is made with its first message. `events`: `created(id)`, `changed()`, `ended(turn)`. */
  constructor(api, id, events) {
    super();
    this.api = api;
    this.id = id;
    this.events = events;
    this.record = null;
    /** `{user, turn}`, oldest first; `user` is the message's content. */
    this.entries = [];
    this.state = id ? "loading" : "ready";
    this.link = "open";
    this.isSending = false;
    /** What a person must know: `{text, requestId, again}`. */
    this.problem = null;
    /** What a new session is made with. */
    this.wishes = {};
    /** Counts up when files may have changed. */
    this.filesVersion = 0;
    this.#closing = new AbortController();
  }

  #closing;
  #following = null;
  #loading = null;

  get turn() {
    return this.entries.at(-1)?.turn ?? null;
  }

  get isBusy() {
    return this.isSending || (this.turn?.isRunning ?? false);
  }

  get usage() {
    const sum = (name) => this.entries.reduce((total, { turn }) => total + turn.usage[name], 0);
    return { input: sum("input_tokens"), output: sum("output_tokens") };
  }

  close() {
    this.#closing.abort();
  }

  /** Read the conversation, and follow its running turn from its first event instead of its folded copy. */
  load() {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  async #load() {
    try {
      const [record, messages] = await Promise.all([
        this.api.json("GET", sessionPath(this.id)),
        this.api.all(sessionPath(this.id, "/messages")),
      ]);
      if (this.#closing.signal.aborted) return;
      this.record = record;
      const known = new Map(this.entries.map(({ turn }) => [turn.id, turn]));
      this.entries = pairsOf(messages).map(({ user, answer }) => ({
        user,
        turn: turnOf(answer, known.get(answer.id)),
      }));
      this.state = "ready";
      this.problem = null;
      await this.#explainErrors();
    } catch (error) {
      this.#fail(error, () => this.load());
      return;
    }
    this.changed();
    if (this.turn?.isRunning && this.#following !== this.turn) this.#attach(this.turn);
  }

  /** The sentences of turns that failed stand in their responses. */
  async #explainErrors() {
    const failed = this.entries.map(({ turn }) => turn).filter((turn) => turn.status === "error" && !turn.error);
    if (!failed.length) return;
    const responses = await this.api.all(sessionPath(this.id, "/responses"));
    const errors = new Map(responses.map(({ id, error }) => [id, error]));
    for (const turn of failed) turn.error = errors.get(turn.id) ?? null;
  }

  /** The list of sessions has seen this record: when a turn has begun elsewhere, it is shown here too. */
  see(record) {
    const isNew = record.response_id && !this.entries.some(({ turn }) => turn.id === record.response_id);
    const isOver = !record.busy && this.link === "open" && this.turn?.isRunning && this.#following !== this.turn;
    this.record = record;
    if (this.state === "ready" && !this.isSending && (isNew || isOver)) this.load();
  }

  /**
   * Send a message. `parts`: text, or a list of parts. Whether the server has it: only then the box may be emptied.
   */
  async send(parts) {
    if (this.isBusy) return false;
    this.isSending = true;
    this.problem = null;
    this.changed();
    try {
      await this.ensure(titleOf(parts));
      const answer = await sendUntilTaken(
        this.api,
        sessionPath(this.id, "/messages"),
        {
          json: { message: parts, event_ids: true },
          headers: { "Idempotency-Key": newKey() },
          signal: this.#closing.signal,
        },
        (link) => this.#setLink(link),
      );
      await this.#taken(parts, answer);
      return true;
    } catch (error) {
      this.#refused(error);
      return false;
    } finally {
      this.isSending = false;
      this.changed();
    }
  }

  async #taken(parts, answer) {
    const isStream = answer.headers.get("Content-Type")?.startsWith("text/event-stream");
    if (isStream) {
      const turn = new Turn(answer.headers.get("X-Response-Id"), "in_progress", this.api.now());
      this.entries = [...this.entries, { user: contentOf(parts), turn }];
      this.#attach(turn, answer);
    } else await this.load();
    this.events.changed();
  }

  #refused(error) {
    if (error.name === "AbortError") return;
    if (error instanceof ApiError && error.name === "session_busy") {
      this.problem = { text: "Another window's turn. Your text is kept; send it when the turn has ended." };
      this.#following = null;
      this.load().then(() => {
        this.problem ??= { text: "Another window's turn. Your text is kept; send it when the turn has ended." };
        this.changed();
      });
    } else this.#fail(error);
  }

  /** Make the session, unless it is there. */
  async ensure(title) {
    if (this.id) return;
    const body = { persistent: true, ttl: TTL_S, metadata: { title }, ...this.wishes };
    try {
      this.record = await this.api.json("POST", "v1/sessions", { json: body });
    } catch (error) {
      // A server may allow less (TTL_MAX_S); its own default is better than nothing.
      if (error.status !== 400 || !/\bttl\b/.test(error.message)) throw error;
      delete body.ttl;
      this.record = await this.api.json("POST", "v1/sessions", { json: body });
    }
    this.id = this.record.id;
    this.events.created(this.id);
  }

  #attach(turn, first = null) {
    this.#following = turn;
    this.#setLink("open");
    const options = { first, signal: this.#closing.signal, onLink: (link) => this.#setLink(link) };
    const end = turn.subscribe(() => this.changed());
    follow(this.api, this.id, turn, options)
      .then(() => (turn.isRunning ? this.#reload() : this.#ended(turn)))
      .catch((error) => (error.status === 404 ? this.#reload() : this.#fail(error, () => this.#reload())))
      .finally(end);
  }

  /** The events are gone, or the turn ended while nobody listened: the conversation has it. */
  #reload() {
    this.#following = null;
    this.entries = this.entries.slice(0, -1);
    return this.load();
  }

  #ended(turn) {
    this.#following = null;
    this.filesVersion++;
    this.problem = null;
    this.changed();
    this.events.ended(turn);
    this.events.changed();
  }

  /** End the running turn. */
  async stop() {
    const turn = this.turn;
    if (!turn?.isRunning || turn.isCancelling) return;
    turn.isCancelling = true;
    turn.changed();
    try {
      await this.api.json("POST", sessionPath(this.id, `/responses/${turn.id}/cancel`));
    } catch (error) {
      turn.isCancelling = false;
      turn.changed();
      this.#fail(error, () => this.stop());
    }
  }

  /** Answer a call: an approval, or a function by hand. Throws what the server says against it. */
  async answer(id, result) {
    await this.api.json("POST", sessionPath(this.id, "/tool_results"), { json: { results: [{ id, ...result }] } });
    this.events.changed();
  }

  async change(patch) {
    this.record = await this.api.json("PATCH", sessionPath(this.id), { json: patch });
    this.changed();
    this.events.changed();
  }

  filesChanged() {
    this.filesVersion++;
    this.changed();
  }

  dismiss() {
    this.problem = null;
    this.changed();
  }

  #setLink(link) {
    if (this.link === link) return;
    this.link = link;
    this.changed();
  }

  #fail(error, again = null) {
    if (error.name === "AbortError" || error.status === 401) return;
    if (error.status === 404) this.state = "gone";
    else {
      if (this.state === "loading") this.state = "failed";
      this.problem = { text: error.message, requestId: error.requestId, again };
    }
    this.changed();
  }
}

/** The messages in pairs: what was said, and the turn that answers it. */
function pairsOf(messages) {
  const pairs = [];
  for (const message of messages) {
    if (message.role === "user") pairs.push({ user: message.content, answer: null });
    else if (pairs.length && !pairs.at(-1).answer) pairs.at(-1).answer = message;
  }
  return pairs.filter(({ answer }) => answer);
}

/** A turn that is known stays, with all that was unfolded in it; a running one is read from its first event. */
function turnOf(record, known) {
  if (known && (known.status === record.status || known.isRunning)) return known;
  return record.status === "in_progress" ? new Turn(record.id, record.status, record.created_at) : Turn.from(record);
}

function contentOf(parts) {
  return typeof parts === "string" ? [{ type: "text", text: parts }] : parts;
}

/** The first line of a message, cut to a title's length. */
function titleOf(parts) {
  const text = contentOf(parts).find(({ type }) => type === "text")?.text ?? "";
  const line = text.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  return line.length > TITLE_CHARS_MAX ? `${line.slice(0, TITLE_CHARS_MAX - 1).trimEnd()}…` : line || "New session";
}

/** `crypto.randomUUID` is there on HTTPS and localhost only. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
