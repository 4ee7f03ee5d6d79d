// Read a turn to its end, over lost connections, a sleeping laptop and a restarted server.
import { sessionPath, Unreachable } from "./api.js";
import { eventsOf, isTerminal } from "./sse.js";

/** More than two heartbeats: a connection that is silent for so long is none, whatever the browser thinks. */
const SILENCE_MS = 35_000;
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 8_000;
/** A tab that nobody sees lets go of its stream: browsers open only six to a server. */
const HIDDEN_MS = 60_000;

/**
 * Follow `turn` until its terminal event. Only that ends a turn: a body that ends without one was cut off.
 *
 * `first`: an answer that streams it already. `onLink(state)`: "open", "lost" or "asleep". Throws ApiError when the server
 * refuses for good, and AbortError after `signal`.
 */
export async function follow(api, sessionId, turn, { first = null, signal, onLink }) {
  let answer = first;
  let delay = RETRY_MS_MIN;
  while (turn.isRunning) {
    const attempt = new Attempt(signal);
    try {
      let replayedTo = -1;
      if (!answer) {
        const path = sessionPath(sessionId, `/responses/${turn.id}`);
        // What was there before we came is not timed: the wire has no times.
        replayedTo = (await api.json("GET", path, { signal: attempt.signal })).last_sequence_number;
        const headers = turn.lastSeq >= 0 ? { "Last-Event-ID": String(turn.lastSeq) } : {};
        answer = await api.fetch("GET", `${path}/events`, { headers, signal: attempt.signal });
      }
      if (answer.status === 204) return;
      onLink("open");
      for await (const events of eventsOf(answer.body, attempt.signal, () => attempt.alive())) {
        delay = RETRY_MS_MIN;
        const cut = events.findIndex((event) => event.seq === null || event.seq > replayedTo);
        const old = cut < 0 ? events.length : cut;
        turn.apply(events.slice(0, old), null);
        turn.apply(events.slice(old), performance.now() / 1000);
        if (events.some((event) => isTerminal(event.type))) return;
      }
    } catch (error) {
      if (signal.aborted) throw error;
      const isLasting = error.status && !error.isPassing;
      if (isLasting) throw error;
    } finally {
      attempt.end();
      answer = null;
    }
    if (signal.aborted) throw new DOMException("", "AbortError");
    if (attempt.isAsleep) {
      onLink("asleep");
      await untilVisible(signal);
    } else {
      onLink("lost");
      await pause(delay, signal);
      delay = Math.min(delay * 2, RETRY_MS_MAX);
    }
  }
}

/** Send a message until the server has it: the same idempotency key each time makes it one turn, however often it is sent. `signal` ends the waiting. */
export async function sendUntilTaken(api, path, options, signal, onLink) {
  let delay = RETRY_MS_MIN;
  for (;;) {
    try {
      return await api.fetch("POST", path, options);
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      onLink("lost");
      await pause(delay, signal);
      delay = Math.min(delay * 2, RETRY_MS_MAX);
    }
  }
}

/** One connection, and what ends it: silence, sleep, a hidden tab, or `outer`. */
class Attempt {
  #controller = new AbortController();
  #lastBytes = Date.now();
  #hidden = null;
  isAsleep = false;

  constructor(outer) {
    this.signal = this.#controller.signal;
    const abort = () => this.#controller.abort();
    outer.addEventListener("abort", abort);
    if (outer.aborted) abort();
    // By the clock on the wall: timers stand still while the machine sleeps.
    const check = () => Date.now() - this.#lastBytes > SILENCE_MS && abort();
    const watch = setInterval(check, 1_000);
    const onVisibility = () => {
      clearTimeout(this.#hidden);
      if (document.hidden) this.#hidden = setTimeout(() => this.#sleep(), HIDDEN_MS);
      else check();
    };
    document.addEventListener("visibilitychange", onVisibility);
    window.addEventListener("online", check);
    onVisibility();
    this.end = () => {
      abort();
      clearInterval(watch);
      clearTimeout(this.#hidden);
      outer.removeEventListener("abort", abort);
      document.removeEventListener("visibilitychange", onVisibility);
      window.removeEventListener("online", check);
    };
  }

  alive() {
    this.#lastBytes = Date.now();
  }

  #sleep() {
    this.isAsleep = true;
    this.#controller.abort();
  }
}

/** Wait; shorter when the network or the person comes back. */
function pause(ms, signal) {
  return until(signal, (done) => {
    const timer = setTimeout(done, ms);
    const wake = () => !document.hidden && done();
    window.addEventListener("online", wake);
    document.addEventListener("visibilitychange", wake);
    return () => {
      clearTimeout(timer);
      window.removeEventListener("online", wake);
      document.removeEventListener("visibilitychange", wake);
    };
  });
}

function untilVisible(signal) {
  return until(signal, (done) => {
    const look = () => !document.hidden && done();
    document.addEventListener("visibilitychange", look);
    look();
    return () => document.removeEventListener("visibilitychange", look);
  });
}

/** A promise that `start(done)` fulfils and `signal` rejects; what `start` answers clears up. */
function until(signal, start) {
  return new Promise((resolve, reject) => {
    let clear = () => {};
    const end = (settle) => () => {
      signal.removeEventListener("abort", onAbort);
      queueMicrotask(() => clear());
      settle();
    };
    const onAbort = end(() => reject(new DOMException("", "AbortError")));
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
    else clear = start(end(resolve)) ?? clear;
  });
}
