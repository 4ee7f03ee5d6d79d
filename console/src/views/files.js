// The files of the workspace: look, put in, take out.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { setLines } from "../markdown/build.js";
import { highlight } from "../markdown/highlight.js";
import { download, listFiles, PREVIEW_BYTES_MAX, readText, remove, upload } from "../model/files.js";
import { bytes, full, when } from "../model/format.js";
import { useObservables } from "../model/observable.js";
import { CopyButton, IconButton } from "./common.js";
import { Icon } from "./icons.js";
import { Picture, pictureType } from "./picture.js";

const join = (folder, name) => (folder ? `${folder}/${name}` : name);
const parentOf = (path) => path.split("/").slice(0, -1).join("/");

/** `file`: a path that was asked for, shown instead of the list. */
export function Files({ session, file, onFile }) {
  useObservables(session);
  const [folder, setFolder] = useState(file ? parentOf(file) : "");
  const [entries, setEntries] = useState(null);
  const [problem, setProblem] = useState(null);
  const [uploads, setUploads] = useState([]);
  const picker = useRef();
  const looks = useRef(0);
  const look = async () => {
    const number = ++looks.current;
    let found = [];
    let trouble = null;
    try {
      if (session.id) found = await listFiles(session, folder);
    } catch (error) {
      trouble = error.message;
    }
    // Somebody may be in another folder by now.
    if (number !== looks.current) return;
    setEntries(found);
    setProblem(trouble);
  };
  useEffect(() => {
    look();
  }, [session.id, folder, session.filesVersion]);
  useEffect(() => {
    if (file) setFolder(parentOf(file));
  }, [file]);

  const put = async (list) => {
    for (const item of list) {
      const entry = { name: item.name, progress: 0 };
      setUploads((all) => [...all, entry]);
      const show = () => setUploads((all) => [...all]);
      try {
        await session.ensure();
        await upload(session, join(folder, item.name), item, (progress) => {
          entry.progress = progress;
          show();
        });
        setUploads((all) => all.filter((it) => it !== entry));
        session.filesChanged();
      } catch (error) {
        entry.error = error.message;
        show();
      }
    }
  };
  const isOver = useDrop(put);

  if (file)
    return html`<${Preview} key=${file} session=${session} path=${file} version=${session.filesVersion} onBack=${() => onFile(null)} />`;
  return html`<div ref=${isOver.ref} class=${`files${isOver.is ? " drop" : ""}`}>
    <div class="tools">
      <${Crumbs} path=${folder} onFolder=${setFolder} />
      <input type="file" multiple hidden ref=${picker} onChange=${(event) => {
        put([...event.target.files]);
        event.target.value = "";
      }} />
      <${IconButton} icon="upload" label="Upload files into this folder" onClick=${() => picker.current.click()} />
      <${IconButton} icon="refresh" label="Look again" onClick=${() => look()} />
    </div>
    ${problem ? html`<p class="error">${problem}</p>` : null}
    <ul class="uploads">${uploads.map(
      (it) => html`<li class=${it.error ? "failed" : ""}>
      <span>${it.name}</span> ${it.error ? html`<small>${it.error}</small>` : html`<progress value=${it.progress} aria-label=${`Upload of ${it.name}`}></progress>`}
      ${it.error ? html`<${IconButton} icon="close" label="Dismiss" onClick=${() => setUploads(uploads.filter((other) => other !== it))} />` : null}
    </li>`,
    )}</ul>
    <ul class="entries">
      ${entries?.map((entry) => html`<${Entry} key=${entry.name} entry=${entry} onOpen=${() => (entry.type === "directory" ? setFolder(join(folder, entry.name)) : onFile(join(folder, entry.name)))} />`)}
    </ul>
    ${entries?.length === 0 && !problem ? html`<p class="place">No files here. Drop some, and the agent can read them.</p>` : null}
  </div>`;
}

function Crumbs({ path, onFolder }) {
  const parts = path ? path.split("/") : [];
  return html`<nav class="crumbs" aria-label="Folder">
    <button type="button" class="link" onClick=${() => onFolder("")}>workspace</button>
    ${parts.map((part, index) => html`<span>/</span><button type="button" class="link" onClick=${() => onFolder(parts.slice(0, index + 1).join("/"))}>${part}</button>`)}
  </nav>`;
}

