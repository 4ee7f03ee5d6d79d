"""Turns: begin, look up, cancel, leases. Queries on a connection, in the transaction of whoever calls."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from turnwire.protocol.errors import IdempotencyMismatch, InvalidRequest, NotFound, SessionBusy
from turnwire.protocol.events import Usage
from turnwire.seams.store import Begun, HistoryEntry, NewTurn, Turn
from turnwire.stores.common import IDEMPOTENCY_VALID_S, UNKNOWN_CURSOR, new_turn
from turnwire.stores.rows import TURN, encode_usage
from turnwire.stores.segments import checksum
from turnwire.stores.sqlite import sessions
from turnwire.stores.sqlite.rows import from_text, maybe_text, session_of, to_text, turn_of

IDS_MAX = 256
"""Ids in one statement; padded to this, so that there is one text to prepare."""


def begin(db: sqlite3.Connection, now: float, new: NewTurn) -> Begun:
    """See the seam. What refuses the call comes before what is written."""
    if new.idempotency_key is not None:
        replayed = _replay(db, now, new)
        if replayed is not None:
            return replayed
    if new.refusal is not None:
        raise new.refusal
    session = sessions.get_row(db, new.tenant, new.session_id)
    claimed = db.execute(
        "INSERT INTO turns (id, session, created_at, owner, lease_until) VALUES (?,?,?,?,?)"
        " ON CONFLICT DO NOTHING RETURNING n",
        (to_text(new.id), session[0], now, to_text(new.owner), now + new.lease_s),
    ).fetchall()
    if not claimed:
        return _begun_before(db, new)
    n = claimed[0][0]
    _write_begin(db, now, new, n, session[0])
    return Begun(new_turn(new, now), session_of((*session[:7], new.id, now, None, 0)))


def _write_begin(db: sqlite3.Connection, now: float, new: NewTurn, n: int, session: int) -> None:
    db.execute(
        "INSERT INTO turn_bodies (turn, message_id, message, model, settings) VALUES (?,?,?,?,?)",
        (n, to_text(new.message_id), new.message, maybe_text(new.model), new.settings),
    )
    db.execute(
        "INSERT INTO segments (turn, first_seq, last_seq, checksum, frames) VALUES (?,?,?,?,?)",
        (n, 0, 0, checksum(n, 0, 0, new.frames), new.frames),
    )
    entry = new.history
    db.execute(
        "INSERT INTO history (session, turn, kind, format, data) VALUES (?,?,?,?,?)",
        (session, n, entry.kind, entry.format, entry.data),
    )
    if new.idempotency_key is not None:
        db.execute(
            "INSERT OR REPLACE INTO idempotency_keys (tenant, key, fingerprint, session_id, turn_id, created_at)"
            " VALUES (?,?,?,?,?,?)",
            (
                to_text(new.tenant),
                to_text(new.idempotency_key),
                new.fingerprint,
                to_text(new.session_id),
                to_text(new.id),
                now,
            ),
        )


_KEY = """
SELECT fingerprint, session_id, turn_id FROM idempotency_keys WHERE tenant = ? AND key = ? AND created_at > ?
"""


def _replay(db: sqlite3.Connection, now: float, new: NewTurn) -> Begun | None:
    """The turn that this idempotency key began, when it began one."""
    assert new.idempotency_key is not None
    values = (to_text(new.tenant), to_text(new.idempotency_key), now - IDEMPOTENCY_VALID_S)
    row = db.execute(_KEY, values).fetchone()
    if row is None:
        return None
    fingerprint, session_id, turn_id = row
    if fingerprint != new.fingerprint or from_text(session_id) != new.session_id:
        raise IdempotencyMismatch
    session = sessions.get(db, new.tenant, new.session_id)
    return Begun(get(db, new.tenant, new.session_id, from_text(turn_id)), session, replayed=True)


def _begun_before(db: sqlite3.Connection, new: NewTurn) -> Begun:
    """The index let no turn in: this very one was begun by an earlier try, or another one runs."""
    row = db.execute(f"{TURN} WHERE t.id = ?", (to_text(new.id),)).fetchone()
    if row is not None:
        turn = turn_of(row)
        if (turn.session_id, turn.message_id) != (new.session_id, new.message_id):
            raise InvalidRequest(f"There is a response {new.id} already.")
        return Begun(turn, sessions.get(db, new.tenant, new.session_id))
    (running,) = db.execute(
        "SELECT t.id FROM turns AS t JOIN sessions AS s ON s.n = t.session WHERE s.id = ? AND t.ended_at IS NULL",
        (to_text(new.session_id),),
    ).fetchone()
    raise SessionBusy(response_id=running)


_MINE = "s.id = :session AND s.tenant = :tenant AND s.deleted_at IS NULL"


def get(db: sqlite3.Connection, tenant: str, session_id: str, turn_id: str) -> Turn:
    row = db.execute(
        f"{TURN} WHERE t.id = :turn AND {_MINE}",
        {"turn": to_text(turn_id), "session": to_text(session_id), "tenant": to_text(tenant)},
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no response {turn_id} in the session {session_id}.")
    return turn_of(row)


def list_(
    db: sqlite3.Connection, tenant: str, session_id: str, after: str | None, limit: int, newest_first: bool
) -> list[Turn]:
    session = sessions.get_row(db, tenant, session_id)[0]
    sql = f"{TURN} WHERE t.session = :session"
    values: dict[str, Any] = {"session": session, "limit": limit}
    if after is not None:
        place = db.execute("SELECT n FROM turns WHERE id = ? AND session = ?", (to_text(after), session)).fetchone()
        if place is None:
            raise InvalidRequest(UNKNOWN_CURSOR)
        values["n"] = place[0]
        sql += f" AND t.n {'<' if newest_first else '>'} :n"
    sql += f" ORDER BY t.n {'DESC' if newest_first else 'ASC'} LIMIT :limit"
    return [turn_of(row) for row in db.execute(sql, values)]


def request_cancel(db: sqlite3.Connection, _: float, tenant: str, session_id: str, turn_id: str) -> Turn:
    get(db, tenant, session_id, turn_id)
    db.execute("UPDATE turns SET cancel_requested = 1 WHERE id = ? AND ended_at IS NULL", (to_text(turn_id),))
    return get(db, tenant, session_id, turn_id)


# Leases. A running turn is found by the index of the running ones.


_SUMMARY = """
INSERT INTO history (session, turn, kind, upto, format, data) SELECT session, n, ?, ?, ?, ? FROM turns WHERE id = ?
"""


def keep_summary(
    db: sqlite3.Connection, _: float, turn_id: str, epoch: int, summary: HistoryEntry, usage: Usage
) -> bool:
    fence = "UPDATE turns SET usage = ? WHERE id = ? AND epoch = ? AND ended_at IS NULL"
    if db.execute(fence, (encode_usage(usage), turn_id, epoch)).rowcount == 0:
        return False
    db.execute(_SUMMARY, (summary.kind, summary.upto, summary.format, summary.data, turn_id))
    return True


def cancel_requests(db: sqlite3.Connection, owner: str) -> list[str]:
    rows = db.execute(
        "SELECT id FROM turns WHERE ended_at IS NULL AND cancel_requested AND owner = ? ORDER BY n", (to_text(owner),)
    )
    return [id_ for (id_,) in rows]


def take_over(db: sqlite3.Connection, now: float, owner: str, lease_s: float, everything: bool) -> list[Turn]:
    taken = db.execute(
        """
        UPDATE turns SET epoch = epoch + 1, owner = ?, lease_until = ?, recoveries = recoveries + (owner <> '')
        WHERE ended_at IS NULL AND (? OR lease_until <= ?) RETURNING n
        """,
        (to_text(owner), now + lease_s, everything, now),
    ).fetchall()
    return [turn_of(db.execute(f"{TURN} WHERE t.n = ?", n).fetchone()) for n in sorted(taken)]


_RENEW = f"""
UPDATE turns SET lease_until = ? WHERE owner = ? AND ended_at IS NULL AND id IN ({",".join("?" * IDS_MAX)})
RETURNING id
"""


def renew_leases(db: sqlite3.Connection, now: float, owner: str, turn_ids: Sequence[str], lease_s: float) -> set[str]:
    lost = set(turn_ids)
    for start in range(0, len(turn_ids), IDS_MAX):
        ids = [to_text(id_) for id_ in turn_ids[start : start + IDS_MAX]]
        values = [now + lease_s, to_text(owner), *ids, *[None] * (IDS_MAX - len(ids))]
        lost.difference_update(id_ for (id_,) in db.execute(_RENEW, values).fetchall())
    return lost


_RELEASE = f"""
UPDATE turns SET owner = '', lease_until = 0
WHERE owner = ? AND ended_at IS NULL AND id IN ({",".join("?" * IDS_MAX)})
"""


def release_turns(db: sqlite3.Connection, _: float, owner: str, turn_ids: Sequence[str]) -> None:
    for start in range(0, len(turn_ids), IDS_MAX):
        ids = [to_text(id_) for id_ in turn_ids[start : start + IDS_MAX]]
        db.execute(_RELEASE, [to_text(owner), *ids, *[None] * (IDS_MAX - len(ids))])
