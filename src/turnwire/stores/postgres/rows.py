"""Structs to rows and back, as PostgreSQL holds them."""

from typing import Any

from turnwire.seams.store import Key, Session, Turn
from turnwire.stores import rows
from turnwire.stores.rows import SESSION_COLUMNS, Escape

Row = tuple[Any, ...]
"""A row of an answer: asyncpg's Record is one in all that we do with it."""

ESCAPE = Escape("\x1a", refused="\0")
"""The control character SUBSTITUTE, which nobody types."""

to_text, from_text, maybe_text = ESCAPE.to_text, ESCAPE.from_text, ESCAPE.maybe_text

SESSION = f"""
SELECT {SESSION_COLUMNS}
FROM sessions AS s LEFT JOIN LATERAL (SELECT * FROM turns WHERE session = s.n ORDER BY n DESC LIMIT 1) AS t ON true
"""


def session_of(row: Row) -> Session:
    return rows.session_of(row, ESCAPE)


def turn_of(row: Row) -> Turn:
    return rows.turn_of(row, ESCAPE)


def key_of(row: Row) -> Key:
    return rows.key_of(row, ESCAPE)
