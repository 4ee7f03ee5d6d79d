// Small parts that many views use.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { Icon } from "./icons.js";

export function IconButton({ icon, label, text, ...rest }) {
  return html`<button type="button" class="icon-button" aria-label=${label} title=${label} ...${rest}>
    <${Icon} name=${icon} />${text ? html`<span>${text}</span>` : null}
  </button>`;
}

/** A modal dialog; it closes by Esc, its button, or a click beside it. `full`: it fills the screen. */
export function Dialog({ title, onClose, full, children, actions }) {
  const ref = useRef();
  // Before the effects of what is in it, which may want to scroll.
  useLayoutEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  const onCancel = (event) => {
    event.preventDefault();
    onClose();
  };
  const onClick = (event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} class=${full ? "full" : "modal"} aria-label=${title} onCancel=${onCancel} onClick=${onClick}>
    <div class="dialog-box">
      ${full ? null : html`<header><h2>${title}</h2><${IconButton} icon="close" label="Close" onClick=${onClose} /></header>`}
      ${children}
      ${actions ? html`<footer>${actions}</footer>` : null}
    </div>
  </dialog>`;
}

/** An error: the server's sentence, the request's id for those who look into its log, and a way to go on. */
export function Problem({ problem, onDismiss }) {
  if (!problem) return null;
  const { text, requestId, again } = problem;
  return html`<div class="problem">
    <p>${text}${requestId ? html` <small>Request ${requestId}</small>` : null}</p>
    ${again ? html`<button type="button" onClick=${again}>Try again</button>` : null}
    ${onDismiss ? html`<${IconButton} icon="close" label="Dismiss" onClick=${onDismiss} />` : null}
  </div>`;
}

/** Whether a media query holds, as it changes. */
export function useMedia(query) {
  const [matches, set] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const look = () => set(list.matches);
    list.addEventListener("change", look);
    look();
    return () => list.removeEventListener("change", look);
  }, [query]);
  return matches;
}

/** Render again each second while something is timed. */
export function useSeconds(isTimed) {
  const [, count] = useState(0);
  useEffect(() => {
    if (!isTimed) return undefined;
    let timer;
    // All at the same moments, so that no two places show different times.
    const tick = () => {
      timer = setTimeout(tick, 1000 - (performance.now() % 1000));
      count((n) => n + 1);
    };
    tick();
    return () => clearTimeout(timer);
  }, [isTimed]);
}

/** Copy a text: over plain HTTP there is no clipboard, but there is an old command. Whether it worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    const before = document.activeElement;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    before?.focus?.();
    return isCopied;
  }
}

/** Copy for a button, which says how it went. */
export async function copyBy(button, text) {
  const label = button.textContent;
  button.textContent = (await copyText(text)) ? "Copied" : "Not copied";
  setTimeout(() => {
    button.textContent = label;
  }, 1_500);
}

export function CopyButton({ text, label = "Copy" }) {
  return html`<button type="button" class="copy" onClick=${(event) => copyBy(event.currentTarget, text())}>${label}</button>`;
}
