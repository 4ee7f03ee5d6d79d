// The list of sessions, with what each of them is at.
import { html, useState } from "../html.js";
import { coarse, when } from "../model/format.js";
import { useObservables } from "../model/observable.js";
import { nameOf } from "../model/sessions.js";
import { useSeconds } from "./common.js";
import { Icon } from "./icons.js";

export function Sidebar({ sessions, current, onOpen, onSignOut, version }) {
  useObservables(sessions);
  const [filter, setFilter] = useState("");
  const words = filter.trim().toLowerCase();
  const shown = sessions.records.filter((record) => !words || nameOf(record).toLowerCase().includes(words));
  useSeconds(shown.some((record) => record.busy));
  return html`<nav class="sidebar" aria-label="Sessions">
    <button type="button" class="new-session" onClick=${() => onOpen(null)}><${Icon} name="new" /> New session</button>
    <input type="search" class="filter" id="session-filter" aria-label="Find a session" placeholder="Find a session" value=${filter}
      onInput=${(event) => setFilter(event.target.value)} />
    <ul>
      ${shown.map((record) => html`<${Item} key=${record.id} record=${record} now=${sessions.api.now()} isCurrent=${record.id === current} onOpen=${onOpen} />`)}
    </ul>
    ${sessions.isLoaded && !shown.length ? html`<p class="place">${words ? "None of that name." : "No sessions yet."}</p>` : null}
    ${sessions.hasMore ? html`<button type="button" class="earlier" onClick=${() => sessions.more()}>Show more</button>` : null}
    <footer>
      ${sessions.isLost ? html`<p class="lost" role="status">The server can't be reached.</p>` : null}
      <span>turnwire ${version}</span>
      <a href="docs" target="_blank" rel="noopener">API</a>
      <button type="button" class="link" onClick=${onSignOut}>Sign out</button>
    </footer>
  </nav>`;
}

function Item({ record, now, isCurrent, onOpen }) {
  const needs = record.pending_calls > 0;
  const onClick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    onOpen(record.id);
  };
  const { status } = record.metadata;
  const working = `working ${coarse(now - record.last_activity)}${typeof status === "string" && status ? ` · ${status}` : ""}`;
  return html`<li>
    <a href=${`?s=${record.id}`} aria-current=${isCurrent ? "page" : undefined} onClick=${onClick}>
      <span class="name">${nameOf(record)}</span>
      <span class=${`doing ${needs ? "needs" : record.busy ? "works" : ""}`}>
        ${needs ? html`<${Icon} name="asks" />` : record.busy ? html`<span class="pulse"></span>` : null}
        <span>${needs ? "needs you" : record.busy ? working : when(record.last_activity)}</span>
      </span>
    </a>
  </li>`;
}
