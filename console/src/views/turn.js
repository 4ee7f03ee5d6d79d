// One exchange: what a person said, and the turn that answers it.
import { Component, html, useLayoutEffect, useRef, useState } from "../html.js";
import { GrowingText } from "../markdown/growing.js";
import { coarse, count } from "../model/format.js";
import { useObservables } from "../model/observable.js";
import { CopyButton, useSeconds } from "./common.js";
import { Icon } from "./icons.js";
import { Picture, pictureElement } from "./picture.js";
import { ToolCard } from "./toolcard.js";

/** Rendered again by itself when its turn changes, and not with every change around it. */
export class Exchange extends Component {
  shouldComponentUpdate(next) {
    return next.turn !== this.props.turn || next.user !== this.props.user;
  }

  render({ user, turn, session }) {
    return html`<${Said} content=${user} session=${session} />
      <${Answered} turn=${turn} user=${user} session=${session} key=${turn.id} />`;
  }
}

function Said({ content, session }) {
  return html`<article class="said">
    <h3 class="unseen">You</h3>
    ${content.map((part) => {
      if (part.type === "text") return html`<p>${part.text}</p>`;
      if (part.type === "image" && part.path) return html`<${Picture} session=${session} path=${part.path} />`;
      return html`<p class="attached"><${Icon} name="file" />
        ${part.path ? html`<button type="button" class="link" data-path=${part.path}>${part.path}</button>` : part.media_type}
      </p>`;
    })}
  </article>`;
}

function Answered({ turn, user, session }) {
  useObservables(turn);
  const text = () =>
    turn.blocks
      .filter(({ type }) => type === "text")
      .map((block) => block.text)
      .join("\n\n");
  return html`<article class="answered" data-turn=${turn.id} aria-busy=${turn.isRunning}>
    <h3 class="unseen">Agent</h3>
    ${turn.blocks.map((block) => html`<${BlockView} key=${block.key} block=${block} session=${session} />`)}
    ${turn.status === "error" ? html`<${Failed} turn=${turn} user=${user} session=${session} />` : null}
    ${turn.status === "cancelled" ? html`<div class="ending">Stopped.</div>` : null}
    ${turn.isRunning ? null : html`<${Footer} turn=${turn} text=${text} />`}
  </article>`;
}

/** The sentence that ended a turn. The last message can be sent once more, when all of it is at hand. */
function Failed({ turn, user, session }) {
  useObservables(session);
  const canRepeat = turn === session.turn && user.every((part) => part.type === "text" || part.path);
  const parts = user.map(({ type, text, path }) => (type === "text" ? { type, text } : { type, path }));
  return html`<div class="problem">
    <p>${turn.error ?? "The turn failed."}</p>
    ${canRepeat ? html`<button type="button" disabled=${session.isBusy} onClick=${() => session.send(parts)}>Try again</button>` : null}
  </div>`;
}

function Footer({ turn, text }) {
  const { input_tokens: input, output_tokens: output } = turn.usage;
  return html`<footer>
    ${text() ? html`<${CopyButton} text=${text} label="Copy answer" />` : null}
    <span title="Tokens that the model read and wrote in this turn">${count(input)} in · ${count(output)} out</span>
    <button type="button" class="link" data-events=${turn.id}>Events</button>
  </footer>`;
}

function BlockView({ block, session }) {
  switch (block.type) {
    case "text":
      return html`<${Text} block=${block} session=${session} />`;
    case "thinking":
      return html`<${Thinking} block=${block} session=${session} />`;
    case "tool":
      return html`<${ToolCard} call=${block} session=${session} />`;
    case "note":
      return html`<p class="note">${block.text}</p>`;
    default:
      return null;
  }
}

/** Preact makes the element; what is in it is the stream's. */
function Text({ block, session }) {
  const ref = useRef();
  useLayoutEffect(() => {
    const image = (path, text) => pictureElement(session, path, text);
    const growing = new GrowingText(ref.current, block, { image });
    return () => growing.close();
  }, [block]);
  return html`<div class="markdown" ref=${ref}></div>`;
}

function Thinking({ block, session }) {
  useObservables(block);
  const [isOpen, setOpen] = useState(false);
  useSeconds(block.isOpen);
  const { startedAt, endedAt } = block;
  const seconds = startedAt === null ? null : (endedAt ?? performance.now() / 1000) - startedAt;
  const time = seconds === null ? "" : ` for ${coarse(Math.max(1, seconds))}`;
  return html`<details class="thinking" open=${isOpen} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>${block.isOpen ? `Thinking${time}…` : `Thought${time}`}</summary>
    ${isOpen ? html`<${Text} block=${block} session=${session} />` : null}
  </details>`;
}
