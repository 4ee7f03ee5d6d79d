// The events of a turn as they came: number, seconds since its begin, type, data.
import { html, useEffect, useRef, useState } from "../html.js";
import { sessionPath } from "../model/api.js";
import { useObservables } from "../model/observable.js";
import { eventsOf } from "../model/sse.js";
import { CopyButton } from "./common.js";

const ROW_PX = 24;
/** Rows beyond the edges of the window; in all there are never more than some hundred in the page. */
const AROUND = 20;
const ROWS_MAX = 200;

export function Events({ session, turnId, onTurn }) {
  useObservables(session);
  const { entries } = session;
  const turn = entries.find((entry) => entry.turn.id === turnId)?.turn ?? session.turn;
  const log = useLog(session, turn);
  const [filter, setFilter] = useState("");
  const [opened, setOpened] = useState(null);
  if (!turn) return html`<p class="place">The events of a turn stand here, as the server sent them.</p>`;
  const words = filter.trim().toLowerCase();
  const rows = words ? log.filter((event) => `${event.type} ${event.text}`.toLowerCase().includes(words)) : log;
  const start = log.find((event) => event.at !== null)?.at ?? 0;
  const lines = () =>
    rows
      .map((event) => JSON.stringify({ sequence_number: event.seq, event: event.type, data: JSON.parse(event.text) }))
      .join("\n");
  const event = opened === null ? null : log.find(({ seq }) => seq === opened);
  return html`<div class="events">
    <div class="tools">
      <select aria-label="Turn" value=${turn.id} onChange=${(it) => onTurn(it.target.value)}>
        ${entries.map((entry, index) => html`<option value=${entry.turn.id}>Turn ${index + 1}${entry.turn.status === "completed" ? "" : ` · ${entry.turn.status.replace("_", " ")}`}</option>`)}
      </select>
      <input type="search" aria-label="Filter events" placeholder="Filter" value=${filter} onInput=${(it) => setFilter(it.target.value)} />
      <${CopyButton} text=${lines} label="Copy" />
    </div>
    <div class="event-row head" aria-hidden="true"><span>seq</span><span>+s</span><span>event</span><span>data</span></div>
    <${Rows} rows=${rows} start=${start} opened=${opened} onOpen=${(seq) => setOpened(seq === opened ? null : seq)} />
    ${
      event
        ? html`<div class="event-detail">
      <div class="label"><span>${event.type}</span><${CopyButton} text=${() => pretty(event.text)} /></div>
      <pre tabindex="0">${pretty(event.text)}</pre></div>`
        : null
    }
    <p class="facts">${rows.length === log.length ? `${log.length} events` : `${rows.length} of ${log.length} events`}</p>
  </div>`;
}

/** The data on one line; its number stands beside it already. */
const brief = ({ seq, text }) =>
  text.slice(0, 240).replace(`,"sequence_number":${seq}}`, "}").replace(`{"sequence_number":${seq}}`, "{}");

const pretty = (text) => JSON.stringify(JSON.parse(text), null, 2);

/** The log of a turn; one that is known from the conversation alone is replayed. */
function useLog(session, turn) {
  useObservables(turn);
  const [, again] = useState(0);
  const isTextOnly = turn && !turn.log.length && !turn.isRunning;
  useEffect(() => {
    if (!turn) return undefined;
    const frame = { id: 0 };
    // Deltas change a block, not the turn; once a frame is often enough to look.
    const look = () => {
      if (turn.isRunning) again((n) => n + 1);
      frame.id = setTimeout(() => requestAnimationFrame(look), 200);
    };
    look();
    return () => clearTimeout(frame.id);
  }, [turn]);
  useEffect(() => {
    if (!isTextOnly) return undefined;
    const controller = new AbortController();
    replay(session, turn, controller.signal)
      .then(() => again((n) => n + 1))
      .catch(() => {});
    return () => controller.abort();
  }, [turn, isTextOnly]);
  return turn?.log ?? [];
}

async function replay(session, turn, signal) {
  const answer = await session.api.fetch("GET", sessionPath(session.id, `/responses/${turn.id}/events`), { signal });
  const log = [];
  for await (const events of eventsOf(answer.body, signal)) {
    log.push(...events.map(({ seq, type, text }) => ({ seq, at: null, type, text })));
  }
  turn.log = log;
}

/** Rows of one height, of which only those in sight are made. */
function Rows({ rows, start, opened, onOpen }) {
  const ref = useRef();
  const [top, setTop] = useState(0);
  const isAtEnd = useRef(true);
  useEffect(() => {
    if (isAtEnd.current) ref.current.scrollTop = ref.current.scrollHeight;
  }, [rows.length]);
  const onScroll = ({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
    isAtEnd.current = scrollHeight - scrollTop - clientHeight <= ROW_PX * 2;
    setTop(scrollTop);
  };
  const first = Math.max(0, Math.floor(top / ROW_PX) - AROUND);
  const count = Math.min(ROWS_MAX, Math.ceil((ref.current?.clientHeight ?? 600) / ROW_PX) + 2 * AROUND);
  return html`<div class="event-rows" ref=${ref} onScroll=${onScroll} tabindex="0" role="group" aria-label="Events">
    <div class="event-space" style=${{ height: `${rows.length * ROW_PX}px` }}>
      ${rows.slice(first, first + count).map(
        (
          event,
          index,
        ) => html`<button type="button" key=${event.seq} class="event-row" aria-expanded=${event.seq === opened}
          style=${{ top: `${(first + index) * ROW_PX}px` }} onClick=${() => onOpen(event.seq)}>
          <span>${event.seq}</span><span>${event.at === null ? "–" : (event.at - start).toFixed(1)}</span><span>${event.type}</span><span>${brief(event)}</span>
        </button>`,
      )}
    </div>
  </div>`;
}
