"""Tables on stdout: columns as wide as they need to be, never wrapped, the same on a terminal and in a pipe."""

from rich.cells import cell_len


def print_table(rows: list[tuple[str, ...]]) -> None:
    """The first row is the head."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
