// Pictures of the workspace: fetched with the key, shown as blobs. Nothing is loaded from anywhere else.
import { html, useEffect, useRef } from "../html.js";
import { filePath } from "../model/api.js";

const TYPES = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp",
  avif: "image/avif",
  bmp: "image/bmp",
};
const BYTES_MAX = 30 * 1024 * 1024;

/** The media type of a picture that can be shown, by its name. SVG is none of them: it is text that can hold scripts. */
export const pictureType = (path) => TYPES[/\.([a-z]+)$/i.exec(path)?.[1].toLowerCase()] ?? null;

/** An element that shows a picture when it has come, and else says what it would be. */
export function pictureElement(session, path, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "picture link";
  button.dataset.path = path;
  button.textContent = text || path;
  if (pictureType(path)) load(session, path, text, button);
  return button;
}

async function load(session, path, text, button) {
  try {
    const answer = await session.api.fetch("GET", filePath(session.id, path));
    if (Number(answer.headers.get("Content-Length")) > BYTES_MAX) return answer.body?.cancel();
    const image = new Image();
    image.alt = text || path;
    image.src = URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type: pictureType(path) }));
    await image.decode();
    // Its pixels are there: the blob may go.
    URL.revokeObjectURL(image.src);
    button.replaceChildren(image);
  } catch {
    // Not there, or no picture: its name stands.
  }
}

export function Picture({ session, path, text }) {
  const ref = useRef();
  useEffect(() => ref.current.replaceChildren(pictureElement(session, path, text)), [path]);
  return html`<div ref=${ref}></div>`;
}
