// Follow the end of the conversation while a person wants that, and never against their will.

const NEAR_PX = 48;

export class Follower {
  isFollowing = true;
  #scroller;
  #onChange;
  #top = 0;
  #height = 0;
  #ends = [];

  /** `content` is what grows in `scroller`; `onChange` is told when following stops or resumes. */
  constructor(scroller, content, onChange) {
    this.#scroller = scroller;
    this.#onChange = onChange;
    this.#listen(scroller, "scroll", () => this.#onScroll());
    // A small turn of the wheel stays near the end, and is a wish all the same.
    this.#listen(scroller, "wheel", (event) => event.deltaY < 0 && !scrollsWithin(event, scroller) && this.#set(false));
    this.#listen(scroller, "keydown", (event) => isUpward(event) && this.#set(false));
    this.#listen(document, "selectionchange", () => this.#selects() && this.#set(false));
    const observer = new ResizeObserver(() => this.#isFollowing());
    observer.observe(content);
    observer.observe(scroller);
    this.#ends.push(() => observer.disconnect());
  }

  close() {
    for (const end of this.#ends) end();
  }

  toEnd() {
    this.#set(true);
    this.#isFollowing();
  }

  #listen(target, type, listener) {
    target.addEventListener(type, listener, { passive: true });
    this.#ends.push(() => target.removeEventListener(type, listener));
  }

  #isFollowing() {
    if (!this.isFollowing) return;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#remember();
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const isUp = scrollTop < this.#top - 1;
    // What was folded away makes a scroller jump up by itself.
    const hasShrunk = scrollHeight < this.#height;
    const isAtEnd = scrollHeight - scrollTop - clientHeight <= NEAR_PX;
    if (isUp && !hasShrunk) this.#set(false);
    else if (isAtEnd && scrollTop > this.#top + 1) this.#set(true);
    this.#remember();
  }

  #remember() {
    this.#top = this.#scroller.scrollTop;
    this.#height = this.#scroller.scrollHeight;
  }

  #set(isFollowing) {
    if (this.isFollowing === isFollowing) return;
    // There is nothing to scroll: it is all in sight.
    if (!isFollowing && this.#scroller.scrollHeight <= this.#scroller.clientHeight) return;
    this.isFollowing = isFollowing;
    this.#onChange(isFollowing);
  }

  #selects() {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && this.#scroller.contains(selection.anchorNode);
  }
}

function isUpward(event) {
  return ["PageUp", "Home", "ArrowUp"].includes(event.key) && !event.target.closest("textarea, input, select");
}

/** Whether a turn of the wheel moves something inside of the scroller that can still move. */
function scrollsWithin(event, scroller) {
  for (let node = event.target; node && node !== scroller; node = node.parentElement) {
    if (node.scrollTop > 0 && /auto|scroll/.test(getComputedStyle(node).overflowY)) return true;
  }
  return false;
}
