// Markdown text to tokens, block by block: marked's Lexer, bent so that a block never depends on another one.
//
// A text that grows is lexed from its last unfinished block on (stream.js). That gives the same tokens as lexing all of it
// only if blocks say nothing about each other, so what does is left out: link definitions ("[a]: https://…", which would
// change paragraphs far above) are plain text, and an HTML tag in one paragraph has no effect on the next.
import { Lexer, Tokenizer } from "marked";

class BlockTokenizer extends Tokenizer {
  def() {}

  reflink(source) {
    // As marked does for a reference that is not defined: the bracket is text.
    if (source[0] === "[" || source.startsWith("![")) return { type: "text", raw: source[0], text: source[0] };
  }

  tag(source) {
    const inLink = this.lexer.state.inLink;
    const token = super.tag(source);
    this.lexer.state.inLink = inLink;
    this.lexer.state.inRawBlock = false;
    return token;
  }
}

/**
 * The blocks of a text, as marked's tokens. Their inline content is lexed when `inline` is asked for it, since most blocks
 * are looked at many times and shown once.
 */
export function lexBlocks(source) {
  const lexer = new Lexer({ gfm: true, tokenizer: new BlockTokenizer() });
  const blocks = lexer.blockTokens(source, []);
  const sources = new Map(lexer.inlineQueue.map((item) => [item.tokens, item.src]));
  return {
    blocks,
    inline(tokens) {
      const text = sources.get(tokens);
      if (text !== undefined) {
        sources.delete(tokens);
        lexer.inlineTokens(text, tokens);
      }
      return tokens;
    },
  };
}

/**
 * How many of the blocks no further text can change: all before the last one that has begun with a whole line. Two lines
 * where the second one tells: of a table, and of what follows a paragraph without a blank line, since a paragraph goes on
 * when what seemed to be a table is none, and a tag is read in another way behind one.
 */
export function countFinished(blocks, source) {
  const starts = startsOf(blocks, source);
  if (!starts) return 0;
  for (let index = blocks.length - 1; index > 0; index--) {
    const { type, raw } = blocks[index];
    if (!raw.trim()) continue;
    const before = blocks[index - 1];
    const isApart = before.type === "space" || before.raw.endsWith("\n\n");
    if (!isApart && before.type === "paragraph" && (type === "paragraph" || /^ {0,3}</.test(raw))) continue;
    const line = source.indexOf("\n", starts[index]);
    const isWhole = line >= 0 && ((isApart && type !== "table") || source.indexOf("\n", line + 1) >= 0);
    if (isWhole) return index;
  }
  return 0;
}

/** Where each block begins in the source; null where marked's accounts don't add up, as in some odd corners they don't. */
export function startsOf(blocks, source) {
  const starts = [];
  let at = 0;
  for (const { raw } of blocks) {
    if (!source.startsWith(raw, at)) return null;
    starts.push(at);
    at += raw.length;
  }
  return starts;
}

const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–" };
Object.assign(NAMED, {
  copy: "©",
  reg: "®",
  trade: "™",
  times: "×",
  middot: "·",
  bull: "•",
  deg: "°",
  euro: "€",
  rarr: "→",
  larr: "←",
});

/** Text with its character references read: those in common use. marked leaves them to the browser's HTML parser. */
export function decodeEntities(text) {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z]{2,8}));/g, (whole, decimal, hex, name) => {
    if (name) return Object.hasOwn(NAMED, name) ? NAMED[name] : whole;
    const code = decimal ? Number(decimal) : Number.parseInt(hex, 16);
    const isCharacter = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    return isCharacter ? String.fromCodePoint(code) : "\ufffd";
  });
}
