"""Pieces of Markdown as rows of a terminal."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from chat.test_blocks import PARTS
from turnwire.chat.blocks import Blocks
from turnwire.chat.markdown import preview_rows, rows_of
from turnwire.chat.screen import make_console


def lines_of(text: str, width: int = 40) -> list[str]:
    """What is printed, without styles."""
    console = console_of(width)
    blocks = Blocks()
    blocks.feed(text)
    rows = [row for piece in blocks.close() for row in rows_of(piece, console)]
    return ["".join(segment.text for segment in row) for row in rows]


def console_of(width: int) -> Console:
    console = make_console(io.StringIO())
    console.width, console.height = width, 24
    return console


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# Head\ntext", ["Head", "", "text"]),
        ("- a\n- b\n\n1. c", [" • a", " • b", "", " 1 c"]),
        ("a [text](https://example.org) b", ["a text (https://example.org) b"]),
        ("see ![a pic](plot.png) here", ["see [image: a pic] (plot.png) here"]),
        ("<b onclick='x'>html</b>\n\n<script>\nx", ["<b onclick='x'>html</b>", "", "<script> x"]),
        ("[ref]: https://example.org\n", ["[ref]: https://example.org"]),
        ("snake_case_name 2*3*4", ["snake_case_name 234"]),
        ("```py\n\n\tx = 1\n\n```", ["", "    x = 1", ""]),
        ("```nolang\n$ x\n```", ["$ x"]),
        ("> quote\n> more", ["▌ quote more"]),
        ("hard  \nbreak", ["hard", "break"]),
        ("a&#x202e;b&#13;c&#x1b;[31md &#x2066;`x&#x202e;`", ["abc\ufffd[31md x&#x202e;"]),
        ("word " * 12, ["word word word word word word word word", "word word word word"]),
    ],
)
def test_markdown_is_shown_as(text: str, lines: list[str]) -> None:
    assert lines_of(text) == lines


def test_lines_of_code_are_not_wrapped() -> None:
    long = "x = " + "1 + " * 40 + "1"

    assert lines_of(f"```py\n{long}\n```") == [long]


def test_what_is_nested_too_deep_is_shown_as_it_stands() -> None:
    text = "> " * 60 + "deep"

    assert "".join(lines_of(text)).replace(" ", "") == ">" * 60 + "deep"


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([*PARTS, "[a](b)", "**b**", "![i](j)", "漢字 "]), max_size=30), st.integers(1, 60))
def test_no_text_and_no_width_breaks_it(parts: list[str], width: int) -> None:
    text = "".join(parts)
    lines_of(text, width)
    blocks = Blocks()
    blocks.feed(text)
    blocks.take()
    piece = blocks.open()
    if piece is not None:
        assert len(preview_rows(piece, console_of(width), width, 4)) <= 8
