// The console begins here.

import { html, render } from "./html.js";
import { takeKey } from "./model/storage.js";
import { App } from "./views/app.js";

render(html`<${App} initialKey=${takeKey()} />`, document.getElementById("app"));
