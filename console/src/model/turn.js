// A turn, folded from its events (PROTOCOL.md, section 2), or taken from the conversation as it stands.
import { Observable } from "./observable.js";
import { isTerminal } from "./sse.js";

const NO_USAGE = { input_tokens: 0, output_tokens: 0 };

/** A part of a turn. `key` names it as long as the turn is shown: what a person unfolded stays unfolded. */
export class Block extends Observable {
  constructor(type, key, startedAt) {
    super();
    this.type = type;
    this.key = key;
    this.seq = typeof key === "number" ? key : -1;
    this.startedAt = startedAt;
    this.endedAt = null;
    this.text = "";
    this.isOpen = true;
  }
}

/** A call of a tool. Its state is what its card shows. */
export class ToolBlock extends Block {
  constructor(key, startedAt, { id, name }) {
    super("tool", key, startedAt);
    this.id = id;
    this.name = name;
    this.input = null;
    this.executingAt = null;
    this.request = null;
    this.answer = null;
    this.result = null;
    this.hasRun = false;
  }

  get state() {
    if (this.result) {
      if (this.answer?.approved === false) return "refused";
      if (!this.result.is_error) return "done";
      if (STOPPED.test(this.result.content)) return "stopped";
      return this.hasRun && !NOT_MADE.test(this.result.content) ? "failed" : "not run";
    }
    if (this.request && !this.answer) return this.request.kind === "approval" ? "asks" : "waits";
    return this.hasRun ? "running" : "writing";
  }
}

export class Turn extends Observable {
  constructor(id, status = "in_progress", createdAt = null) {
    super();
    this.id = id;
    this.status = status;
    this.createdAt = createdAt;
    this.blocks = [];
    this.usage = NO_USAGE;
    this.error = null;
    this.lastSeq = -1;
    /** The events themselves, for those who want to see them: `{seq, at, type, text}`; `at` null of replayed ones. */
    this.log = [];
    this.isCancelling = false;
    this.calls = new Map();
  }

  /** Of a record of the conversation. */
  static from(record) {
    const turn = new Turn(record.id, record.status, record.created_at);
    turn.usage = record.usage ?? NO_USAGE;
    for (const [index, item] of record.content.entries()) turn.#addFolded(item, `folded ${index}`);
    return turn;
  }

  get isRunning() {
    return this.status === "in_progress";
  }

  get openBlock() {
    const last = this.blocks.at(-1);
    return last?.isOpen ? last : null;
  }

  /** Calls that wait for the person at the screen, or for the program that made the session. */
  get waiting() {
    return this.blocks.filter((block) => block.state === "asks" || block.state === "waits");
  }

  /** Take events in, in order; those that are known already are passed over. `at`: seconds of arrival, null: replayed. */
  apply(events, at) {
    let isStructural = false;
    for (const event of events) {
      if (event.seq !== null && event.seq <= this.lastSeq) continue;
      this.lastSeq = event.seq ?? this.lastSeq + 1;
      this.log.push({ seq: this.lastSeq, at, type: event.type, text: event.text });
      isStructural = this.#apply(event.type, event.data, at) || isStructural;
    }
    if (isStructural) this.changed();
  }

  /** Whether more changed than the text of a block. */
  #apply(type, data, at) {
    const [kind, what] = type.split(".");
    if (what === "delta" || what === "input_delta") {
      const block = this.openBlock;
      if (block) {
        block.text += data.content;
        block.changed();
      }
      return false;
    }
    if (isTerminal(type)) this.#end(type, data, at);
    else if (what === "start") this.#start(kind, data, at);
    else if (what === "stop") this.#stop(at);
    else if (type === "tool_use.executing") this.#execute(data, at);
    else if (type === "tool_result") this.#result(data, at);
    else if (type === "tool_call.requested") this.#call(data.id, (call) => (call.request = data));
    else if (type === "tool_call.answered") this.#call(data.id, (call) => (call.answer = data));
    else if (type === "message.resumed") this.#resume(data);
    return true;
  }

  #start(kind, data, at) {
    const block = kind === "tool_use" ? new ToolBlock(this.lastSeq, at, data) : new Block(kind, this.lastSeq, at);
    if (kind === "tool_use") this.calls.set(data.id, block);
    this.blocks.push(block);
  }

  #stop(at) {
    const block = this.openBlock;
    if (!block) return;
    block.isOpen = false;
    // A call ends with its result.
    if (block.type !== "tool") block.endedAt = at;
    block.changed();
  }

  #call(id, change) {
    const call = this.calls.get(id);
    if (!call) return;
    change(call);
    call.changed();
  }

  #execute(data, at) {
    this.#call(data.id, (call) => {
      call.input = data.input;
      call.hasRun = true;
      call.executingAt = at;
    });
  }

  #result(data, at) {
    this.#call(data.id, (call) => {
      call.result = data;
      call.endedAt = at;
    });
  }

  #resume({ reason, superseded_from: from }) {
    this.blocks = this.blocks.filter((block) => block.seq < from || block.type === "note");
    this.calls = new Map(this.blocks.filter((block) => block.type === "tool").map((block) => [block.id, block]));
    const note = new Block("note", this.lastSeq, null);
    note.isOpen = false;
    note.text = `${REASONS[reason] ?? "The turn was interrupted"}; ${from < this.lastSeq ? "this step was made again." : "the turn goes on."}`;
    this.blocks.push(note);
  }

  #end(type, data, at) {
    this.#stop(at);
    this.status = type === "message.error" ? "error" : data.status;
    this.usage = data.usage ?? this.usage;
    this.error = data.error ?? null;
  }

  #addFolded(item, key) {
    if (item.type === "tool_result") {
      this.#call(item.id, (call) => (call.result = item));
      return;
    }
    const block = item.type === "tool_use" ? new ToolBlock(key, null, item) : new Block(item.type, key, null);
    block.isOpen = false;
    if (item.type === "tool_use") {
      block.input = item.input;
      // The conversation does not say; an error's text does, and nothing else depends on it.
      block.hasRun = true;
      this.calls.set(item.id, block);
    } else block.text = item.text;
    this.blocks.push(block);
  }
}

// The wire tells of such a result that it is an error, and only the server's words tell of which kind. Where they are other
// words, the call is shown as failed, which is true as well.
const STOPPED = /^This call was stopped:/;
const NOT_MADE = /^This call was not made:/;

const REASONS = {
  server_restarted: "The server restarted",
  taken_over: "Another server took over",
  provider_interrupted: "The model's provider broke off",
};
