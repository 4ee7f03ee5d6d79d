// A block's text on the screen: brought up to date once a frame at most, and less often when that takes long.
import { highlight } from "./highlight.js";
import { MarkdownStream } from "./stream.js";

/** How long to rest after a rendering, as a multiple of what it took: rendering gets a quarter of the time at most. */
const REST = 3;
/** Characters that are taken in at once, so that a long answer from the history doesn't stop the page. */
const SLICE_CHARS = 20_000;

export class GrowingText {
  #stream;
  #block;
  #shown = 0;
  #isScheduled = false;
  #restsUntil = 0;
  #isClosed = false;
  #unsubscribe;

  constructor(element, block, hooks) {
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
    this.#isScheduled = true;
    const wait = this.#restsUntil - performance.now();
    if (wait > 20) setTimeout(() => requestAnimationFrame(() => this.#render()), wait);
    else requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#isScheduled = false;
    if (this.#isClosed) return;
    const began = performance.now();
    const { text, isOpen } = this.#block;
    const end = Math.min(text.length, this.#shown + SLICE_CHARS);
    this.#stream.append(text.slice(this.#shown, end));
    this.#shown = end;
    const isAll = end === text.length;
    this.#stream.render(isAll && !isOpen);
    this.#restsUntil = performance.now() + REST * (performance.now() - began);
    if (!isAll) this.#schedule();
    else if (!isOpen) this.close();
  }
}
