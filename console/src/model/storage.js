// What the browser keeps: the key in the tab, drafts of messages in the browser. Either may be forbidden; then it forgets.

const KEY = "turnwire.key";
const DRAFT = "turnwire.draft.";

function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/** The key of this tab. One behind the # of the address, as the server's start-up line has it, is taken and erased. */
export function takeKey() {
  const given = /^#key=(.+)$/.exec(location.hash);
  if (given) {
    history.replaceState(null, "", location.pathname + location.search);
    keepKey(attempt(() => decodeURIComponent(given[1])) ?? given[1]);
  }
  return attempt(() => sessionStorage.getItem(KEY));
}

export function keepKey(key) {
  attempt(() => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)));
}

export function draftOf(sessionId) {
  return attempt(() => localStorage.getItem(DRAFT + (sessionId ?? "new"))) ?? "";
}

/** Who signs out leaves nothing for the next one. */
export function forgetDrafts() {
  attempt(() => {
    for (const name of Object.keys(localStorage)) if (name.startsWith(DRAFT)) localStorage.removeItem(name);
  });
}

export function keepDraft(sessionId, text) {
  const name = DRAFT + (sessionId ?? "new");
  attempt(() => (text ? localStorage.setItem(name, text) : localStorage.removeItem(name)));
}
