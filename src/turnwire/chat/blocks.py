"""Markdown cut into finished pieces while it comes.

Markdown's blocks are made of whole lines, read once from the top: when another block has begun on a whole line, the one
before it can't change any more. So only the text behind the last finished block is ever parsed again. Three kinds of
block are cut further, since they may be long: a fence of code is given out line by line, a list item by item, a table
by so many rows, each piece with the table's head.

How the text was cut into deltas has no influence on what comes out: tests/chat/test_blocks.py.
"""

import re
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

TABLE_ROWS_MAX = 40
"""Rows of one piece of a table: few enough to be laid out in a moment, and so that its head is still on the screen."""

WINDOW_LINES = 200
"""Lines that are parsed at first; more only when they are all one block. So a long text at once costs its length."""

LONG_BLOCK = 4000
"""Characters of an open block from which on it is parsed more rarely."""

OPEN_FENCE_LINES = 6
ONE_LINERS = ("heading_open", "hr")
CLOSED_BY_EMPTY_LINES = ("paragraph_open", "table_open")
LISTS = ("bullet_list_open", "ordered_list_open")
CLOSING_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")


def parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough. HTML is text. So are definitions of references: what names them may
    have been printed long before."""
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("reference")


_BLOCKS = parser()
_BLOCKS.core.ruler.disable(["inline", "text_join"])


class Markdown(NamedTuple):
    """A piece to be rendered by itself. `gap`: a blank line stands before it."""

    source: str
    gap: bool


class Code(NamedTuple):
    """Lines of a fence, without their newlines. `before`: those of it that were given out already."""

    language: str
    lines: list[str]
    before: list[str]
    gap: bool


Piece = Markdown | Code


class _Fence(NamedTuple):
    language: str
    markup: str
    indent: int
    lines: list[str]


class Blocks:
    """One text: `feed` it, `take` what has been finished since, `close` it at its end."""

    def __init__(self) -> None:
        self._rest = ""
        self._fence: _Fence | None = None
        self._first = True
        self._follows = False
        """The rest goes on with a list or table, whose beginning was given out."""
        self._loose = False
        self._grown = False
        self._next_look = 0

    def feed(self, text: str) -> None:
        self._rest += text
        self._grown = self._grown or "\n" in text

    def take(self) -> list[Piece]:
        """A block that is long already is looked at again only when it has grown by a quarter."""
        if not self._grown or len(self._rest) < self._next_look:
            return []
        self._grown = False
        pieces = self._finished(at_end=False)
        self._next_look = len(self._rest) * 5 // 4 if self._fence is None and len(self._rest) > LONG_BLOCK else 0
        return pieces

    def close(self) -> list[Piece]:
        """The rest of the text."""
        if self._rest and not self._rest.endswith("\n"):
            self._rest += "\n"
        return self._finished(at_end=True)

    def open(self) -> Piece | None:
        """What is there of the piece that is not finished; of a fence its last lines."""
        if self._fence is not None:
            done = self._fence.lines[-OPEN_FENCE_LINES:]
            return Code(self._fence.language, [*done, self._rest] if self._rest else done, [], gap=False)
        return Markdown(self._rest, gap=self._gap()) if self._rest.strip() else None

    def _finished(self, *, at_end: bool) -> list[Piece]:
        pieces: list[Piece] = []
        window = WINDOW_LINES
        while True:
            before = len(self._rest), self._fence is None
            if self._fence is not None:
                pieces += self._code(self._fence)
            else:
                pieces += self._blocks(window, at_end=at_end)
            if before == (len(self._rest), self._fence is None):
                if self._rest.count("\n") <= window:
                    return pieces
                window *= 2
            else:
                window = WINDOW_LINES

    def _code(self, fence: _Fence) -> list[Piece]:
        """Whole lines up to the fence's end."""
        *lines, tail = self._rest.split("\n")
        pieces: list[Piece] = []
        used, ended = self._lines_of_code(fence, lines, pieces)
        if ended:
            self._fence = None
        self._rest = "\n".join([*lines[used:], tail])
        return pieces

    def _lines_of_code(self, fence: _Fence, lines: list[str], pieces: list[Piece]) -> tuple[int, bool]:
        """Give out lines up to the fence's end; how many are used, and whether it has ended."""
        found: list[str] = []
        used, ended = 0, False
        for line in lines:
            used += 1
            closing = CLOSING_FENCE.fullmatch(line)
            if closing and closing[1].startswith(fence.markup):
                ended = True
                break
            margin = len(line) - len(line.lstrip(" "))
            found.append(line[min(margin, fence.indent) :])
        if found:
            pieces.append(Code(fence.language, found, fence.lines.copy(), gap=not fence.lines and not self._first))
            fence.lines.extend(found)
            self._first = False
        return used, ended

    def _blocks(self, window: int, *, at_end: bool) -> list[Piece]:
        """The finished blocks at the beginning of the rest, up to a fence."""
        lines = self._rest.split("\n", window)
        partial = lines.pop()
        everything = "\n" not in partial
        tops = [token for token in _BLOCKS.parse("\n".join(lines)) if token.level == 0 and token.nesting >= 0]
        if not tops:
            if not any(line.strip() for line in lines):
                self._rest = partial
            return []
        pieces: list[Piece] = []
        start = 0
        for number, top in enumerate(tops):
            start = _span(top)[0]
            if number:
                self._follows = False
            if top.type == "fence":
                line = lines[start]
                fence = _Fence(top.info.strip(), top.markup, len(line) - len(line.lstrip(" ")), [])
                self._follows = False
                used, ended = self._lines_of_code(fence, lines[start + 1 :], pieces)
                start += 1 + used
                if not ended:
                    self._fence = fence
                    break
                continue
            last = number == len(tops) - 1
            end = len(lines) if last else _span(tops[number + 1])[0]
            finished = not last or (at_end and everything) or _is_closed(top, end)
            start = self._cut(top, lines, start, end, pieces, finished=finished)
        self._rest = "\n".join([*lines[start:], partial])
        return pieces

    def _cut(self, top: Token, lines: list[str], start: int, end: int, pieces: list[Piece], *, finished: bool) -> int:
        """Add what is finished of one block; where its rest begins."""
        if top.type in LISTS:
            for item in _items(lines, start, end):
                if item[1] == end and not finished:
                    return item[0]
                self._give(lines[item[0] : item[1]], pieces)
                self._follows, self._loose = True, not lines[item[1] - 1].strip()
            return end
        if top.type == "table_open":
            head, begin = lines[start : start + 2], start + 2
            rows_end = _span(top)[1]
            while rows_end - begin > TABLE_ROWS_MAX:
                self._give([*head, *lines[begin : begin + TABLE_ROWS_MAX]], pieces)
                self._follows, self._loose = True, False
                begin += TABLE_ROWS_MAX
            lines[begin - 2 : begin] = head
            start = begin - 2
        if finished:
            self._give(lines[start:end], pieces)
            self._follows = False
            return end
        return start

    def _give(self, lines: list[str], pieces: list[Piece]) -> None:
        while lines and not lines[-1].strip():
            lines = lines[:-1]
        pieces.append(Markdown("\n".join([*lines, ""]), self._gap()))
        self._first = False

    def _gap(self) -> bool:
        return not self._first and (not self._follows or self._loose)


def _items(lines: list[str], start: int, end: int) -> list[tuple[int, int]]:
    """Where the items of a list begin and end, the blank lines behind them included."""
    tokens = _BLOCKS.parse("\n".join(lines[start:end]))
    starts = [_span(token)[0] + start for token in tokens if token.type == "list_item_open" and token.level == 1]
    return list(zip(starts, [*starts[1:], end], strict=True))


def _is_closed(top: Token, end: int) -> bool:
    """Whether nothing that follows can change the block: a line of its own, or one with an empty line behind it."""
    return top.type in ONE_LINERS or (top.type in CLOSED_BY_EMPTY_LINES and _span(top)[1] < end)


def _span(token: Token) -> tuple[int, int]:
    assert token.map is not None
    return token.map[0], token.map[1]
