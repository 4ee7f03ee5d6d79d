"""Structs to rows and back, as SQLite holds them."""

from typing import Any

from turnwire.seams.store import Key, Session, Turn
from turnwire.stores import rows
from turnwire.stores.rows import SESSION_COLUMNS, Escape

ESCAPE = Escape("\0")
to_text, from_text, maybe_text = ESCAPE.to_text, ESCAPE.from_text, ESCAPE.maybe_text

SESSION = f"""
SELECT {SESSION_COLUMNS}
FROM sessions AS s LEFT JOIN turns AS t ON t.n = (SELECT max(n) FROM turns WHERE session = s.n)
"""


def session_of(row: tuple[Any, ...]) -> Session:
    return rows.session_of(row, ESCAPE)


def turn_of(row: tuple[Any, ...]) -> Turn:
    return rows.turn_of(row, ESCAPE)


def key_of(row: tuple[Any, ...]) -> Key:
    return rows.key_of(row, ESCAPE)
