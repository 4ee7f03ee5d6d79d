// A Markdown text that grows, as DOM. What is finished is never touched again; only the end is lexed and built anew.
//
//   finished blocks │ the tail: what further text may still change
//
// Three kinds of blocks grow long, and have a way of their own to grow: an open fence takes a <span> a line, unlexed; an
// open list or table keeps all but its last two items. Whatever the pieces in which a text comes, the DOM is the same.
import { Builder, codeBlock, lineOf, withoutLastNewlines } from "./build.js";
import { countFinished, lexBlocks, startsOf } from "./lexing.js";

const ITEMS_LIVE = 2;
const OPEN_FENCE = /^(`{3,}(?=[^`\n]*\n)|~{3,})([^\n]*)\n/;

export class MarkdownStream {
  #root;
  #hooks;
  #tail = "";
  #carriageReturn = "";
  #live = [];
  #fence = null;
  /** The list or table that is open: `{type, place, head}`, `head` being the source of a table's first two lines. */
  #open = null;

  /** `root`: an empty element. `hooks`: see Builder. */
  constructor(root, hooks = {}) {
    this.#root = root;
    this.#hooks = hooks;
  }

  append(text) {
    const all = this.#carriageReturn + text;
    // What follows a carriage return decides what it is.
    this.#carriageReturn = all.endsWith("\r") ? "\r" : "";
    this.#tail += all.slice(0, all.length - this.#carriageReturn.length).replace(/\r\n?/g, "\n");
  }

  /** Bring the DOM up to date; `final`: no more text will come. */
  render(final = false) {
    if (final && this.#carriageReturn) {
      this.#tail += "\n";
      this.#carriageReturn = "";
    }
    for (const node of this.#live) node.remove();
    this.#live = [];
    if (this.#fence && !this.#growFence(final)) return;
    this.#renderTail(final);
  }

  #renderTail(final) {
    const head = this.#open?.head ?? "";
    const source = head + this.#tail;
    const { blocks, inline } = lexBlocks(source);
    const builder = new Builder(inline, this.#hooks);
    const finished = final ? blocks.length : countFinished(blocks, source);
    const starts = startsOf(blocks, source) ?? [0];
    for (let index = 0; index < finished; index++) this.#keep(builder, blocks[index]);
    if (finished === blocks.length) {
      this.#tail = "";
      return;
    }
    const rest = source.slice(starts[finished]);
    // What was cut off of an open table is its first two lines, again and again.
    this.#tail = finished === 0 ? this.#tail : rest;
    if (this.#opensFence(blocks[finished])) {
      if (this.#growFence(final)) this.#renderTail(final);
      return;
    }
    this.#freeze(builder, blocks[finished], rest);
    for (let index = finished; index < blocks.length; index++) this.#show(builder, blocks[index], index === finished);
  }

  /** A block that stays. */
  #keep(builder, token) {
    const open = this.#open;
    this.#open = null;
    if (open?.type === token.type) open.place.append(...parts(builder, token));
    else {
      const node = builder.block(token);
      if (node) this.#root.append(node);
    }
  }

  /** A block that may change, and is built again next time. */
  #show(builder, token, mayContinue) {
    const open = this.#open;
    let nodes;
    if (mayContinue && open?.type === token.type) {
      nodes = parts(builder, token);
      open.place.append(...nodes);
    } else {
      nodes = [builder.block(token)].filter(Boolean);
      this.#root.append(...nodes);
    }
    this.#live.push(...nodes);
  }

  /** Keep all items of a list, or rows of a table, but the last ones, and take them out of the tail and of `token`. */
  #freeze(builder, token, source) {
    const isList = token.type === "list";
    if (!isList && token.type !== "table") return;
    const items = isList ? token.items : token.rows;
    const count = items.length - ITEMS_LIVE;
    if (count <= 0 || !source.startsWith(token.raw)) return;
    const kept = items.splice(0, count);
    const lines = isList ? 0 : token.raw.split("\n", 2).join("\n").length + 1;
    const cut = isList
      ? kept.reduce((sum, item) => sum + item.raw.length, 0)
      : lines + lengthOfLines(source.slice(lines), count);
    const some = isList ? { ...token, items: kept } : { ...token, rows: kept };
    if (this.#open?.type === token.type) this.#open.place.append(...parts(builder, some));
    else {
      const node = builder.block(some);
      this.#root.append(node);
      this.#open = {
        type: token.type,
        place: isList ? node : node.querySelector("tbody"),
        head: source.slice(0, lines),
      };
    }
    this.#tail = source.slice(cut);
  }

  /** Whether the tail is an open fence, all of whose opening line is there; then it is one from now on. */
  #opensFence(token) {
    const opening = token.type === "code" && OPEN_FENCE.exec(this.#tail);
    if (!opening) return false;
    const language = /^\S*/.exec(token.lang ?? "")[0];
    const { element, code } = codeBlock(language);
    const [line, marker] = opening;
    const closing = new RegExp(`^ {0,3}${marker[0]}{${marker.length},} *$`);
    this.#fence = { code, closing, language };
    this.#root.append(element);
    this.#tail = this.#tail.slice(line.length);
    return true;
  }

  /** Move whole lines into the open fence. Whether it is closed now, so that the tail is what follows. */
  #growFence(final) {
    const { code, closing } = this.#fence;
    let from = 0;
    for (;;) {
      const end = this.#tail.indexOf("\n", from);
      const isLast = end < 0;
      const line = this.#tail.slice(from, isLast ? undefined : end);
      if ((!isLast || final) && closing.test(line)) {
        this.#closeFence();
        // The line's end is left: it is what stands between this block and the next.
        this.#tail = isLast ? "" : this.#tail.slice(end);
        return true;
      }
      if (isLast) break;
      code.append(lineOf(`${line}\n`));
      from = end + 1;
    }
    this.#tail = this.#tail.slice(from);
    if (final) {
      if (this.#tail) code.append(lineOf(this.#tail));
      this.#tail = "";
      this.#closeFence();
      return true;
    }
    // Half a line that may become the closing one is not shown yet.
    if (this.#tail && !/^ {0,3}[`~]*$/.test(this.#tail)) {
      const span = lineOf(this.#tail);
      code.append(span);
      this.#live.push(span);
    }
    return false;
  }

  #closeFence() {
    const { code, language } = this.#fence;
    this.#fence = null;
    // As one that came whole: without the ends of its last lines.
    while (code.lastChild?.textContent === "\n") code.lastChild.remove();
    if (code.lastChild) code.lastChild.textContent = withoutLastNewlines(code.lastChild.textContent);
    this.#hooks.code?.(code, language);
  }
}

/** The items of a list or the rows of a table. */
function parts(builder, token) {
  return token.type === "list" ? token.items.map((item) => builder.item(item)) : builder.rows(token);
}

function lengthOfLines(text, count) {
  let at = 0;
  for (let line = 0; line < count; line++) at = text.indexOf("\n", at) + 1;
  return at;
}
