// The console begins here.

import { html, render } from "./html.js";
import { takeKey } from "./model/storage.js";
import { App } from "./views/app.js";

// A file that is dropped beside the places that take one would take the page's place.
for (const type of ["dragover", "drop"]) window.addEventListener(type, (event) => event.preventDefault());

render(html`<${App} initialKey=${takeKey()} />`, document.getElementById("app"));
