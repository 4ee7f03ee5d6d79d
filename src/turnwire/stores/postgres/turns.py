"""Turns: begin, look up, cancel, leases. Queries on a connection, in the transaction of whoever calls."""

from collections.abc import Sequence
from typing import Any

from turnwire.protocol.errors import IdempotencyMismatch, InvalidRequest, NotFound, SessionBusy
from turnwire.protocol.events import Usage
from turnwire.seams.store import Begun, HistoryEntry, NewTurn, Turn
from turnwire.stores.common import IDEMPOTENCY_VALID_S, UNKNOWN_CURSOR, new_turn
from turnwire.stores.postgres import sessions
from turnwire.stores.postgres.connection import Connection, changed
from turnwire.stores.postgres.rows import Row, from_text, maybe_text, session_of, to_text, turn_of
from turnwire.stores.rows import TURN, encode_usage
from turnwire.stores.segments import checksum


async def begin(db: Connection, new: NewTurn, now: float | None) -> Begun:
    """See the seam. It may be run again after an acknowledgement that was lost: it then finds itself, by its ids."""
    if new.idempotency_key is not None:
        begun = await _begun_under_key(db, new, now)
        if begun is not None:
            return begun
    if new.refusal is not None:
        raise new.refusal
    # Whoever begins a turn in this session comes one after another, and none while it is deleted.
    session = await sessions.get_row(db, new.tenant, new.session_id, lock=True)
    if new.idempotency_key is not None and not await _keep_key(db, new, now):
        begun = await _begun_under_key(db, new, now)
        assert begun is not None, "a key that could not be kept is there"
        return begun
    claimed = await _claim(db, new, session[0], now)
    if claimed is None:
        return await _begun_before(db, new)
    n, created_at = claimed
    await _write_begin(db, new, n, session[0])
    return Begun(new_turn(new, created_at), session_of((*tuple(session)[:7], new.id, created_at, None, 0)))


_CLAIM = """
INSERT INTO turns (id, session, created_at, owner, lease_until)
SELECT $1, $2, now, $3, now + $4 FROM moment($5) AS now
ON CONFLICT DO NOTHING RETURNING n, created_at
"""


async def _claim(db: Connection, new: NewTurn, session: int, now: float | None) -> Row | None:
    """The number and the time of the new turn; None: the index lets no turn in."""
    return await db.fetchrow(_CLAIM, to_text(new.id), session, to_text(new.owner), new.lease_s, now)


_BEGIN = """
WITH body AS (
    INSERT INTO turn_bodies (turn, message_id, message, model, settings) VALUES ($1, $3, $4, $5, $6)
), segment AS (
    INSERT INTO segments (turn, first_seq, last_seq, checksum, frames) VALUES ($1, 0, 0, $7, $8)
)
INSERT INTO history (session, turn, kind, format, data) VALUES ($2, $1, $9, $10, $11)
"""


async def _write_begin(db: Connection, new: NewTurn, n: int, session: int) -> None:
    await db.execute(
        _BEGIN,
        n,
        session,
        to_text(new.message_id),
        new.message,
        maybe_text(new.model),
        new.settings,
        checksum(n, 0, 0, new.frames),
        new.frames,
        new.history.kind,
        new.history.format,
        new.history.data,
    )


_KEY = """
SELECT fingerprint, session_id, turn_id FROM idempotency_keys
WHERE tenant = $1 AND key = $2 AND created_at > moment($4) - $3::float8
"""
_KEEP_KEY = """
INSERT INTO idempotency_keys AS kept (tenant, key, fingerprint, session_id, turn_id, created_at)
VALUES ($1, $2, $4, $5, $6, moment($7))
ON CONFLICT (tenant, key) DO UPDATE
SET fingerprint = excluded.fingerprint, session_id = excluded.session_id, turn_id = excluded.turn_id,
    created_at = excluded.created_at
WHERE kept.created_at <= excluded.created_at - $3::float8
"""


async def _begun_under_key(db: Connection, new: NewTurn, now: float | None) -> Begun | None:
    """The turn that this idempotency key began, when it began one."""
    assert new.idempotency_key is not None
    row = await db.fetchrow(_KEY, to_text(new.tenant), to_text(new.idempotency_key), IDEMPOTENCY_VALID_S, now)
    if row is None:
        return None
    fingerprint, session_id, turn_id = row
    if fingerprint != new.fingerprint or from_text(session_id) != new.session_id:
        raise IdempotencyMismatch
    session = await sessions.get(db, new.tenant, new.session_id)
    turn = await get(db, new.tenant, new.session_id, from_text(turn_id))
    return Begun(turn, session, replayed=turn.id != new.id)


async def _keep_key(db: Connection, new: NewTurn, now: float | None) -> bool:
    """Keep the key with what it begins; False when it is there, kept by a message that came at the same time."""
    assert new.idempotency_key is not None
    tag = await db.execute(
        _KEEP_KEY,
        to_text(new.tenant),
        to_text(new.idempotency_key),
        IDEMPOTENCY_VALID_S,
        new.fingerprint,
        to_text(new.session_id),
        to_text(new.id),
        now,
    )
    return changed(tag) == 1


