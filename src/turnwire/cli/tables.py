"""On stdout: tables, with columns as wide as they need to be, never wrapped, the same on a terminal and in a pipe; and
lines of JSON."""

import sys
from typing import Any

from rich.cells import cell_len

from turnwire.chat.plain import json_line, plain


def print_table(rows: list[tuple[str, ...]]) -> None:
    """The first row is the head. What would control a terminal is left out."""
    rows = [tuple(plain(cell).replace("\n", " ") for cell in row) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_json(value: Any) -> None:
    """On one line."""
    print(json_line(value, getattr(sys.stdout, "encoding", None) or "utf-8"))
