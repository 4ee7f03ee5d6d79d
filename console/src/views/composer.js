// The box to write in. What was typed is kept until the server has it.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { uploadFree } from "../model/files.js";
import { draftOf, keepDraft } from "../model/storage.js";
import { announcer } from "./announce.js";
import { IconButton, useMedia } from "./common.js";
import { Icon } from "./icons.js";
import { pictureType } from "./picture.js";

const DUE = "Your message is sent when its files are there.";

export function Composer({ session, onSend, models }) {
  const box = useRef();
  const picker = useRef();
  const [text, setText] = useState(() => draftOf(session.id));
  const [files, setFiles] = useState([]);
  // It was sent while files were still on their way: it goes when they are there.
  const [isDue, setDue] = useState(false);
  const isTouch = useMedia("(pointer: coarse)");
  // A session that is made for its files takes the draft of the new one along.
  const home = useRef(session.id);
  const keep = (value) => {
    if (home.current !== session.id) keepDraft(home.current, "");
    home.current = session.id;
    keepDraft(session.id, value);
  };
  const change = (value) => {
    // Who writes on is not done yet.
    setDue(false);
    setText(value);
    keep(value);
  };
  useLayoutEffect(() => {
    // As high as its text, up to a third of the screen (CSS).
    box.current.style.height = "auto";
    box.current.style.height = `${box.current.scrollHeight + 2}px`;
  }, [text]);

  const attach = async (list) => {
    for (const file of list) {
      const entry = { name: file.name || "pasted.png", progress: 0 };
      setFiles((all) => [...all, entry]);
      const show = (changes) => {
        Object.assign(entry, changes);
        setFiles((all) => [...all]);
      };
      try {
        await session.ensure();
        show({ path: await uploadFree(session, entry.name, file, (progress) => show({ progress })), progress: 1 });
        session.filesChanged();
      } catch (error) {
        show({ error: error.message });
      }
    }
  };
  const isUploading = files.some((file) => !file.path && !file.error);
  const canSend = !session.isBusy && (text.trim() !== "" || files.some((file) => !file.error));
  const send = async () => {
    if (!canSend) return;
    if (isUploading) {
      setDue(true);
      // Those that have failed before are left out, as ever.
      setFiles(files.filter((file) => !file.error));
      announcer.say(DUE);
      return;
    }
    if (await onSend(partsOf(text, files, models, session))) {
      // What was typed meanwhile belongs to the next message.
      const now = box.current?.value ?? "";
      const rest = now === text ? "" : now;
      keep(rest);
      setText(rest);
      setFiles([]);
    }
  };
  useEffect(() => {
    if (!isDue || isUploading) return;
    setDue(false);
    // Without one of its files it may say something else.
    if (!files.some((file) => file.error)) send();
  }, [isDue, isUploading]);
  // What is dropped on the conversation, and what is to be tried again.
  Object.assign(session, { onFiles: attach, resend: canSend ? send : null });
  const onKeyDown = (event) => {
    // An input method takes Enter for itself; some browsers say so by the key code alone.
    if (event.isComposing || event.keyCode === 229) return;
    const hasModifier = event.ctrlKey || event.metaKey;
    if (event.key === "Enter" && (hasModifier || (!event.shiftKey && !isTouch))) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text === "") {
      const last = session.entries.at(-1)?.user.find(({ type }) => type === "text")?.text;
      if (!last) return;
      event.preventDefault();
      change(last);
    }
  };
  const onPaste = (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    attach(event.clipboardData.files);
  };
  const { turn } = session;
  return html`<form class="composer" onSubmit=${(event) => event.preventDefault()}>
    ${files.length ? html`<ul class="chips">${files.map((file) => html`<${Chip} file=${file} onRemove=${() => setFiles(files.filter((it) => it !== file))} />`)}</ul>` : null}
    ${isDue ? html`<p class="due">${DUE}</p>` : null}
    <div class="box">
      <input type="file" multiple hidden ref=${picker} onChange=${(event) => {
        attach([...event.target.files]);
        event.target.value = "";
      }} />
      <${IconButton} icon="attach" label="Attach files" onClick=${() => picker.current.click()} />
      <textarea ref=${box} rows="1" aria-label="Message" placeholder="Message" value=${text} enterkeyhint=${isTouch ? "enter" : "send"}
        onInput=${(event) => change(event.target.value)} onKeyDown=${onKeyDown} onPaste=${onPaste}></textarea>
      ${
        turn?.isRunning
          ? html`<button type="button" class="stop" disabled=${turn.isCancelling} onClick=${() => session.stop()}><${Icon} name="stop" /><span>Stop</span></button>`
          : html`<button type="button" class="send primary" disabled=${!canSend || isDue} onClick=${send}><${Icon} name="send" /><span>Send</span></button>`
      }
    </div>
  </form>`;
}

function Chip({ file, onRemove }) {
  const state = file.error ?? (file.path ? "" : `${Math.round(file.progress * 100)} %`);
  return html`<li class=${file.error ? "failed" : ""}>
    <${Icon} name="file" /><span>${file.path ?? file.name}</span> <small>${state}</small>
    <${IconButton} icon="close" label=${`Leave out ${file.name}`} onClick=${onRemove} />
  </li>`;
}

/** The message with its files: a picture is shown to a model that can see; the others are named, as the agent reads files. */
function partsOf(text, files, models, session) {
  const there = files.filter((file) => file.path);
  if (!there.length) return text;
  const name = session.record?.model ?? session.wishes.model;
  const model = models.find((it) => (name ? it.id === name : it.default));
  const isSeen = (file) => model?.images && pictureType(file.path);
  const named = there.filter((file) => !isSeen(file)).map((file) => `- ${file.path}`);
  const words = [text, named.length ? `Files in the workspace:\n${named.join("\n")}` : ""]
    .filter((it) => it.trim())
    .join("\n\n");
  const seen = there.filter(isSeen).map((file) => ({ type: "image", path: file.path }));
  if (!seen.length) return words;
  return words ? [{ type: "text", text: words }, ...seen] : seen;
}
