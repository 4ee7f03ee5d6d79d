// The way in: a key.
import { html, useEffect, useState } from "../html.js";
import { Api } from "../model/api.js";
import { Mark } from "./icons.js";

/** `reason`: why a key is asked for again. `onKey` is called with one that works. */
export function SignIn({ reason, onKey }) {
  const [key, setKey] = useState("");
  const [problem, setProblem] = useState(null);
  const [isTrying, setTrying] = useState(false);
  useEffect(() => {
    // It was that of a session.
    document.title = "turnwire";
  }, []);
  const onSubmit = async (event) => {
    event.preventDefault();
    setTrying(true);
    setProblem(null);
    try {
      // A key holds no blanks; what is pasted often ends with one.
      await new Api(key.trim()).json("GET", "v1/sessions?limit=1");
      onKey(key.trim());
    } catch (error) {
      setProblem(error.message);
      setTrying(false);
    }
  };
  return html`<main class="sign-in">
    <form onSubmit=${onSubmit}>
      <h1><${Mark} /> turnwire</h1>
      ${reason ? html`<p class="reason" role="alert">${reason}</p>` : null}
      <label for="key">Key</label>
      <input id="key" type="password" autocomplete="current-password" spellcheck="false" autofocus value=${key} aria-describedby="key-hint"
        onInput=${(event) => setKey(event.target.value)} />
      <p id="key-hint" class="hint">Paste a key; <code>turnwire keys show</code> prints it.</p>
      ${problem ? html`<p class="error" role="alert">${problem}</p>` : null}
      <button type="submit" class="primary" disabled=${isTrying || !key.trim()}>${isTrying ? "Signing in…" : "Sign in"}</button>
      <p class="hint">It is kept in this tab, and sent to this server alone.</p>
    </form>
  </main>`;
}
