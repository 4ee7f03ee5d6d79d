// Tokens to DOM nodes, by createElement and text nodes alone: nothing that a model or a file says is parsed as HTML.
import { isFilePath } from "../model/paths.js";
import { decodeEntities } from "./lexing.js";

const SAFE_LINK = /^(?:https?:|mailto:)/i;
const HAS_SCHEME = /^(?:[a-z][a-z0-9+.-]*:|\/\/|[#?])/i;

/** Make an element. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The path in the workspace that a relative link or picture names, or null. */
export function workspacePath(href) {
  if (!href || HAS_SCHEME.test(href)) return null;
  let path = href.replace(/[?#].*$/s, "");
  try {
    path = decodeURIComponent(path);
  } catch {
    // A lone % is part of the name.
  }
  path = path.replace(/^(?:\/opt\/sandbox)?\/workspace\/|^(?:\.\/)+/, "");
  return isFilePath(path) ? path : null;
}

/**
 * Builds the nodes of blocks.
 *
 * `inline`: see lexBlocks. `hooks.code(element, language)` is told of a whole code block, `hooks.image(path, text)` gives the
 * element of a picture in the workspace.
 */
export class Builder {
  constructor(inline, hooks) {
    this.inline = inline;
    this.hooks = hooks;
  }

  /** The node of a block, or null of one that shows nothing. */
  block(token) {
    switch (token.type) {
      case "space":
        return null;
      case "heading":
        // A message has a heading of its own, hidden, of level 3.
        return make(`h${Math.min(token.depth + 3, 6)}`, { class: `h${token.depth}` }, ...this.spans(token.tokens));
      case "code":
        return this.code(token);
      case "hr":
        return make("hr");
      case "blockquote":
        return make("blockquote", {}, ...this.blocks(token.tokens));
      case "list":
        return this.list(token, token.items);
      case "table":
        return this.table(token);
      case "html":
        return make("p", {}, token.raw.trim());
      case "checkbox":
        return null;
      default:
        return this.paragraph(token);
    }
  }

  blocks(tokens) {
    return tokens.map((token) => this.block(token)).filter(Boolean);
  }

  paragraph(token) {
    const spans = token.tokens ? this.spans(token.tokens) : [decodeEntities(token.text)];
    return spans.length ? make("p", {}, ...spans) : null;
  }

  code(token) {
    const language = /^\S*/.exec(token.lang ?? "")[0];
    const { element, code } = codeBlock(language);
    setLines(code, withoutLastNewlines(token.text));
    this.hooks.code?.(code, language);
    return element;
  }

  list(token, items) {
    const list = make(token.ordered ? "ol" : "ul", token.ordered && token.start !== 1 ? { start: token.start } : {});
    list.append(...items.map((item) => this.item(item)));
    return list;
  }

  /** Always with a paragraph in it: whether a list is loose is known at its end only, and would change all its items. */
  item(item) {
    const element = make("li", {}, ...this.blocks(item.tokens));
    if (item.task) {
      element.className = "task";
      const box = make("input", { type: "checkbox", disabled: "", "aria-label": item.checked ? "done" : "to do" });
      box.checked = item.checked;
      if (element.firstElementChild?.tagName !== "P") element.prepend(make("p"));
      element.firstElementChild.prepend(box);
    }
    return element;
  }

  /** In a box that scrolls by itself. */
  table(token) {
    const head = make("tr", {}, ...token.header.map((cell) => this.cell("th", cell)));
    const body = make("tbody", {}, ...this.rows(token));
    return make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, head), body));
  }

  rows(token) {
    return token.rows.map((row) => make("tr", {}, ...row.map((cell) => this.cell("td", cell))));
  }

  cell(name, cell) {
    return make(name, cell.align ? { class: `align-${cell.align}` } : {}, ...this.spans(cell.tokens));
  }

  spans(tokens) {
    return this.inline(tokens).flatMap((token) => this.span(token));
  }

  /** The nodes and texts of an inline token. */
  span(token) {
    switch (token.type) {
      case "strong":
      case "em":
      case "del":
        return make(token.type, {}, ...this.spans(token.tokens));
      case "codespan":
        return make("code", {}, token.text);
      case "br":
        return make("br");
      case "link":
        return this.link(token);
      case "image":
        return this.image(token);
      case "html":
        return token.raw;
      case "checkbox":
        return [];
      default:
        return token.tokens ? this.spans(token.tokens) : decodeEntities(token.text);
    }
  }

  link(token) {
    const href = decodeEntities(token.href ?? "");
    const content = this.spans(token.tokens);
    if (SAFE_LINK.test(href)) return make("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...content);
    const path = workspacePath(href);
    return path ? make("button", { type: "button", class: "link", "data-path": path }, ...content) : content;
  }

  /** Of the workspace only: loading a picture from elsewhere would tell others what is read here. */
  image(token) {
    const href = decodeEntities(token.href ?? "");
    const text = decodeEntities(token.text ?? "");
    const path = workspacePath(href);
    if (path && this.hooks.image) return this.hooks.image(path, text);
    return SAFE_LINK.test(href) ? this.link({ href, tokens: [{ type: "text", text: text || href }] }) : text;
  }
}

/** An empty code block: its language, a button to copy it, and the place for the code. */
export function codeBlock(language) {
  const code = make("code");
  const copy = make("button", { type: "button", class: "copy", "data-copy": "code" }, "Copy");
  const head = make("div", { class: "code-head" }, make("span", {}, language || "text"), copy);
  return { element: make("div", { class: "code" }, head, make("pre", { tabindex: "0" }, code)), code };
}

/** Show code: a block a line (CSS), so that a line that is added or coloured is laid out by itself. */
export function setLines(code, text) {
  code.replaceChildren(...linesOf(text).map(lineOf));
}

/** The lines of a text, each with its end. */
export const linesOf = (text) => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

export const lineOf = (text) => make("span", { class: "line" }, text);

export function withoutLastNewlines(text) {
  return text.replace(/\n+$/, "");
}
