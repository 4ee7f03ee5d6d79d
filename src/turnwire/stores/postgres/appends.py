"""What the appends of one group become in SQL: a few statements, whatever their number, each over arrays.

The fence comes first, one UPDATE for all; what it lets through is inserted, one INSERT for all.
"""

from collections.abc import Sequence
from typing import Any

from turnwire.seams.store import Append, Appended
from turnwire.stores.common import batches, ends_uncancelled, explain
from turnwire.stores.postgres.connection import STAND_BEHIND, Connection
from turnwire.stores.postgres.rows import maybe_text, to_text
from turnwire.stores.rows import encode_usage
from turnwire.stores.segments import checksum

ROWS_MAX = 1_000
"""Rows in a statement: some 100 KB of them, as appends are small where they are many."""


async def write_appends(db: Connection, appends: Sequence[Append], now: float | None) -> list[Appended]:
    """Write what the fence lets through, in the transaction that is open; what became of each, in their order."""
    results: dict[int, Appended] = {}
    for batch in batches(appends, ROWS_MAX):
        passed = await _fence(db, batch)
        if passed:
            await _insert_segments(db, [(n, batch[turn_id]) for turn_id, n in passed.items()])
            await _write_rest(db, [(n, batch[turn_id]) for turn_id, n in passed.items()], now)
        states = await _states(db, [turn_id for turn_id in batch if turn_id not in passed])
        for turn_id, append in batch.items():
            results[id(append)] = Appended.WRITTEN if turn_id in passed else explain(append, states.get(turn_id))
        if any(results[id(batch[turn_id])] is Appended.WRITTEN for turn_id in states):
            await db.execute(STAND_BEHIND)
    return [results[id(append)] for append in appends]


# A turn that runs is told by its status, which says the same as `ended_at IS NULL` (there is a CHECK): by that, the
# planner would rather go through all running turns, by their index, than look each up by its id.
FENCE = """
UPDATE turns SET last_seq = v.last
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[])
     AS v (id, epoch, before, last, ends_uncancelled)
WHERE turns.id = v.id AND turns.epoch = v.epoch AND turns.last_seq = v.before
  AND turns.status = 'in_progress' AND NOT (v.ends_uncancelled AND turns.cancel_requested)
RETURNING turns.id, turns.n
"""


async def _fence(db: Connection, batch: dict[str, Append]) -> dict[str, int]:
    """Move `last_seq` of every turn that its append may follow: the numbers of those turns by their ids."""
    appends = batch.values()
    passed: list[Any] = await db.fetch(
        FENCE,
        list(batch),
        [append.epoch for append in appends],
        [append.first_seq - 1 for append in appends],
        [append.last_seq for append in appends],
        [ends_uncancelled(append) for append in appends],
    )
    return dict(passed)


_SEGMENTS = """
INSERT INTO segments (turn, first_seq, last_seq, checksum, frames)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
"""


async def _insert_segments(db: Connection, passed: list[tuple[int, Append]]) -> None:
    rows = [
        (n, append.first_seq, append.last_seq, checksum(n, append.first_seq, append.last_seq, append.frames))
        for n, append in passed
    ]
    await db.execute(_SEGMENTS, *_columns(rows), [append.frames for _, append in passed])


_HISTORY = """
INSERT INTO history (session, turn, kind, format, data)
SELECT turns.session, turns.n, v.kind, v.format, v.data
FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::bytea[]) WITH ORDINALITY AS v (turn, kind, format, data, place)
JOIN turns ON turns.n = v.turn ORDER BY v.place
"""
_REQUESTS = "INSERT INTO calls (turn, id, kind) SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])"
_CHANGES = """
UPDATE turns SET usage = coalesce(v.usage, turns.usage), pending_calls = coalesce(v.pending_calls, turns.pending_calls)
FROM unnest($1::bigint[], $2::bytea[], $3::integer[]) AS v (turn, usage, pending_calls) WHERE turns.n = v.turn
"""
_CONTENT = """
UPDATE turn_bodies SET content = v.content
FROM unnest($1::bigint[], $2::bytea[]) AS v (turn, content) WHERE turn_bodies.turn = v.turn
"""
_ENDING = """
UPDATE turns SET status = v.status, ended_at = moment($5), usage = v.usage, error = v.error, pending_calls = 0
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[]) AS v (turn, status, usage, error) WHERE turns.n = v.turn
"""


async def _write_rest(db: Connection, passed: list[tuple[int, Append]], now: float | None) -> None:
    """What few appends have beside their frames: history, changes, an ending."""
    history: list[Any] = []
    requests: list[Any] = []
    changes: list[Any] = []
    contents: list[Any] = []
    endings: list[Any] = []
    for n, append in passed:
        history += [(n, entry.kind, entry.format, entry.data) for entry in append.history]
        requests += [(n, to_text(request.call_id), request.kind) for request in append.requests]
        end = append.ending
        if end is not None:
            contents.append((n, end.content))
            endings.append((n, end.status, encode_usage(end.usage), maybe_text(end.error)))
        elif append.usage is not None or append.pending_calls is not None:
            changes.append((n, None if append.usage is None else encode_usage(append.usage), append.pending_calls))
    statements = {_HISTORY: history, _REQUESTS: requests, _CHANGES: changes, _CONTENT: contents}
    for sql, rows in statements.items():
        if rows:
            await db.execute(sql, *_columns(rows))
    if endings:
        await db.execute(_ENDING, *_columns(endings), now)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


_STATES = "SELECT id, epoch, last_seq, ended_at IS NOT NULL, cancel_requested FROM turns WHERE id = ANY($1::text[])"


async def _states(db: Connection, turn_ids: list[str]) -> dict[str, Sequence[Any]]:
    if not turn_ids:
        return {}
    return {row[0]: row[1:] for row in await db.fetch(_STATES, turn_ids)}
