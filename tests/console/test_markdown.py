"""Markdown that grows: whatever the pieces in which it comes, what is shown is the same."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from plugins.tools import CONSOLE

pytestmark = pytest.mark.tool("chromium", "node", "npm-console")

HERE = Path(__file__).parent
SPLITS = (HERE / "markdown_splits.js").read_text()


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with a global `markdown`: that module of the console's source."""
    bundle = tmp_path_factory.mktemp("markdown") / "markdown.js"
    esbuild = CONSOLE / "node_modules" / ".bin" / "esbuild"
    options = ["--bundle", "--format=iife", "--global-name=markdown", f"--outfile={bundle}", "--log-level=error"]
    subprocess.run([esbuild, "src/markdown/stream.js", *options], cwd=CONSOLE, check=True, timeout=60)
    page = browser.new_page()
    page.add_script_tag(path=bundle)
    yield page
    page.close()


def html_of(page: Page, *pieces: str) -> str:
    """What these pieces are shown as."""
    script = """(pieces) => {
      const root = document.createElement("div");
      const stream = new markdown.MarkdownStream(root);
      for (const piece of pieces) { stream.append(piece); stream.render(); }
      stream.render(true);
      return root.innerHTML;
    }"""
    return page.evaluate(script, pieces)


def test_any_split_of_hostile_texts_gives_the_same(page: Page) -> None:
    differing: list[dict[str, Any]] = page.evaluate(SPLITS, list(range(1, 1201)))

    assert differing == [], json.dumps(differing[0], indent=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("snake_case_name", "<p>snake_case_name</p>"),
        ("a **b** _c_ ~~d~~ `e`", "<p>a <strong>b</strong> <em>c</em> <del>d</del> <code>e</code></p>"),
        ("AT&amp;T &lt;b&gt; &#60;", "<p>AT&amp;T &lt;b&gt; &lt;</p>"),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>"),
        ("[a](javascript:alert(1))", "<p>a</p>"),
        ("[a](data:text/html,x)", "<p>a</p>"),
        ("[a](//x.y)", "<p>a</p>"),
        ("[a](#key=x)", "<p>a</p>"),
        ("[a](out/b%20c.csv)", '<p><button type="button" class="link" data-path="out/b c.csv">a</button></p>'),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("- a\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol>'),
        (
            "[r]: https://x.y\n",
            '<p>[r]: <a href="https://x.y" target="_blank" rel="noopener noreferrer">https://x.y</a></p>',
        ),
    ],
)
def test_what_is_written_is_shown(page: Page, text: str, shown: str) -> None:
    assert html_of(page, text) == shown
    assert html_of(page, *text) == shown


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("one\n\ntwo\n\nthree\n\nf", "our"),
        ("- a\n- b\n- c\n- d\n- e", "f"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n| 7", " | 8 |"),
        ("```py\na = 1\nb = 2\nc", " = 3"),
    ],
    ids=["paragraphs", "a list", "a table", "a fence"],
)
def test_what_is_finished_is_not_made_again(page: Page, first: str, second: str) -> None:
    kept = page.evaluate(
        """([first, second]) => {
          const root = document.createElement("div");
          const stream = new markdown.MarkdownStream(root);
          stream.append(first);
          stream.render();
          const before = root.querySelectorAll("p, li, tr, code > span")[1];
          stream.append(second);
          stream.render();
          return root.contains(before);
        }""",
        [first, second],
    )

    assert kept
