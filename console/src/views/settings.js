// What can be changed of a session: its name, its model, its instructions, its end.
import { html, useState } from "../html.js";
import { full } from "../model/format.js";
import { nameOf } from "../model/sessions.js";
import { CopyButton, Dialog } from "./common.js";

export function SessionSettings({ session, models, onClose, onDelete }) {
  const { record } = session;
  const [title, setTitle] = useState(nameOf(record));
  const [model, setModel] = useState(record.model ?? "");
  const [problem, setProblem] = useState(null);
  const [isSure, setSure] = useState(false);
  const act = (action) => async (event) => {
    event?.preventDefault();
    try {
      await action();
      onClose();
    } catch (error) {
      setProblem(error.message);
    }
  };
  const save = () =>
    session.change({ metadata: { title: title.trim() }, ...(model && model !== record.model ? { model } : {}) });
  const actions = html`
    <button type="button" class="danger" onClick=${isSure ? act(onDelete) : () => setSure(true)}>
      ${isSure ? "Delete it, and its conversation?" : "Delete session"}
    </button>
    <span class="space"></span>
    <button type="submit" form="session-settings" class="primary">Save</button>`;
  return html`<${Dialog} title="Session" onClose=${onClose} actions=${actions}>
    <form id="session-settings" onSubmit=${act(save)}>
      <label>Name <input type="text" value=${title} maxlength="200" onInput=${(event) => setTitle(event.target.value)} /></label>
      <label>Model
        <select value=${model} onChange=${(event) => setModel(event.target.value)}>
          ${record.model ? null : html`<option value="">the server's own</option>`}
          ${optionsOf(models, record.model).map((id) => html`<option value=${id}>${id}</option>`)}
        </select></label>
      <p class="facts">${record.id} <${CopyButton} text=${() => record.id} /></p>
      <p class="facts">Made ${full(record.created_at)}; ${record.persistent ? `kept until ${full(record.created_at + record.ttl)}` : "gone 5 minutes after its last turn"}.</p>
      ${problem ? html`<p class="error" role="alert">${problem}</p>` : null}
    </form>
  <//>`;
}

const optionsOf = (models, own) => [...new Set([...(own ? [own] : []), ...models.map(({ id }) => id)])];
