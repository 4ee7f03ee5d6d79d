// A session without messages: what it could be asked, and what it is made with.
import { html, useState } from "../html.js";

const SUGGESTIONS = ["List my files", "Plot sin x", "What can you do?"];

export function Welcome({ session, models, onSend }) {
  return html`<div class="welcome">
    <h2>What should the agent do?</h2>
    <div class="suggestions">
      ${SUGGESTIONS.map((text) => html`<button type="button" onClick=${() => onSend(text)}>${text}</button>`)}
    </div>
    ${session.id ? null : html`<${Wishes} session=${session} models=${models} />`}
  </div>`;
}

/** What can be said only before the first message. */
function Wishes({ session, models }) {
  const [wishes, setWishes] = useState(session.wishes);
  const wish = (change) => {
    const next = { ...wishes, ...change };
    for (const key of Object.keys(next)) if (next[key] === undefined) delete next[key];
    session.wishes = next;
    setWishes(next);
  };
  const text = (value) => value.trim() || undefined;
  const names = (value) => {
    const found = value.split(/[\s,]+/).filter(Boolean);
    return found.length ? found : undefined;
  };
  return html`<details class="wishes">
    <summary>Options of this session</summary>
    <label>Model
      <select onChange=${(event) => wish({ model: text(event.target.value) })}>
        <option value="">the server's own${models.find((it) => it.default) ? ` (${models.find((it) => it.default).id})` : ""}</option>
        ${models.filter((it) => !it.default).map((it) => html`<option value=${it.id}>${it.id}</option>`)}
      </select></label>
    <label>Ask me before it uses
      <input type="text" placeholder="bash, write_file" spellcheck="false" autocapitalize="off"
        onInput=${(event) => wish({ approvals: names(event.target.value) })} /></label>
    <label>Instructions
      <textarea rows="3" placeholder="What the agent is told before the conversation"
        onInput=${(event) => wish({ instructions: text(event.target.value) })}></textarea></label>
    <label class="check"><input type="checkbox" onChange=${(event) => wish({ workspace: event.target.checked ? "private" : undefined })} />
      Files of its own, removed with the session</label>
  </details>`;
}
