"""Calls that wait for their caller. Queries on a connection, in the transaction of whoever calls."""

import sqlite3
from collections.abc import Sequence

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import CallAnswer
from turnwire.stores.common import check_answer
from turnwire.stores.sqlite import sessions
from turnwire.stores.sqlite.rows import to_text

_FIND = """
SELECT c.turn, t.id, c.kind, c.given_up OR t.ended_at IS NOT NULL, c.answer
FROM calls c JOIN turns t ON t.n = c.turn WHERE c.id = ? AND t.session = ?
"""


def answer_calls(
    db: sqlite3.Connection, _: float, tenant: str, session_id: str, answers: Sequence[CallAnswer]
) -> list[str]:
    session = sessions.get_row(db, tenant, session_id)[0]
    turns: dict[str, None] = {}
    for answer in answers:
        row = db.execute(_FIND, (to_text(answer.call_id), session)).fetchone()
        if row is None:
            raise NotFound(f"No call {answer.call_id} was requested in this session.")
        turn, turn_id, kind, closed, before = row
        if check_answer(answer, kind=kind, closed=bool(closed), before=before):
            db.execute(
                "UPDATE calls SET answer = ? WHERE turn = ? AND id = ?", (answer.answer, turn, to_text(answer.call_id))
            )
        if not closed:
            turns[turn_id] = None
    return list(turns)


def call_answers(db: sqlite3.Connection, turn_id: str) -> dict[str, CallAnswer | None]:
    rows = db.execute(
        "SELECT c.id, c.kind, c.answer FROM calls c JOIN turns t ON t.n = c.turn WHERE t.id = ?", (to_text(turn_id),)
    )
    return {id_: None if answer is None else CallAnswer(id_, kind, answer) for id_, kind, answer in rows}


def give_up_calls(db: sqlite3.Connection, _: float, turn_id: str, call_ids: Sequence[str]) -> dict[str, CallAnswer]:
    answered: dict[str, CallAnswer] = {}
    for id_ in call_ids:
        row = db.execute(
            "UPDATE calls SET given_up = (answer IS NULL)"
            " WHERE id = ? AND turn = (SELECT n FROM turns WHERE id = ?) RETURNING kind, answer",
            (to_text(id_), to_text(turn_id)),
        ).fetchall()
        for kind, answer in row:
            if answer is not None:
                answered[id_] = CallAnswer(id_, kind, answer)
    return answered
