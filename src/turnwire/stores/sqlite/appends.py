"""What the appends of one group become in SQL: a few statements, whatever their number.

The fence comes first, one UPDATE for all; what it lets through is inserted, one INSERT for all. SQLite hands the
interpreter lock over once a statement and row, so few statements are also what keeps the event loop running.
"""

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any

from turnwire.seams.store import Append, Appended
from turnwire.stores.common import batches, ends_uncancelled, explain
from turnwire.stores.rows import encode_usage
from turnwire.stores.segments import checksum
from turnwire.stores.sqlite.rows import maybe_text

ROWS_MAX = 256
"""Rows in a statement. They are padded to a power of two, so that there are nine texts of each to prepare."""


def write_appends(db: sqlite3.Connection, appends: Sequence[Append], now: float) -> list[Appended]:
    """Write what the fence lets through, in the transaction that is open; what became of each, in their order."""
    results: dict[int, Appended] = {}
    for batch in batches(appends, ROWS_MAX):
        passed = _fence(db, batch)
        if passed:
            _insert_segments(db, [(n, batch[turn_id]) for turn_id, n in passed.items()])
            _write_rest(db, passed, batch, now)
        for turn_id, append in batch.items():
            results[id(append)] = Appended.WRITTEN if turn_id in passed else _explain(db, append)
    return [results[id(append)] for append in appends]


_FENCE_ONE = """
UPDATE turns SET last_seq = ?4
WHERE id = ?1 AND epoch = ?2 AND last_seq = ?3 AND ended_at IS NULL AND NOT (?5 AND cancel_requested)
RETURNING id, n
"""


@cache
def fence_sql(rows: int) -> str:
    """The fence of so many appends: five values a row."""
    if rows == 1:
        return _FENCE_ONE
    return f"""
WITH v (id, epoch, before, last, must_not_be_cancelled) AS (VALUES {",".join(["(?,?,?,?,?)"] * rows)})
UPDATE turns SET last_seq = v.last FROM v
WHERE turns.id = v.id AND turns.epoch = v.epoch AND turns.last_seq = v.before AND turns.ended_at IS NULL
  AND NOT (v.must_not_be_cancelled AND turns.cancel_requested)
RETURNING id, n
"""


def _fence(db: sqlite3.Connection, batch: dict[str, Append]) -> dict[str, int]:
    """Move `last_seq` of every turn that its append may follow: the numbers of those turns by their ids."""
    values: list[Any] = []
    for append in batch.values():
        values += (append.turn_id, append.epoch, append.first_seq - 1, append.last_seq, ends_uncancelled(append))
    rows = _padded(values, len(batch), 5)
    return dict(db.execute(fence_sql(rows), values).fetchall())


@cache
def _insert_sql(rows: int) -> str:
    if rows == 1:
        return "INSERT INTO segments (turn, first_seq, last_seq, checksum, frames) VALUES (?,?,?,?,?)"
    return f"""
INSERT INTO segments (turn, first_seq, last_seq, checksum, frames)
SELECT * FROM (VALUES {",".join(["(?,?,?,?,?)"] * rows)}) WHERE column1 IS NOT NULL
"""


def _insert_segments(db: sqlite3.Connection, passed: list[tuple[int, Append]]) -> None:
    values: list[Any] = []
    for n, append in passed:
        first, last, frames = append.first_seq, append.last_seq, append.frames
        values += (n, first, last, checksum(n, first, last, frames), frames)
    rows = _padded(values, len(passed), 5)
    db.execute(_insert_sql(rows), values)


def _padded(values: list[Any], rows: int, columns: int) -> int:
    """Fill `values` up with rows of nulls; how many rows there are then."""
    padded = 1 << (rows - 1).bit_length()
    values += [None] * ((padded - rows) * columns)
    return padded


_HISTORY = "INSERT INTO history (session, turn, kind, format, data) SELECT session, n, ?, ?, ? FROM turns WHERE n = ?"
_REQUEST = "INSERT INTO calls (turn, id, kind) VALUES (?, ?, ?)"
_CHANGES = "UPDATE turns SET usage = coalesce(?, usage), pending_calls = coalesce(?, pending_calls) WHERE n = ?"
_ENDING = "UPDATE turns SET status = ?, ended_at = ?, usage = ?, error = ?, pending_calls = 0 WHERE n = ?"
_CONTENT = "UPDATE turn_bodies SET content = ? WHERE turn = ?"


def _write_rest(db: sqlite3.Connection, passed: dict[str, int], batch: dict[str, Append], now: float) -> None:
    """What few appends have beside their frames: history, changes, an ending."""
    history: list[Any] = []
    changes: list[Any] = []
    endings: list[Any] = []
    contents: list[Any] = []
    requests: list[Any] = []
    for turn_id, n in passed.items():
        append = batch[turn_id]
        if append.history:
            history += [(entry.kind, entry.format, entry.data, n) for entry in append.history]
        if append.requests:
            requests += [(n, request.call_id, request.kind) for request in append.requests]
        if append.ending is not None:
            end = append.ending
            endings.append((end.status, now, encode_usage(end.usage), maybe_text(end.error), n))
            contents.append((end.content, n))
        elif append.usage is not None or append.pending_calls is not None:
            changes.append((None if append.usage is None else encode_usage(append.usage), append.pending_calls, n))
    statements = {_HISTORY: history, _CHANGES: changes, _ENDING: endings, _CONTENT: contents, _REQUEST: requests}
    for sql, rows in statements.items():
        if rows:
            db.executemany(sql, rows)


_STATE = "SELECT epoch, last_seq, ended_at IS NOT NULL, cancel_requested FROM turns WHERE id = ?"


def _explain(db: sqlite3.Connection, append: Append) -> Appended:
    return explain(append, db.execute(_STATE, (append.turn_id,)).fetchone())
