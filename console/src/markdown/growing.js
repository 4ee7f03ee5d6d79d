// A block's text on the screen: brought up to date once a frame at most, and less often when that takes long.
import { make } from "./build.js";
import { highlight } from "./highlight.js";
import { MarkdownStream } from "./stream.js";

/** How long to rest after a rendering, as a multiple of what it took, layout and painting included: it gets a quarter of the
 * time at most, and clicks and scrolling the rest. */
const REST = 3;
/** Characters that are taken in at once, so that a long answer from the history doesn't stop the page. */
const SLICE_CHARS = 20_000;

export class GrowingText {
  #element;
  #stream;
  #block;
  #shown = 0;
  #isScheduled = false;
  #isWaiting = false;
  #restsUntil = 0;
  #isClosed = false;
  #unsubscribe;

  constructor(element, block, hooks) {
    this.#element = element;
    this.#block = block;
    this.#stream = new MarkdownStream(element, { code: highlight, ...hooks });
    this.#unsubscribe = block.subscribe(() => this.#schedule());
    this.#render();
  }

  close() {
    this.#isClosed = true;
    this.#unsubscribe();
  }

  #schedule() {
    if (this.#isScheduled) return;
    const wait = this.#restsUntil - performance.now();
    this.#isWaiting = wait === Number.POSITIVE_INFINITY;
    if (this.#isWaiting) return;
    this.#isScheduled = true;
    if (wait > 20) setTimeout(() => requestAnimationFrame(() => this.#render()), wait);
    else requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#isScheduled = false;
    if (this.#isClosed) return;
    const began = performance.now();
    const { text, isOpen } = this.#block;
    const end = Math.min(text.length, this.#shown + SLICE_CHARS);
    const isAll = end === text.length;
    try {
      this.#stream.append(text.slice(this.#shown, end));
      this.#stream.render(isAll && !isOpen);
    } catch (error) {
      // Thousands of quotes or lists in each other are more than the stack holds: such a text is shown as it was written.
      if (!isOverflow(error)) throw error;
      this.#stream = new Unformatted(this.#element, text.slice(0, end));
    }
    this.#shown = end;
    this.#restsUntil = Number.POSITIVE_INFINITY;
    afterPainting(() => {
      this.#restsUntil = performance.now() + REST * (performance.now() - began);
      if (this.#isWaiting) this.#schedule();
    });
    if (!isAll) this.#schedule();
    else if (!isOpen) this.close();
  }
}

/** Whether the stack was full. Firefox has an error of its own for that. */
const isOverflow = (error) => error instanceof RangeError || error.name === "InternalError";

/** Stands in for a MarkdownStream: the text itself. */
class Unformatted {
  #text;

  constructor(root, text) {
    this.#text = make("p", { class: "unformatted" }, text);
    root.replaceChildren(this.#text);
  }

  append(text) {
    this.#text.append(text);
  }

  render() {}
}

/** Called from within a frame: a message is handled when that frame is on the screen. */
function afterPainting(action) {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = action;
  port2.postMessage(null);
}
