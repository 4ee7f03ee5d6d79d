"""Calls that wait for their caller. Queries on a connection, in the transaction of whoever calls."""

from collections.abc import Sequence
from typing import Any

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import CallAnswer
from turnwire.stores.common import check_answer
from turnwire.stores.postgres import sessions
from turnwire.stores.postgres.connection import Connection
from turnwire.stores.postgres.rows import Row, to_text

# Locked in one order, so that two who answer the same calls don't wait for each other.
_FIND = """
SELECT c.id, c.turn, t.id, c.kind, c.given_up OR t.ended_at IS NOT NULL, c.answer
FROM calls AS c JOIN turns AS t ON t.n = c.turn
WHERE c.id = ANY($1::text[]) AND t.session = $2 ORDER BY c.id, c.turn FOR UPDATE OF c
"""


async def answer_calls(db: Connection, tenant: str, session_id: str, answers: Sequence[CallAnswer]) -> list[str]:
    session = (await sessions.get_row(db, tenant, session_id))[0]
    found: dict[str, Row] = {}
    for id_, *rest in await db.fetch(_FIND, [to_text(answer.call_id) for answer in answers], session):
        found.setdefault(id_, tuple(rest))
    turns: dict[str, None] = {}
    kept: dict[tuple[int, str], bytes] = {}
    for answer in answers:
        id_ = to_text(answer.call_id)
        if id_ not in found:
            raise NotFound(f"No call {answer.call_id} was requested in this session.")
        turn, turn_id, kind, closed, stored = found[id_]
        if check_answer(answer, kind=kind, closed=closed, before=kept.get((turn, id_), stored)):
            kept[turn, id_] = answer.answer
        if not closed:
            turns[turn_id] = None
    await _keep(db, kept)
    return list(turns)


_KEEP = """
UPDATE calls SET answer = v.answer FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS v (turn, id, answer)
WHERE calls.turn = v.turn AND calls.id = v.id
"""


async def _keep(db: Connection, answers: dict[tuple[int, str], bytes]) -> None:
    if answers:
        turns, ids = zip(*answers, strict=True)
        await db.execute(_KEEP, turns, ids, list(answers.values()))


async def call_answers(db: Connection, turn_id: str) -> dict[str, CallAnswer | None]:
    rows: list[Any] = await db.fetch(
        "SELECT c.id, c.kind, c.answer FROM calls AS c JOIN turns AS t ON t.n = c.turn WHERE t.id = $1",
        to_text(turn_id),
    )
    return {id_: None if answer is None else CallAnswer(id_, kind, answer) for id_, kind, answer in rows}


_GIVE_UP = """
UPDATE calls SET given_up = (answer IS NULL)
WHERE id = $1 AND turn = (SELECT n FROM turns WHERE id = $2) RETURNING kind, answer
"""


async def give_up_calls(db: Connection, turn_id: str, call_ids: Sequence[str]) -> dict[str, CallAnswer]:
    answered: dict[str, CallAnswer] = {}
    for id_ in sorted(call_ids):
        row = await db.fetchrow(_GIVE_UP, to_text(id_), to_text(turn_id))
        if row is not None and row[1] is not None:
            answered[id_] = CallAnswer(id_, row[0], row[1])
    return answered
