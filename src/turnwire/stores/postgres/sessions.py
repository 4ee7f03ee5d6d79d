"""Sessions and access keys: queries on a connection, in the transaction of whoever calls."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from turnwire.protocol.errors import Conflict, InvalidRequest, NotFound
from turnwire.seams.store import SECRET_BYTES, Key, Session, SessionChanges
from turnwire.stores.common import UNKNOWN_CURSOR
from turnwire.stores.postgres.connection import Connection, changed
from turnwire.stores.postgres.rows import SESSION, Row, key_of, session_of, to_text
from turnwire.stores.rows import changed_session, encode_session_data

_ONE = f"{SESSION} WHERE s.id = $1 AND s.tenant = $2 AND s.deleted_at IS NULL"
_ONE_LOCKED = f"{_ONE} FOR NO KEY UPDATE OF s"


async def create(db: Connection, session: Session) -> None:
    tag = await db.execute(
        "INSERT INTO sessions (id, tenant, created_at, persistent, ttl, data) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT DO NOTHING",
        to_text(session.id),
        to_text(session.tenant),
        session.created_at,
        session.persistent,
        session.ttl,
        encode_session_data(session),
    )
    if not changed(tag):
        raise Conflict(f"There is a session {session.id} already.")


async def get_row(db: Connection, tenant: str, session_id: str, *, lock: bool = False) -> Row:
    """The row of SESSION of a session that is there and is the tenant's, else NotFound.

    `lock`: nobody else begins a turn in it, changes or deletes it until this transaction ends. Of its latest turn the
    row may then tell what was before the lock was had.
    """
    row = await db.fetchrow(_ONE_LOCKED if lock else _ONE, to_text(session_id), to_text(tenant))
    if row is None:
        raise NotFound(f"There is no session {session_id}.")
    return row


async def get(db: Connection, tenant: str, session_id: str) -> Session:
    return session_of(await get_row(db, tenant, session_id))


_PLACE = """
SELECT created_at, id FROM sessions WHERE id = $1 AND tenant = $2
UNION ALL SELECT created_at, id FROM gone_sessions WHERE id = $1 AND tenant = $2
"""
_RUNNING = "EXISTS (SELECT FROM turns WHERE session = s.n AND ended_at IS NULL)"


async def list_(db: Connection, tenant: str, busy: bool | None, after: str | None, limit: int) -> list[Session]:
    sql = f"{SESSION} WHERE s.tenant = $1 AND s.deleted_at IS NULL"
    values: list[Any] = [to_text(tenant), limit]
    if after is not None:
        place = await db.fetchrow(_PLACE, to_text(after), values[0])
        if place is None:
            raise InvalidRequest(UNKNOWN_CURSOR)
        values += place
        sql += " AND (s.created_at, s.id) < ($3, $4)"
    if busy is not None:
        sql += f" AND {'' if busy else 'NOT '}{_RUNNING}"
    sql += " ORDER BY s.created_at DESC, s.id DESC LIMIT $2"
    return [session_of(row) for row in await db.fetch(sql, *values)]


async def update(db: Connection, tenant: str, session_id: str, changes: SessionChanges) -> Session:
    row = await get_row(db, tenant, session_id, lock=True)
    ttl, data = changed_session(row[5], row[6], changes)
    await db.execute("UPDATE sessions SET ttl = $1, data = $2 WHERE n = $3", ttl, data, row[0])
    return await get(db, tenant, session_id)


async def delete(db: Connection, tenant: str, session_id: str, now: float | None) -> str | None:
    n = (await get_row(db, tenant, session_id, lock=True))[0]
    await db.execute("UPDATE sessions SET deleted_at = moment($1) WHERE n = $2", now, n)
    return await db.fetchval(
        "UPDATE turns SET cancel_requested = true WHERE session = $1 AND ended_at IS NULL RETURNING id", n
    )


# Many at once: what may go is found by a reader, and looked at again where it is deleted.

_LAST_ACTIVITY = """
coalesce((SELECT coalesce(ended_at, created_at) FROM turns WHERE session = s.n ORDER BY n DESC LIMIT 1), s.created_at)
"""
_LIVE_AND_IDLE = f"s.deleted_at IS NULL AND NOT {_RUNNING}"
_OLDER = f"{_LIVE_AND_IDLE} AND s.tenant = $2 AND {_LAST_ACTIVITY} < $3"
_PAST_TTL = f"{_LIVE_AND_IDLE} AND s.persistent AND s.created_at + s.ttl <= $2"
_PAST_IDLE = f"{_LIVE_AND_IDLE} AND NOT s.persistent AND s.created_at <= $2 AND {_LAST_ACTIVITY} <= $2"


class Sweep(NamedTuple):
    """Which sessions to delete; the values are $2 and on in the condition."""

    condition: str
    values: tuple[Any, ...]


def older(tenant: str, before: float) -> Sweep:
    """A tenant's sessions without a running turn whose last activity was before a time."""
    return Sweep(_OLDER, (to_text(tenant), before))


def expired(now: float, idle_ttl_s: float) -> list[Sweep]:
    """Sessions without a running turn that are past their time."""
    return [Sweep(_PAST_TTL, (now,)), Sweep(_PAST_IDLE, (now - idle_ttl_s,))]


async def find(db: Connection, sweep: Sweep, limit: int) -> list[int]:
    sql = f"SELECT s.n FROM sessions AS s WHERE {sweep.condition} LIMIT $1"
    return [n for (n,) in await db.fetch(sql, limit, *sweep.values)]


async def delete_found(db: Connection, sweep: Sweep, found: Sequence[int], now: float | None) -> int:
    """Delete those that were found and still fit."""
    # Locked first, by a statement of its own: the next one then sees every turn that has begun.
    await db.execute("SELECT FROM sessions WHERE n = ANY($1::bigint[]) ORDER BY n FOR NO KEY UPDATE", found)
    return changed(
        await db.execute(
            f"UPDATE sessions AS s SET deleted_at = moment(${2 + len(sweep.values)})"
            f" WHERE s.n = ANY($1::bigint[]) AND {sweep.condition}",
            found,
            *sweep.values,
            now,
        )
    )


# Access keys


async def add_key(db: Connection, key: Key) -> None:
    tag = await db.execute(
        "INSERT INTO access_keys (digest, tenant, name, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        key.digest,
        to_text(key.tenant),
        to_text(key.name),
        key.created_at,
    )
    if not changed(tag):
        raise Conflict("This key is there already.")


async def find_key(db: Connection, digest: bytes) -> Key | None:
    row = await db.fetchrow("SELECT digest, tenant, name, created_at FROM access_keys WHERE digest = $1", digest)
    return None if row is None else key_of(row)


async def list_keys(db: Connection) -> list[Key]:
    rows = await db.fetch("SELECT digest, tenant, name, created_at FROM access_keys ORDER BY created_at, digest")
    return [key_of(row) for row in rows]


async def remove_key(db: Connection, digest: bytes) -> bool:
    return changed(await db.execute("DELETE FROM access_keys WHERE digest = $1", digest)) == 1


async def secret(db: Connection, name: str) -> bytes:
    value = secrets.token_bytes(SECRET_BYTES)
    await db.execute("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, value)
    return await db.fetchval("SELECT value FROM secrets WHERE name = $1", name)
