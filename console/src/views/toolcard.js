// A call of a tool, as a card: always an icon and a word for its state, its input, its result, and what it asks for.
import { html, useEffect, useState } from "../html.js";
import { bytes, coarse, duration, isRounded, visible, when } from "../model/format.js";
import { useObservables } from "../model/observable.js";
import { CopyButton, useSeconds } from "./common.js";
import { Icon } from "./icons.js";

const WORDS = {
  writing: "writing input",
  running: "running",
  asks: "waiting for you",
  waits: "waiting for your program",
  done: "done",
  failed: "failed",
  refused: "refused",
  "not run": "not run",
  stopped: "stopped",
};

/** Of a longer result the head and the tail are shown: the whole would stop the page. */
const SHOWN_CHARS_MAX = 32 * 1024;
/** Buttons that appear under somebody's finger must not be pressed by it. */
const DEAD_MS = 500;

export function ToolCard({ call, session }) {
  useObservables(call);
  const [isOpen, setOpen] = useState(null);
  const { state } = call;
  const isAsked = state === "asks" || state === "waits";
  const isShown = isOpen ?? isAsked;
  useSeconds(state === "running");
  const onToggle = (event) => event.currentTarget.open !== isShown && setOpen(event.currentTarget.open);
  return html`<details class=${`card card-${state.replace(" ", "-")}`} open=${isShown} onToggle=${onToggle} data-call=${call.id}>
    <summary>
      <${Icon} name=${state} />
      <strong>${call.name}</strong>
      <span class="brief">${visible(briefOf(call))}</span>
      <span class="state">${state === "done" ? html`<span class="unseen">done</span>` : WORDS[state]}${timeOf(call, state)}</span>
    </summary>
    ${
      isShown
        ? html`<div class="card-body">
      <${Input} call=${call} />
      ${call.result ? html`<${Result} result=${call.result} />` : null}
    </div>`
        : null
    }
  </details>
  ${state === "failed" && !isShown ? html`<p class="first-line">${firstLine(call.result.content)}</p>` : null}
  ${isAsked ? html`<${Answer} call=${call} session=${session} />` : null}`;
}

/** One line of what the call is about. */
function briefOf({ name, input, text }) {
  if (input === null) return text.slice(0, 200);
  if (name === "update_plan" && Array.isArray(input.steps)) return briefOfPlan(input.steps);
  const values = Object.values(input);
  const telling = input.command ?? input.path ?? input.url ?? input.query ?? input.pattern;
  if (typeof telling === "string") return telling.slice(0, 200);
  return values.length ? JSON.stringify(input).slice(0, 200) : "";
}

function briefOfPlan(steps) {
  const done = steps.filter((it) => it?.state === "done").length;
  const current = steps.find((it) => it?.state === "in_progress")?.step;
  return `${done} of ${steps.length} done${current ? `, now: ${current}` : ""}`;
}

function timeOf(call, state) {
  if (call.executingAt === null) return null;
  if (state === "running") return `, ${coarse(performance.now() / 1000 - call.executingAt)}`;
  const isTimed = call.endedAt !== null && !call.request;
  return isTimed ? ` ${duration(call.endedAt - call.executingAt)}` : null;
}

const firstLine = (text) => text.trim().split("\n", 1)[0].slice(0, 300);

function Input({ call }) {
  const { text } = call;
  // What is asked for is what would run.
  const input = call.request?.input ?? call.input;
  if (input === null) return html`<${Labelled} label="Input"><pre tabindex="0">${visible(text)}</pre><//>`;
  const { command, ...others } = input;
  if (typeof command === "string") {
    const more = Object.keys(others).length
      ? html`<pre tabindex="0">${visible(JSON.stringify(others, null, 2))}</pre>`
      : null;
    return html`<${Labelled} label="Command" copy=${() => command}><pre tabindex="0">${visible(command)}</pre>${more}<//>`;
  }
  const path = typeof input.path === "string" ? input.path : null;
  const shown = JSON.stringify(input, null, 2);
  return html`<${Labelled} label="Input" copy=${() => shown} path=${path}><pre tabindex="0">${visible(shown)}</pre><//>`;
}

