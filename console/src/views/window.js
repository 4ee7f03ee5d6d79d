// What belongs to the window: its title, and the keys that work everywhere.
import { useEffect, useRef } from "../html.js";
import { nameOf } from "../model/sessions.js";

/** A mark for what needs a look: `? ` somebody is waited for, `● ` a turn runs, `✓ ` one has ended while nobody looked. */
export function useTitle(session, sessions) {
  const wasBusy = useRef(false);
  const hasEnded = useRef(false);
  const waits =
    sessions.records.some((record) => record.pending_calls > 0) ||
    (session.turn?.isRunning && session.turn.waiting.length > 0);
  const isBusy = session.isBusy || sessions.records.some((record) => record.busy);
  if (wasBusy.current && !isBusy && document.hidden) hasEnded.current = true;
  wasBusy.current = isBusy;
  const mark = waits ? "? " : isBusy ? "● " : hasEnded.current ? "✓ " : "";
  const name = session.record ? `${nameOf(session.record)} · ` : "";
  useEffect(() => {
    document.title = `${mark}${name}turnwire`;
  }, [mark, name]);
  useEffect(() => {
    const look = () => {
      if (document.hidden || !hasEnded.current) return;
      hasEnded.current = false;
      document.title = document.title.replace(/^✓ /, "");
    };
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
}

/** Ctrl or Cmd with K and with the full stop, and Esc. Single letters belong to those who write. */
export function useShortcuts(actions) {
  const latest = useRef();
  latest.current = actions;
  useEffect(() => {
    const onKey = (event) => {
      if (event.isComposing || event.defaultPrevented) return;
      const hasModifier = event.ctrlKey || event.metaKey;
      let action = null;
      if (hasModifier && event.key.toLowerCase() === "k") action = latest.current.onSessions;
      else if (hasModifier && event.key === ".") action = latest.current.onStop;
      else if (event.key === "Escape" && !document.querySelector("dialog[open]")) action = latest.current.onEscape;
      if (!action) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
}
