// The page: the list, the conversation, the panel, and what holds them together.
import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../html.js";
import { Api } from "../model/api.js";
import { count } from "../model/format.js";
import { useObservables } from "../model/observable.js";
import { SessionModel } from "../model/session.js";
import { nameOf, Sessions } from "../model/sessions.js";
import { forgetDrafts, keepKey, takeKey } from "../model/storage.js";
import { Announcements, announcer } from "./announce.js";
import { Dialog, IconButton, useMedia } from "./common.js";
import { Conversation } from "./conversation.js";
import { takeDrops } from "./files.js";
import { Icon, Mark } from "./icons.js";
import { Panel } from "./panel.js";
import { SessionSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { SignIn } from "./signin.js";
import { useShortcuts, useTitle } from "./window.js";

export function App({ initialKey }) {
  const [key, setKey] = useState(initialKey);
  const [reason, setReason] = useState(null);
  const enter = (given) => {
    keepKey(given);
    setReason(null);
    setKey(given);
  };
  const leave = (why = null) => {
    keepKey(null);
    if (!why) forgetDrafts();
    setReason(why);
    setKey(null);
  };
  useEffect(() => {
    // The server's link, pasted into a tab that is here already.
    const look = () => location.hash.startsWith("#key=") && enter(takeKey());
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);
  return html`
    ${key ? html`<${SignedIn} key=${key} secret=${key} onLeave=${leave} />` : html`<${SignIn} reason=${reason} onKey=${enter} />`}
    <${Announcements} />`;
}

const addressed = () => new URLSearchParams(location.search).get("s");

function SignedIn({ secret, onLeave }) {
  const isLeft = useRef(false);
  const onRefused = () => {
    // A late answer from before somebody signed out says nothing about who is here now.
    if (!isLeft.current) onLeave("This key no longer works. Your text is kept.");
  };
  useEffect(
    () => () => {
      isLeft.current = true;
    },
    [],
  );
  const api = useMemo(() => new Api(secret, onRefused), []);
  const sessions = useMemo(() => new Sessions(api), []);
  const { session, open } = useSession(api, sessions);
  const about = useAbout(api);
  const [view, setView] = useState(null);
  const [isListOpen, setListOpen] = useState(false);
  const [isSettingsOpen, setSettingsOpen] = useState(false);
  const hasList = useMedia("(min-width: 720px)");
  useObservables(session, sessions);
  useTitle(session, sessions);
  const openFrom = (id) => {
    setListOpen(false);
    open(id);
  };
  // A file or a turn belongs to the session in which it was looked at.
  useEffect(() => setView((it) => it && { tab: it.tab }), [session]);
  useShortcuts({
    onSessions() {
      if (!hasList) setListOpen(true);
      setTimeout(() => document.getElementById("session-filter")?.focus());
    },
    onStop: () => session.stop(),
    onEscape: () => setView(null),
  });
  const toggle = (tab) => setView(view?.tab === tab ? null : { tab });
  const onOpen = (tab, what) => setView(tab === "files" ? { tab, file: what } : { tab, turnId: what });
  const remove = async () => {
    await sessions.remove(session.id);
    open(null);
  };
  const list = html`<${Sidebar} sessions=${sessions} current=${session.id} onOpen=${openFrom} onSignOut=${() => onLeave()} version=${about.version} />`;
  return html`<div class=${`app${view ? " with-panel" : ""}`}>
    <${Header} session=${session} view=${view} onToggle=${toggle} onList=${hasList ? null : () => setListOpen(true)}
      onSettings=${session.record ? () => setSettingsOpen(true) : null} />
    ${hasList ? list : null}
    ${
      !hasList && isListOpen
        ? html`<${Dialog} title="Sessions" full=${true} onClose=${() => setListOpen(false)}>
      <div class="list-close"><${IconButton} icon="close" label="Close the list" onClick=${() => setListOpen(false)} /></div>${list}<//>`
        : null
    }
    <${DropTarget} session=${session}>
      <${Conversation} key=${session.uid} session=${session} models=${about.models} onOpen=${onOpen} onLeave=${() => open(null)} />
    <//>
    <${Panel} key=${`panel ${session.uid}`} session=${session} view=${view} onView=${setView} />
    ${isSettingsOpen && session.record ? html`<${SessionSettings} session=${session} models=${about.models} onClose=${() => setSettingsOpen(false)} onDelete=${remove} />` : null}
  </div>`;
}

function Header({ session, view, onToggle, onList, onSettings }) {
  const { input, output } = session.usage;
  return html`<header class="top">
    ${onList ? html`<${IconButton} icon="menu" label="Sessions" onClick=${onList} />` : html`<span class="brand"><${Mark} /> turnwire</span>`}
    <h1>${session.record ? nameOf(session.record) : "New session"}</h1>
    ${onSettings ? html`<${IconButton} icon="more" label="Session settings" onClick=${onSettings} />` : null}
    ${input + output > 0 ? html`<span class="usage" title="Tokens that models read and wrote in this session">${count(input)} in ${count(output)} out</span>` : null}
    <span class="space"></span>
    ${["files", "events"].map(
      (
        tab,
      ) => html`<button type="button" class="icon-button" aria-label=${tab === "files" ? "Files" : "Events"} aria-pressed=${view?.tab === tab} onClick=${() => onToggle(tab)}>
      <${Icon} name=${tab} /><span>${tab === "files" ? "Files" : "Events"}</span></button>`,
    )}
  </header>`;
}

/** The conversation takes dropped files as those of the next message. */
function DropTarget({ session, children }) {
  const ref = useRef();
  const [isOver, setOver] = useState(false);
  useLayoutEffect(() => takeDrops(ref.current, setOver, (files) => session.onFiles?.(files)), [session]);
  return html`<main ref=${ref} class=${isOver ? "drop" : ""}>${children}</main>`;
}

function announceEnd({ status, error }) {
  if (status === "error") announcer.alert(error);
  else announcer.say(status === "completed" ? "Answer complete" : "Stopped");
}

let uids = 0;

/** The session that the address names, and the way to another one. */
function useSession(api, sessions) {
  const make = useCallback((id) => {
    const model = new SessionModel(api, id, {
      // Where somebody went elsewhere meanwhile, the address is that session's.
      created: (made) => model === current.current && history.replaceState(null, "", `?s=${made}`),
      changed: () => sessions.touch(),
      ended: announceEnd,
    });
    model.uid = ++uids;
    if (id) model.load();
    return model;
  }, []);
  const [session, setSession] = useState(() => make(addressed()));
  const current = useRef(session);
  current.current = session;
  const show = (id) => {
    current.current.close();
    setSession(make(id));
  };
  useEffect(() => {
    const stop = sessions.start();
    const onBack = () => addressed() !== current.current.id && show(addressed());
    window.addEventListener("popstate", onBack);
    const end = sessions.subscribe(() => {
      const record = sessions.records.find(({ id }) => id === current.current.id);
      if (record) current.current.see(record);
    });
    return () => {
      stop();
      end();
      window.removeEventListener("popstate", onBack);
      current.current.close();
    };
  }, []);
  const open = (id) => {
    if (id && id === current.current.id) return;
    history.pushState(null, "", id ? `?s=${id}` : location.pathname);
    show(id);
  };
  return { session, open };
}

/** What the server is: its version, and the models that it can be asked for. */
function useAbout(api) {
  const [about, setAbout] = useState({ version: "", models: [] });
  useEffect(() => {
    Promise.all([api.json("GET", "health"), api.json("GET", "v1/models")])
      .then(([{ version }, models]) => setAbout({ version, models }))
      .catch(() => {});
  }, []);
  return about;
}
