"""The terminal: rows that are printed once, and below them a few that are drawn again.

The rows below are erased by going up over them, so their number on the screen must be known: none is longer than the
screen is wide, and after a change of the width it is reckoned how the terminal has wrapped them since.
"""

import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

Row = list[Segment]

LIVE_ROWS_MAX = 6
"""Redrawn rows: little enough to be no flicker, and to fit on any screen."""

ERASE_ROW, UP = "\x1b[2K", "\x1b[A"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
BELL = "\x07"


class Marks:
    """The signs at the beginnings of lines, as far as the terminal's encoding has them."""

    def __init__(self, *, unicode: bool) -> None:
        self.done, self.failed, self.refused, self.stopped = "✓✕⊘■" if unicode else "+x!#"
        self.folded, self.unfolded, self.again = "▸▾↻" if unicode else ">v~"
        self.prompt = "❯" if unicode else ">"
        self.more, self.dot = ("…", "·") if unicode else ("...", "-")
        self.spinner = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if unicode else "|/-\\"


class Screen:
    """`live`: whether rows can be drawn again here. Elsewhere only what is finished is shown."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal and not console.is_dumb_terminal
        self._unicode = console.encoding.lower().startswith("utf")
        self.marks = Marks(unicode=self._unicode)
        self._widths: list[int] = []
        self._held: list[Row] | None = None
        self._hidden = False

    @property
    def width(self) -> int:
        """For rows that are drawn again: one less than there is, since a full row may wrap or not."""
        return max(10, self.console.width - 1)

    @property
    def rows_max(self) -> int:
        return max(1, min(LIVE_ROWS_MAX, self.console.height - 2))

    def print(self, *lines: str | Text) -> None:
        """Lines of plain words, wrapped where they are long."""
        rows: list[Row] = []
        for line in lines:
            text = Text(line) if isinstance(line, str) else line
            rows += self.console.render_lines(text, pad=False) if text.plain else [[]]
        self.print_rows(rows)

    def print_cut(self, *lines: Text) -> None:
        """Lines that are cut where they are too long."""
        self.print_rows([self.cut(line) for line in lines])

    def cut(self, line: Text) -> Row:
        """As one row, shortened."""
        line = line.copy()
        line.expand_tabs(4)
        line.truncate(self.width, overflow="ellipsis")
        return [segment for segment in line.render(self.console) if segment.text != "\n"]

    def print_rows(self, rows: Sequence[Row]) -> None:
        """Rows that stay."""
        if self._held is not None:
            self._held += rows
        elif rows:
            self._write(self._erased() + self._ansi([*row, Segment.line()] for row in rows))

    def draw(self, rows: Sequence[Row]) -> None:
        """Rows in the place of those that were drawn before."""
        if not self.live or self._held is not None:
            return
        rows = [_cropped(row, self.width) for row in rows[-self.rows_max :]]
        text = self._erased()
        if not self._hidden:
            text, self._hidden = text + HIDE_CURSOR, True
        # The cursor stays at the end of the last row: a newline there would scroll the screen.
        parts = [row if number == len(rows) - 1 else [*row, Segment.line()] for number, row in enumerate(rows)]
        self._widths = [sum(segment.cell_length for segment in row) for row in rows]
        self._write(text + self._ansi(parts))

    def clear(self) -> None:
        """Without rows to be drawn, and with a cursor."""
        text = self._erased()
        if self._hidden:
            text, self._hidden = text + SHOW_CURSOR, False
        if text:
            self._write(text)

    def pause(self) -> None:
        """Somebody else has the terminal: what is printed waits."""
        self.clear()
        self._held = []

    def resume(self) -> None:
        rows, self._held = self._held, None
        self.print_rows(rows or [])

    def ring(self) -> None:
        if self.live:
            self._write(BELL)

    def _erased(self) -> str:
        """What erases the drawn rows, and leaves the cursor where the first of them began."""
        if not self._widths:
            return ""
        width = max(1, self.console.width)
        up = sum(max(1, -(-cells // width)) for cells in self._widths) - 1
        self._widths = []
        # Row by row: tmux takes "erase all below" on its first row for "clear", and keeps a copy of what was there.
        return "\r" + ERASE_ROW + (UP + ERASE_ROW) * up

    def _ansi(self, rows: Iterable[Row]) -> str:
        with self.console.capture() as capture:
            self.console.print(Segments([segment for row in rows for segment in row]), end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        if not self._unicode:  # what it can't show has one column, not an escape of several
            text = text.encode(self.console.encoding, "replace").decode(self.console.encoding)
        self.console.file.write(text)
        self.console.file.flush()


def _cropped(row: Row, width: int) -> Row:
    return list(Segment.adjust_line_length(row, width, pad=False))


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of parts, some with a style."""
    return Text.assemble(*parts)


def make_console(file: Any = None) -> Console:
    """On a terminal colours, unless NO_COLOR says none; elsewhere none at all."""
    from rich.theme import Theme

    console = Console(file=file, highlight=False, markup=False, emoji=False, theme=Theme(THEME))
    if console.is_dumb_terminal:  # rich takes 80 columns for granted there
        console.width, console.height = shutil.get_terminal_size()
    return console


THEME = {
    "markdown.h1": "bold underline",
    "markdown.h2": "bold underline",
    "markdown.h3": "bold",
    "markdown.h4": "bold",
    "markdown.h5": "bold",
    "markdown.h6": "bold",
    "markdown.code": "cyan",
    "markdown.code_block": "none",
    "markdown.item.number": "bold",
    "markdown.block_quote": "dim",
    "markdown.hr": "dim",
    "markdown.link": "underline",
    "markdown.link_url": "blue",
    "markdown.table.border": "dim",
    "markdown.table.header": "bold",
}
