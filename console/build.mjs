// Make src/turnwire/console/static, or the folder that is named, out of what lies here.
//
//   npm ci && node build.mjs
//
// The result is in the repository, so that a checkout and a wheel run without npm; a test builds it again and compares.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = resolve(process.argv[2] ?? join(HERE, "../src/turnwire/console/static"));

// Asked for one by one, when a block of code is in one of them. Left out are dialects, jokes, and rare ones.
const LANGUAGES = [
  ...[
    "bash",
    "c",
    "css",
    "diff",
    "docker",
    "go",
    "html",
    "ini",
    "java",
    "js",
    "jsdoc",
    "json",
    "lua",
    "make",
    "py",
    "regex",
  ],
  ...["rs", "sql", "todo", "toml", "ts", "uri", "xml", "yaml"],
];

const PACKAGES = ["@speed-highlight/core", "htm", "marked", "preact"];

// marked's module makes a parser and a renderer as it is loaded, which no bundler dares to leave out: 5 kB for nothing.
const lexerOnly = {
  name: "lexer-only",
  setup(to) {
    to.onLoad({ filter: /marked\.esm\.js$/ }, ({ path }) => {
      const source = readFileSync(path, "utf8");
      const parts = /^(.*)var \w+=new \w+;function .*?(export ?\{.*)$/s.exec(source);
      const [lexer, tokenizer] = ["Lexer", "Tokenizer"].map(
        (name) => new RegExp(`([\\w$]+) as ${name}\\b`).exec(parts[2])[1],
      );
      return { contents: `${parts[1]}export { ${lexer} as Lexer, ${tokenizer} as Tokenizer };` };
    });
  },
};

rmSync(OUT, { recursive: true, force: true });
mkdirSync(OUT, { recursive: true });
cpSync(join(HERE, "public"), OUT, { recursive: true });
await build({
  absWorkingDir: HERE,
  entryPoints: [
    { in: "src/main.js", out: "console" },
    { in: "src/style/all.css", out: "console" },
    ...LANGUAGES.map((name) => ({ in: `@speed-highlight/core/languages/${name}.js`, out: `languages/${name}` })),
  ],
  outdir: OUT,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
  plugins: [lexerOnly],
});

const notices = PACKAGES.map((name) => {
  const folder = join(HERE, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((it) => /^licen[cs]e/i.test(it));
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
});
writeFileSync(join(OUT, "LICENSES.txt"), notices.join(`\n${"-".repeat(80)}\n\n`));
