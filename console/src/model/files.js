// Files of a session's workspace: upload with progress, download, and what a preview may show.
import { ApiError, filePath, sessionPath, Unreachable } from "./api.js";

/** Beyond it a download goes straight to the disk, where the browser can do that. */
const IN_MEMORY_BYTES_MAX = 200 * 1000 * 1000;
export const PREVIEW_BYTES_MAX = 256 * 1024;

export const listFiles = (session, path) =>
  session.api.all(sessionPath(session.id, `/files${path ? `?path=${encodeURIComponent(path)}` : ""}`));

/**
 * Upload a file. By XMLHttpRequest, since fetch does not tell how far it is. `onProgress` takes 0 to 1. With `isNew` it is
 * refused (412) when there is one of that name.
 */
export function upload(session, path, file, onProgress, { isNew = false, signal } = {}) {
  const { api, id } = session;
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", new URL(filePath(id, path), document.baseURI));
    request.setRequestHeader("Authorization", api.authorization);
    if (isNew) request.setRequestHeader("If-None-Match", "*");
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onerror = () => reject(new Unreachable());
    request.onabort = () => reject(new DOMException("", "AbortError"));
    request.onload = () => {
      if (request.status < 300) return resolve();
      const error = errorOf(request);
      if (error.status === 401) api.onUnauthorized(error);
      return reject(error);
    };
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function errorOf(request) {
  const headers = { get: (name) => request.getResponseHeader(name) };
  let body = {};
  try {
    body = JSON.parse(request.responseText);
  } catch {
    // A proxy's own page.
  }
  return new ApiError(
    request.status,
    body.error ?? "error",
    body.message ?? `The server answered with status ${request.status}.`,
    headers,
  );
}

/** Upload under a name that is free: `plot.png`, `plot-2.png`, … The answer is its path. */
export async function uploadFree(session, name, file, onProgress) {
  const [, stem, ending] = /^(.+?)(\.[^.]+)?$/s.exec(name.replaceAll("/", "_"));
  for (let number = 1; ; number++) {
    const path = number === 1 ? stem + (ending ?? "") : `${stem}-${number}${ending ?? ""}`;
    try {
      await upload(session, path, file, onProgress, { isNew: true });
      return path;
    } catch (error) {
      if (error.status !== 412 || number >= 100) throw error;
    }
  }
}

/** Save a file, or a folder as a zip, on this machine. */
export async function download(session, path, { size = 0, isFolder = false } = {}) {
  const name = (path.split("/").pop() || "workspace") + (isFolder ? ".zip" : "");
  const address = path ? filePath(session.id, path) : sessionPath(session.id, "/files");
  const target = size > IN_MEMORY_BYTES_MAX ? await window.showSaveFilePicker?.({ suggestedName: name }) : null;
  const answer = await session.api.fetch("GET", address + (isFolder ? "?format=zip" : ""));
  if (target) {
    await answer.body.pipeTo(await target.createWritable());
    return;
  }
  const url = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** The beginning of a file as text; null of what is none. */
export async function readText(session, path, size) {
  if (size === 0) return "";
  const headers = { Range: `bytes=0-${PREVIEW_BYTES_MAX - 1}` };
  const answer = await session.api.fetch("GET", filePath(session.id, path), { headers });
  const data = new Uint8Array(await answer.arrayBuffer());
  return data.includes(0) ? null : new TextDecoder().decode(data);
}

export const remove = (session, path) => session.api.fetch("DELETE", filePath(session.id, path));
