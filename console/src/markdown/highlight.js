// Colours for code blocks that are finished, when the browser has nothing better to do.
import { tokenizer } from "@speed-highlight/core/tokenize";
import { linesOf, make } from "./build.js";

/** Beyond it, code is shown as it is: 90 kB take 14 ms. */
const CHARS_MAX = 200_000;
const LINES_AT_ONCE = 20;

const ALIASES = {
  "c++": "c",
  cc: "c",
  cpp: "c",
  h: "c",
  hpp: "c",
  cs: "java",
  dockerfile: "docker",
  golang: "go",
  htm: "html",
  javascript: "js",
  json5: "json",
  jsonc: "json",
  jsonl: "json",
  jsx: "js",
  kotlin: "java",
  kt: "java",
  makefile: "make",
  mjs: "js",
  patch: "diff",
  python: "py",
  python3: "py",
  rust: "rs",
  console: "bash",
  sh: "bash",
  shell: "bash",
  zsh: "bash",
  svg: "xml",
  tsx: "ts",
  typescript: "ts",
  yml: "yaml",
};
const KNOWN = new Set(
  "bash c css diff docker go html ini java js jsdoc json lua make py regex rs sql todo toml ts uri xml yaml".split(" "),
);

const loading = new Map();

function load(name) {
  if (!KNOWN.has(name)) return undefined;
  if (!loading.has(name)) {
    const address = new URL(`languages/${name}.js`, import.meta.url).href;
    loading.set(
      name,
      import(address).then((it) => it.default).catch(() => undefined),
    );
  }
  return loading.get(name);
}

const idle = window.requestIdleCallback ?? ((action) => setTimeout(action, 50));

/** Colour a code block, some time later, if its language is known. */
export function highlight(code, language) {
  const asked = language.toLowerCase();
  const name = ALIASES[asked] ?? asked;
  if (KNOWN.has(name)) idle(() => paint(code, name), { timeout: 2_000 });
}

async function paint(code, name) {
  const text = code.textContent;
  if (!code.isConnected || !text || text.length > CHARS_MAX) return;
  const lines = await colouredLines(text, name);
  let index = 0;
  // A slice at a time: the colours of a long block are more work for the browser than finding them.
  const slice = (deadline) => {
    for (let done = 0; index < lines.length; index++, done++) {
      if (done >= LINES_AT_ONCE && (deadline?.timeRemaining?.() ?? 0) < 5) return idle(slice, { timeout: 2_000 });
      const line = code.children[index];
      // Nobody has changed it meanwhile, and nothing got lost.
      if (line?.textContent !== lines[index].textContent) return undefined;
      line.replaceChildren(lines[index]);
    }
    return undefined;
  };
  slice();
}

/** The lines of a code as fragments with coloured pieces. */
async function colouredLines(text, name) {
  const lines = [document.createDocumentFragment()];
  const steps = tokenizer(text, name, (piece, type) => {
    for (const part of linesOf(piece)) {
      lines.at(-1).append(type ? make("span", { class: `hl-${type}` }, part) : part);
      if (part.endsWith("\n")) lines.push(document.createDocumentFragment());
    }
  });
  // The generator asks for languages by their names, those within others too.
  let step = steps.next();
  while (!step.done) step = steps.next((await load(step.value)) ?? []);
  return lines;
}
