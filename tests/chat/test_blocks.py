"""Markdown comes out the same however it was cut into deltas, and what comes out is all of it."""

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwire.chat.blocks import TABLE_ROWS_MAX, Blocks, Code, Markdown, Piece

TEXT = """\
# Head *line*

A paragraph with `code` and
a second line.
Setext
======

- one
- two

  with a paragraph
  ```py
  nested = 1
  ```
- [ ] three
  - nested
    - deeper
* another list
1. a
2. b
10) c

| a | b |
|---|--:|
| 1 | 2 |
| `|` | 4

> quote
> - list
lazy

    indented code

```python title="x"
def f():
    return "```"

~~~
```
after
~~~~
``` not closed
~~~
~~~~
***
<div onclick="x">html</div>
[ref]: https://example.org
![image](javascript:alert(1)) [link](https://example.org)
 ```sh
  $ ls
 x
  ```
last line without an end"""

PARTS = ["- a\n", "  b\n", "1. c\n", "\n", "```\n", "~~~ x\n", "> q\n", "text\n", "===\n", "---\n", "    code\n"]
PARTS += ["# h\n", " ", "\t", "- ", "`", "\\", "    ", "* * *\n", "2) d\n", "<x>\n", "| a | b |\n", "|---|---|\n"]


def run(pieces: list[str]) -> list[tuple[object, ...]]:
    """What comes out, with neighbouring lines of code joined: how many come at once may differ."""
    blocks, out = Blocks(), list[Piece]()
    for piece in pieces:
        blocks.feed(piece)
        blocks.open()
        out += blocks.take()
    out += blocks.close()
    joined: list[tuple[object, ...]] = []
    for piece in out:
        if isinstance(piece, Code):
            if piece.before:
                kind, language, lines, gap = joined.pop()
                assert kind == "code" and language == piece.language and lines == piece.before
                joined.append((kind, language, [*piece.before, *piece.lines], gap))
            else:
                joined.append(("code", piece.language, piece.lines, piece.gap))
        else:
            joined.append(("markdown", piece.source, piece.gap))
    return joined


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_deltas_of_any_size_come_out_as_the_whole_text_does(size: int) -> None:
    assert run([TEXT[i : i + size] for i in range(0, len(TEXT), size)]) == run([TEXT])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PARTS), max_size=30).map("".join), st.lists(st.integers(0, 10**6), max_size=12))
def test_any_text_comes_out_the_same_by_any_split(text: str, cuts: list[int]) -> None:
    assert run(split(text, cuts)) == run([text])


def test_the_pieces_are_all_of_the_text_in_order() -> None:
    out = run([TEXT])
    text = "".join(piece[1] if piece[0] == "markdown" else "\n".join(piece[2]) for piece in out)  # type: ignore[misc]

    for word in ("Head", "Setext", "deeper", "lazy", "indented", 'return "```"', "not closed", "html", "$ ls", "end"):
        assert word in text
    assert next(piece[2] for piece in out if piece[0] == "code") == ["def f():", '    return "```"', "", "~~~"]


def test_items_of_a_list_and_lines_of_code_come_before_their_block_ends() -> None:
    blocks = Blocks()
    blocks.feed("- one\n- two\n- three")
    assert blocks.take() == [Markdown("- one\n", gap=False)]
    blocks.feed("\n\n```py\nx = 1\ny =")
    assert blocks.take() == [
        Markdown("- two\n", gap=False),
        Markdown("- three\n", gap=False),
        Code("py", ["x = 1"], [], gap=True),
    ]
    assert blocks.open() == Code("py", ["x = 1", "y ="], [], gap=False)


def test_a_long_table_comes_in_parts_each_with_its_head() -> None:
    head = "| n |\n|---|\n"
    rows = [f"| {n} |\n" for n in range(2 * TABLE_ROWS_MAX + 5)]
    out = run([head + "".join(rows)])

    assert [piece[1] for piece in out] == [
        head + "".join(rows[a : a + TABLE_ROWS_MAX]) for a in range(0, len(rows), TABLE_ROWS_MAX)
    ]
    assert [piece[2] for piece in out] == [False, False, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["word ", "- item\n", "| a | b |\n", "para\n\n", "```\nx\n```\n", "> q\n", "1. x\n   - y\n", "line\n"]
)
def test_a_text_of_100_000_characters_takes_a_time_of_its_length(unit: str) -> None:
    text = "| a | b |\n|---|---|\n" * unit.startswith("|") + unit * (100_000 // len(unit))
    began = time.process_time()
    run([text])
    blocks = Blocks()
    for at in range(0, len(text), 500):  # 200 looks at it while it comes
        blocks.feed(text[at : at + 500])
        blocks.take()

    assert time.process_time() - began < 20


def test_random_bytes_of_text_do_not_break_it() -> None:
    rng = random.Random(7)
    for _ in range(200):
        text = "".join(rng.choice("-*`~>|#1.) \n\tab\\[]<&") for _ in range(200))
        cuts = [rng.randrange(200) for _ in range(20)]
        assert run(split(text, cuts)) == run([text]), text
