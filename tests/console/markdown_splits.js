// Whether a text that comes in pieces gives the same DOM as one that comes at once. Answers what differs.
(seeds) => {
  const { MarkdownStream } = markdown;
  const PIECES = [
    ...["a", "word ", "snake_case_name ", "\n", "\n\n", "\n\n\n", "  \n", "- ", "- [ ] ", "- [x] done\n", "* ", "1. ", "10) "],
    ...["  - nested\n", "    code\n", "      deep\n", "\t", "> ", "> quote\n", "> - li\n", ">\n", "# H\n", "## H2", "Setext\n===\n"],
    ...["---\n", "***\n", "===", "```", "```js\n", "```\n", "~~~\n", "````\n", "| a | b |\n", "|---|:-:|\n", "| 1 | 2 |\n"],
    ...["a | b\n", "--- | ---\n", "|x\n", "**bold**", "*em*", "**", "_", "`code`", "`", "``", "[l](https://a.b)", "](", "!["],
    ...["[l](javascript:alert(1))", "![i](p.png)", "![i](https://e.vil/x.png)", "<img src=x onerror=alert(1)>", "<div>\n"],
    ...["</div>\n\n", "<custom>\n", "<!-- c", "-->\n", "<script>\n", "</script>\n", "<a href=x>", "</a>", "[ref]: https://x.y\n"],
    ...["[ref]", "[ref][ref]", "https://auto.link ", "www.x.com ", "me@x.org ", "&lt;", "&amp;", "&#60;", "&#x26;", "\\", "\\*"],
    ...["~~del~~", "~", "\r\n", "\r", "\u2028", "\u0000", "é😀", "   ", " ", "<", ">", "(", "]"],
  ];
  const htmlOf = (text, cuts) => {
    const root = document.createElement("div");
    const stream = new MarkdownStream(root);
    let at = 0;
    for (const cut of [...cuts, text.length]) {
      stream.append(text.slice(at, cut));
      if (cut < text.length) stream.render();
      at = cut;
    }
    stream.render(true);
    root.normalize();
    return root.innerHTML;
  };
  const differing = [];
  for (const seed of seeds) {
    let state = seed >>> 0;
    const random = (n) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    for (let i = 0; i < 5; i++) random(2);
    const text = Array.from({ length: 3 + random(25) }, () => PIECES[random(PIECES.length)]).join("");
    const whole = htmlOf(text, []);
    for (const step of [1, 4, 9, 30]) {
      const cuts = [];
      for (let at = 0; (at += step === 1 ? 1 : 1 + random(step)) < text.length; ) cuts.push(at);
      const pieces = htmlOf(text, cuts);
      if (pieces !== whole) {
        differing.push({ seed, step, text, whole, pieces });
        break;
      }
    }
  }
  return differing;
};