function Entry({ entry, onOpen }) {
  const isFolder = entry.type === "directory";
  return html`<li><button type="button" onClick=${onOpen}>
    <${Icon} name=${isFolder ? "folder" : "file"} />
    <span class="name">${entry.name}${isFolder ? "/" : ""}</span>
    <small>${isFolder ? "" : bytes(entry.size)}</small>
    <small title=${full(entry.modified)}>${when(entry.modified)}</small>
  </button></li>`;
}

/** Whether files are held over the element `ref`, which takes them. */
function useDrop(onFiles) {
  const ref = useRef();
  const [is, set] = useState(false);
  const taker = useRef();
  taker.current = onFiles;
  // Before the list is on the screen: a file that no one takes would replace the page.
  useLayoutEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    return takeDrops(element, set, (files) => taker.current(files));
  });
  return { ref, is };
}

/** Have an element take dropped files; the answer ends that. */
export function takeDrops(element, onOver, onFiles) {
  const listeners = {
    dragover(event) {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      event.stopPropagation();
      onOver(true);
    },
    dragleave(event) {
      if (!element.contains(event.relatedTarget)) onOver(false);
    },
    drop(event) {
      if (!event.dataTransfer.files.length) return;
      event.preventDefault();
      event.stopPropagation();
      onOver(false);
      onFiles([...event.dataTransfer.files]);
    },
  };
  for (const [type, listener] of Object.entries(listeners)) element.addEventListener(type, listener);
  return () => {
    for (const [type, listener] of Object.entries(listeners)) element.removeEventListener(type, listener);
  };
}

/** A file as a picture or as text. HTML and SVG are text too: what a file says never acts. */
function Preview({ session, path, version, onBack }) {
  const [entry, setEntry] = useState(null);
  const [text, setText] = useState(null);
  const [problem, setProblem] = useState(null);
  const [isSure, setSure] = useState(false);
  const isPicture = pictureType(path) !== null;
  const name = path.split("/").pop();
  useEffect(() => {
    const show = async () => {
      const entries = await listFiles(session, parentOf(path));
      const found = entries.find((it) => it.name === name);
      if (!found) throw new Error("There is no such file any more.");
      setEntry(found);
      if (!isPicture) setText(await readText(session, path, found.size));
    };
    show().then(
      () => setProblem(null),
      (error) => setProblem(error.message),
    );
  }, [path, version]);
  const act = (action) => () => action().catch((error) => error.name !== "AbortError" && setProblem(error.message));
  const erase = async () => {
    if (!isSure) return setSure(true);
    await remove(session, path);
    session.filesChanged();
    return onBack();
  };
  return html`<div class="preview">
    <div class="tools">
      <${IconButton} icon="back" label="Back to the list" onClick=${onBack} />
      <strong class="name" title=${path}>${name}</strong>
      <${IconButton} icon="down" label="Download" onClick=${act(() => download(session, path, entry ?? {}))} />
      <button type="button" class=${isSure ? "danger" : "icon-button"} aria-label="Delete this file" onClick=${act(erase)} onBlur=${() => setSure(false)}>
        ${isSure ? "Delete?" : html`<${Icon} name="trash" />`}
      </button>
    </div>
    ${entry ? html`<p class="facts">${bytes(entry.size)} · ${full(entry.modified)}${text !== null ? html` <${CopyButton} text=${() => text} />` : null}</p>` : null}
    ${problem ? html`<p class="error">${problem}</p>` : null}
    ${isPicture && entry ? html`<${Picture} session=${session} path=${path} key=${version} />` : null}
    ${text !== null ? html`<${Source} text=${text} name=${name} />` : null}
    ${text !== null && entry.size > PREVIEW_BYTES_MAX ? html`<p class="place">The first ${bytes(PREVIEW_BYTES_MAX)} are shown.</p>` : null}
    ${entry && !isPicture && text === null && !problem ? html`<p class="place">This file is no text. Download it to see it.</p>` : null}
  </div>`;
}

function Source({ text, name }) {
  const ref = useRef();
  useEffect(() => {
    setLines(ref.current, text);
    highlight(ref.current, /\.([^.]+)$/.exec(name)?.[1] ?? name);
  }, [text, name]);
  return html`<pre tabindex="0"><code ref=${ref}></code></pre>`;
}
