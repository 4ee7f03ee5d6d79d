// Values that change, and views that show them.
import { useEffect, useState } from "../html.js";

export class Observable {
  #listeners = new Set();

  /** Have `listener` called at each change; the answer ends that. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  changed() {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** Render the view again whenever one of these changes. */
export function useObservables(...observables) {
  const [, count] = useState(0);
  useEffect(() => {
    const again = () => count((n) => n + 1);
    const ends = observables.filter(Boolean).map((it) => it.subscribe(again));
    // What changed between the first rendering and now.
    again();
    return () => {
      for (const end of ends) end();
    };
  }, observables);
}