function Result({ result: { content, is_error } }) {
  const [isWhole, setWhole] = useState(false);
  const label = is_error ? "Error" : "Result";
  const shown = isWhole || content.length <= SHOWN_CHARS_MAX ? content : null;
  return html`<${Labelled} label=${label} copy=${() => content}>
    ${
      shown !== null
        ? html`<pre tabindex="0" class=${is_error ? "error" : ""}>${shown || "(empty)"}</pre>`
        : html`<pre tabindex="0">${content.slice(0, SHOWN_CHARS_MAX / 2)}</pre>
            <button type="button" class="show-all" onClick=${() => setWhole(true)}>Show all (${bytes(content.length)})</button>
            <pre tabindex="0">${content.slice(-SHOWN_CHARS_MAX / 2)}</pre>`
    }
  <//>`;
}

function Labelled({ label, copy, path, children }) {
  return html`<div class="labelled">
    <div class="label">
      <span>${label}</span>
      ${path ? html`<button type="button" class="link" data-path=${path}>Open file</button>` : null}
      ${copy ? html`<${CopyButton} text=${copy} />` : null}
    </div>
    ${children}
  </div>`;
}

/** The buttons of a call that waits: they work once, and not in the first half second. */
function Answer({ call, session }) {
  const [isDead, setDead] = useState(true);
  const [mode, setMode] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    const timer = setTimeout(() => setDead(false), DEAD_MS);
    return () => clearTimeout(timer);
  }, []);
  const send = async (result) => {
    setDead(true);
    setProblem(null);
    try {
      await session.answer(call.id, result);
    } catch (error) {
      setProblem(error.message);
      setDead(false);
    }
  };
  const form = { send, isDead, onCancel: () => setMode(null), call };
  return html`<div class="answer" role="group" aria-label=${`Answer to ${call.name}`}>
    ${mode === "refuse" ? html`<${Refuse} ...${form} />` : null}
    ${mode === "edit" ? html`<${Edit} ...${form} />` : null}
    ${mode === "hand" ? html`<${ByHand} ...${form} />` : null}
    ${mode === null ? html`<${Choices} ...${form} onMode=${setMode} />` : null}
    ${isRounded(call.request.input) ? html`<p class="error">A number in the input is too long for a browser: its last digits are others.</p>` : null}
    <small>Given up at ${when(call.request.deadline)} unless it is answered.</small>
    ${problem ? html`<p class="error" role="alert">${problem}</p>` : null}
  </div>`;
}

function Choices({ call, send, isDead, onMode }) {
  if (call.request.kind !== "approval") {
    return html`<button type="button" disabled=${isDead} onClick=${() => onMode("hand")}>Answer by hand</button>`;
  }
  return html`<button type="button" class="primary" disabled=${isDead} onClick=${() => send({ approve: true })}>Allow once</button>
    <button type="button" disabled=${isDead} onClick=${() => onMode("refuse")}>Refuse…</button>
    <button type="button" disabled=${isDead} onClick=${() => onMode("edit")}>Change input…</button>`;
}

function Refuse({ send, isDead, onCancel }) {
  const [text, set] = useState("");
  return html`<label>Why not? The agent reads this.
      <textarea rows="2" value=${text} onInput=${(event) => set(event.target.value)}></textarea></label>
    <button type="button" class="primary" disabled=${isDead} onClick=${() => send({ approve: false, ...(text.trim() ? { message: text } : {}) })}>
      Refuse
    </button>
    <button type="button" onClick=${onCancel}>Back</button>`;
}

function Edit({ call, send, isDead, onCancel }) {
  const [text, set] = useState(() => JSON.stringify(call.request.input, null, 2));
  const input = parsed(text);
  const isObject = typeof input === "object" && input !== null && !Array.isArray(input);
  return html`<label>Input
      <textarea rows="6" class="code-input" spellcheck="false" value=${text} onInput=${(event) => set(event.target.value)}></textarea></label>
    ${isObject ? null : html`<p class="error">This is no JSON object.</p>`}
    <button type="button" class="primary" disabled=${isDead || !isObject} onClick=${() => send({ approve: true, input })}>
      Allow with this input
    </button>
    <button type="button" onClick=${onCancel}>Back</button>`;
}

function ByHand({ send, isDead, onCancel }) {
  const [text, set] = useState("");
  const [isError, setError] = useState(false);
  return html`<label>Result: text or JSON
      <textarea rows="3" class="code-input" value=${text} onInput=${(event) => set(event.target.value)}></textarea></label>
    <label class="check"><input type="checkbox" checked=${isError} onChange=${(event) => setError(event.target.checked)} /> It failed</label>
    <button type="button" class="primary" disabled=${isDead} onClick=${() => send({ content: parsed(text) ?? text, is_error: isError })}>
      Send result
    </button>
    <button type="button" onClick=${onCancel}>Back</button>`;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