async def _begun_before(db: Connection, new: NewTurn) -> Begun:
    """The index let no turn in: this very one was begun by an earlier try, or another one runs."""
    row = await db.fetchrow(f"{TURN} WHERE t.id = $1", to_text(new.id))
    if row is not None:
        turn = turn_of(row)
        if (turn.session_id, turn.message_id) != (new.session_id, new.message_id):
            raise InvalidRequest(f"There is a response {new.id} already.")
        return Begun(turn, await sessions.get(db, new.tenant, new.session_id))
    # The one that kept this out may have ended a moment ago: it is the latest all the same.
    session = await sessions.get(db, new.tenant, new.session_id)
    raise SessionBusy(response_id=session.response_id)


async def get(db: Connection, tenant: str, session_id: str, turn_id: str) -> Turn:
    row = await db.fetchrow(
        f"{TURN} WHERE t.id = $1 AND s.id = $2 AND s.tenant = $3 AND s.deleted_at IS NULL",
        to_text(turn_id),
        to_text(session_id),
        to_text(tenant),
    )
    if row is None:
        raise NotFound(f"There is no response {turn_id} in the session {session_id}.")
    return turn_of(row)


async def list_(
    db: Connection, tenant: str, session_id: str, after: str | None, limit: int, newest_first: bool
) -> list[Turn]:
    session = (await sessions.get_row(db, tenant, session_id))[0]
    sql = f"{TURN} WHERE t.session = $1"
    values: list[Any] = [session, limit]
    if after is not None:
        n = await db.fetchval("SELECT n FROM turns WHERE id = $1 AND session = $2", to_text(after), session)
        if n is None:
            raise InvalidRequest(UNKNOWN_CURSOR)
        values.append(n)
        sql += f" AND t.n {'<' if newest_first else '>'} $3"
    sql += f" ORDER BY t.n {'DESC' if newest_first else 'ASC'} LIMIT $2"
    return [turn_of(row) for row in await db.fetch(sql, *values)]


async def request_cancel(db: Connection, tenant: str, session_id: str, turn_id: str) -> Turn:
    await get(db, tenant, session_id, turn_id)
    await db.execute("UPDATE turns SET cancel_requested = true WHERE id = $1 AND ended_at IS NULL", to_text(turn_id))
    return await get(db, tenant, session_id, turn_id)


_SUMMARY = """
INSERT INTO history (session, turn, kind, upto, format, data)
SELECT session, n, $2, $3, $4, $5 FROM turns WHERE id = $1
"""


async def keep_summary(db: Connection, turn_id: str, epoch: int, summary: HistoryEntry, usage: Usage) -> bool:
    fence = "UPDATE turns SET usage = $1 WHERE id = $2 AND epoch = $3 AND ended_at IS NULL"
    if not changed(await db.execute(fence, encode_usage(usage), to_text(turn_id), epoch)):
        return False
    await db.execute(_SUMMARY, to_text(turn_id), summary.kind, summary.upto, summary.format, summary.data)
    return True


async def cancel_requests(db: Connection, owner: str) -> list[str]:
    rows = await db.fetch(
        "SELECT id FROM turns WHERE ended_at IS NULL AND cancel_requested AND owner = $1 ORDER BY n", to_text(owner)
    )
    return [id_ for (id_,) in rows]


# Leases. They are written over the line, as appends are: see database.py.

_TAKE_OVER = """
UPDATE turns SET epoch = epoch + 1, owner = $1, lease_until = now + $2, recoveries = recoveries + (owner <> '')::integer
FROM moment($4) AS now
WHERE ended_at IS NULL AND ($3 OR lease_until <= now) RETURNING n
"""
_RENEW = """
UPDATE turns SET lease_until = now + $2 FROM moment($4) AS now
WHERE owner = $1 AND ended_at IS NULL AND id = ANY($3::text[]) RETURNING id
"""
_RELEASE = """
UPDATE turns SET owner = '', lease_until = 0 WHERE owner = $1 AND ended_at IS NULL AND id = ANY($2::text[])
"""


async def take_over(db: Connection, owner: str, lease_s: float, everything: bool, now: float | None) -> list[Turn]:
    taken = [n for (n,) in await db.fetch(_TAKE_OVER, to_text(owner), lease_s, everything, now)]
    return [turn_of(row) for row in await db.fetch(f"{TURN} WHERE t.n = ANY($1::bigint[]) ORDER BY t.n", taken)]


async def renew_leases(
    db: Connection, owner: str, turn_ids: Sequence[str], lease_s: float, now: float | None
) -> set[str]:
    renewed = await db.fetch(_RENEW, to_text(owner), lease_s, [to_text(id_) for id_ in turn_ids], now)
    return set(turn_ids) - {id_ for (id_,) in renewed}


async def release_turns(db: Connection, owner: str, turn_ids: Sequence[str]) -> None:
    await db.execute(_RELEASE, to_text(owner), [to_text(id_) for id_ in turn_ids])
