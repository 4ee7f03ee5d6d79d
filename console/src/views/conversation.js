// The conversation of a session: its exchanges, what happens now, and the box to write in.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { coarse } from "../model/format.js";
import { useObservables } from "../model/observable.js";
import { announcer } from "./announce.js";
import { copyBy, Problem, useSeconds } from "./common.js";
import { Composer } from "./composer.js";
import { Icon } from "./icons.js";
import { Follower } from "./scroll.js";
import { Exchange } from "./turn.js";
import { Welcome } from "./welcome.js";

/** Of a long conversation the end is shown first. */
const EXCHANGES_SHOWN = 40;

export function Conversation({ session, onOpen, models, onLeave }) {
  useObservables(session);
  const scroller = useRef();
  const content = useRef();
  const follower = useRef();
  const [isFollowing, setFollowing] = useState(true);
  const [shown, setShown] = useState(EXCHANGES_SHOWN);
  useLayoutEffect(() => {
    follower.current = new Follower(scroller.current, content.current, setFollowing);
    return () => follower.current.close();
  }, []);

  const onClick = ({ target }) => {
    const button = target.closest("[data-path], [data-copy], [data-events]");
    if (!button) return;
    if (button.dataset.path) onOpen("files", button.dataset.path);
    else if (button.dataset.events) onOpen("events", button.dataset.events);
    else copyBy(button, button.closest(".code").querySelector("code").textContent);
  };
  const send = (parts) => {
    follower.current.toEnd();
    return session.send(parts);
  };
  const { entries } = session;
  const first = Math.max(0, entries.length - shown);
  return html`<div class="conversation">
    <div class="scroller" ref=${scroller} tabindex="0" role="log" aria-live="off" aria-label="Conversation" onClick=${onClick}>
      <div class="content" ref=${content}>
        ${first > 0 ? html`<button type="button" class="earlier" onClick=${() => setShown(shown + EXCHANGES_SHOWN)}>Show earlier messages</button>` : null}
        ${entries.slice(first).map((entry) => html`<${Exchange} key=${entry.turn.id} ...${entry} session=${session} />`)}
        <${Place} session=${session} models=${models} onSend=${send} onLeave=${onLeave} />
      </div>
    </div>
    <div class="bottom">
      <div class="status-line">
        <${Status} session=${session} />
        ${isFollowing ? null : html`<button type="button" class="to-end" onClick=${() => follower.current.toEnd()}><${Icon} name="down" /> New</button>`}
      </div>
      <${Problem} problem=${session.state === "failed" ? null : session.problem} onDismiss=${() => session.dismiss()} />
      ${session.state === "gone" ? null : html`<${Composer} session=${session} onSend=${send} models=${models} />`}
    </div>
  </div>`;
}

/** What stands where messages would be. */
function Place({ session, models, onSend, onLeave }) {
  if (session.state === "loading") return html`<p class="place">Loading…</p>`;
  if (session.state === "failed") return html`<${Problem} problem=${session.problem} />`;
  if (session.state === "gone") {
    return html`<div class="place"><p>This session has expired.</p><button type="button" onClick=${onLeave}>New session</button></div>`;
  }
  return session.entries.length ? null : html`<${Welcome} session=${session} models=${models} onSend=${onSend} />`;
}

/** One line of what happens now. */
function Status({ session }) {
  const { turn } = session;
  useObservables(turn);
  const words = statusOf(session);
  useSeconds(Boolean(words));
  const call = turn?.isRunning ? turn.blocks.findLast((block) => block.state === "running") : null;
  useEffect(() => {
    if (call) announcer.say(`Running ${call.name}`);
  }, [call]);
  const waiting = turn?.isRunning ? turn.waiting[0] : null;
  useEffect(() => {
    if (waiting)
      announcer.alert(
        waiting.state === "asks" ? `${waiting.name} waits for your approval.` : `${waiting.name} waits for an answer.`,
      );
  }, [waiting]);
  return html`<p class=${`status${session.link === "lost" ? " lost" : ""}`}>${words ? html`<span class="pulse"></span>${words}` : null}</p>`;
}

function statusOf({ turn, link, isSending }) {
  if (link === "lost" && (isSending || turn?.isRunning)) {
    return isSending
      ? "Connection lost. Your message is sent as soon as it is back…"
      : "Connection lost. The turn goes on. Reconnecting…";
  }
  if (isSending && !turn?.isRunning) return "Sending…";
  if (!turn?.isRunning) return "";
  if (turn.isCancelling) return "Stopping…";
  const [waiting] = turn.waiting;
  if (waiting)
    return waiting.state === "asks" ? `Waiting for you: ${waiting.name}` : `Waiting for your program: ${waiting.name}`;
  const running = turn.blocks.filter((block) => block.state === "running");
  if (running.length) {
    const since = running[0].executingAt;
    return `Working: ${running.map(({ name }) => name).join(", ")}${since === null ? "" : ` · ${coarse(performance.now() / 1000 - since)}`}`;
  }
  const open = turn.openBlock;
  if (open?.type === "thinking") return "Thinking…";
  if (open?.type === "text") return "Writing…";
  return open ? `Preparing: ${open.name}` : "Working…";
}
