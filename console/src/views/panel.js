// Files and events, beside the conversation where there is room, else over it.
import { html } from "../html.js";
import { Dialog, IconButton, useMedia } from "./common.js";
import { Events } from "./events.js";
import { Files } from "./files.js";

const TABS = { files: "Files", events: "Events" };

/** `view`: `{tab, file, turnId}`, or null when the panel is closed. */
export function Panel({ session, view, onView }) {
  const isWide = useMedia("(min-width: 1100px)");
  if (!view) return null;
  const close = () => onView(null);
  const content = html`<div class="panel-box">
    <div class="tabs">
      <div role="tablist" aria-label="Panel">
        ${Object.entries(TABS).map(
          ([
            tab,
            label,
          ]) => html`<button type="button" role="tab" aria-selected=${view.tab === tab} aria-controls="panel-content"
          onClick=${() => onView({ ...view, tab })}>${label}</button>`,
        )}
      </div>
      <${IconButton} icon="close" label="Close the panel" onClick=${close} />
    </div>
    <div class="panel-content" id="panel-content" role="tabpanel" aria-label=${TABS[view.tab]}>
      ${
        view.tab === "files"
          ? html`<${Files} session=${session} file=${view.file} onFile=${(file) => onView({ ...view, file })} />`
          : html`<${Events} session=${session} turnId=${view.turnId} onTurn=${(turnId) => onView({ ...view, turnId })} />`
      }
    </div>
  </div>`;
  if (isWide) return html`<aside class="panel" aria-label="Files and events">${content}</aside>`;
  return html`<${Dialog} title=${TABS[view.tab]} full=${true} onClose=${close}>${content}<//>`;
}
