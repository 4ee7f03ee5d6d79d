// A session that is open in this tab: its conversation, its running turn, and what a person does to it.
import { ApiError, sessionPath } from "./api.js";
import { follow, sendUntilTaken } from "./follow.js";
import { contentOf, newKey, pairsOf, titleOf, UNNAMED } from "./messages.js";
import { Observable } from "./observable.js";
import { Turn } from "./turn.js";

/** A session that is not persistent is gone 5 minutes after its last turn; people come back later than that. */
const TTL_S = 30 * 24 * 3600;

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
    /** Sends what stands in the box, when something does; the box sets it. */
    this.resend = null;
    /** Takes files for the next message; the box sets it. */
    this.onFiles = () => {};
    /** Counts up when files may have changed. */
    this.filesVersion = 0;
    this.#closing = new AbortController();
  }

  #closing;
  #following = null;
  /** Tried again after an answer that was lost, it is the same session. */
  #once = { "Idempotency-Key": newKey() };
  #making = null;
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
      const entries = pairsOf(messages).map(({ user, answer }) => ({ user, turn: this.#turnOf(answer, known) }));
      // A turn that was begun here while the answer was under way is not in it.
      const begun = this.entries.at(-1);
      const isMissing = begun && begun.turn === this.#following && !entries.some(({ turn }) => turn === begun.turn);
      this.entries = isMissing ? [...entries, begun] : entries;
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

  /** A turn that is known stays, with all that was unfolded in it; a running one is read from its first event. */
  #turnOf(record, known) {
    const turn = known.get(record.id);
    if (turn && (turn === this.#following || turn.status === record.status)) return turn;
    return record.status === "in_progress" ? new Turn(record.id, record.status, record.created_at) : Turn.from(record);
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
    const isStale = this.state === "failed" || (this.state === "ready" && !this.isSending && (isNew || isOver));
    if (isStale) this.load();
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
      await this.#name(titleOf(parts));
      const options = { json: { message: parts, event_ids: true }, headers: { "Idempotency-Key": newKey() } };
      const path = sessionPath(this.id, "/messages");
      const answer = await sendUntilTaken(this.api, path, options, this.#closing.signal, (link) => this.#setLink(link));
      await this.#taken(parts, answer);
      return true;
    } catch (error) {
      this.#refused(error, parts);
      return false;
    } finally {
      this.isSending = false;
      this.changed();
    }
  }

  async #taken(parts, answer) {
    if (this.#closing.signal.aborted) {
      // Somebody went elsewhere meanwhile: it is sent all the same, and its turn is read when they come back.
      answer.body?.cancel().catch(() => {});
      return;
    }
    const isStream = answer.headers.get("Content-Type")?.startsWith("text/event-stream");
    if (isStream) {
      const turn = new Turn(answer.headers.get("X-Response-Id"), "in_progress", this.api.now());
      this.entries = [...this.entries, { user: contentOf(parts), turn }];
      this.#attach(turn, answer);
    } else await this.load();
    this.events.changed();
  }

  #refused(error, parts) {
    if (error.name === "AbortError") return;
    if (error instanceof ApiError && error.name === "session_busy") {
      this.load().then(() => {
        this.problem ??= { text: "Another window's turn. Your text is kept; send it when the turn has ended." };
        this.changed();
      });
    } else this.#fail(error, () => (this.resend ? this.resend() : this.send(parts)));
  }

  /** The title of a session is the first thing that is said in it; it may be there already, for its files. */
  async #name(title) {
    if (!this.id) {
      await this.ensure(title);
      return;
    }
    // A message may be sent before the session is on the screen.
    this.record ??= await this.api.json("GET", sessionPath(this.id));
    if (this.record.metadata.title === UNNAMED) await this.change({ metadata: { title } });
  }

  /** Make the session, unless it is there. */
  async ensure(title = UNNAMED) {
    if (this.id) return;
    this.#making ??= this.#make(title).finally(() => {
      this.#making = null;
    });
    await this.#making;
  }

  async #make(title) {
    const body = { persistent: true, ttl: TTL_S, metadata: { title }, ...this.wishes };
    try {
      this.record = await this.api.json("POST", "v1/sessions", { json: body, headers: this.#once });
    } catch (error) {
      // A server may allow less (TTL_MAX_S); its own default is better than nothing.
      if (error.status !== 400 || !/\bttl\b/.test(error.message)) throw error;
      delete body.ttl;
      this.record = await this.api.json("POST", "v1/sessions", { json: body, headers: this.#once });
    }
    this.id = this.record.id;
    this.events.created(this.id);
  }

  #attach(turn, first = null) {
    this.#following = turn;
    this.#setLink("open");
    const options = { first, signal: this.#closing.signal, onLink: (link) => this.#setLink(link) };
    let waiting = 0;
    const end = turn.subscribe(() => {
      this.changed();
      // The list is to say so at once.
      if (turn.waiting.length !== waiting) this.events.changed();
      waiting = turn.waiting.length;
    });
    follow(this.api, this.id, turn, options)
      .then(() => (turn.isRunning ? this.#reload() : this.#ended(turn)))
      .catch((error) => {
        this.#following = null;
        if (error.status === 404) this.#reload();
        else this.#fail(error, () => this.#reload());
      })
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
