"""Sessions and access keys: queries on a connection, in the transaction of whoever calls."""

import secrets
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from turnwire.protocol.errors import Conflict, InvalidRequest, NotFound
from turnwire.seams.store import SECRET_BYTES, Key, Session, SessionChanges
from turnwire.stores.common import UNKNOWN_CURSOR
from turnwire.stores.rows import changed_session, encode_session_data
from turnwire.stores.sqlite.rows import SESSION, key_of, session_of, to_text

_ONE = f"{SESSION} WHERE s.id = ? AND s.tenant = ? AND s.deleted_at IS NULL"


def create(db: sqlite3.Connection, _: float, session: Session) -> None:
    cursor = db.execute(
        "INSERT INTO sessions (id, tenant, created_at, persistent, ttl, data) VALUES (?,?,?,?,?,?)"
        " ON CONFLICT DO NOTHING",
        (
            to_text(session.id),
            to_text(session.tenant),
            session.created_at,
            session.persistent,
            session.ttl,
            encode_session_data(session),
        ),
    )
    if cursor.rowcount != 1:
        raise Conflict(f"There is a session {session.id} already.")


def get_row(db: sqlite3.Connection, tenant: str, session_id: str) -> tuple[Any, ...]:
    """The row of SESSION of a session that is there and is the tenant's, else NotFound."""
    row = db.execute(_ONE, (to_text(session_id), to_text(tenant))).fetchone()
    if row is None:
        raise NotFound(f"There is no session {session_id}.")
    return row


def get(db: sqlite3.Connection, tenant: str, session_id: str) -> Session:
    return session_of(get_row(db, tenant, session_id))


_PLACE = """
SELECT created_at, id FROM sessions WHERE id = :id AND tenant = :tenant
UNION ALL SELECT created_at, id FROM gone_sessions WHERE id = :id AND tenant = :tenant
"""


def list_(db: sqlite3.Connection, tenant: str, busy: bool | None, after: str | None, limit: int) -> list[Session]:
    sql = f"{SESSION} WHERE s.tenant = :tenant AND s.deleted_at IS NULL"
    values: dict[str, Any] = {"tenant": to_text(tenant), "limit": limit}
    if after is not None:
        place = db.execute(_PLACE, {"id": to_text(after), "tenant": values["tenant"]}).fetchone()
        if place is None:
            raise InvalidRequest(UNKNOWN_CURSOR)
        values["created_at"], values["id"] = place
        sql += " AND (s.created_at, s.id) < (:created_at, :id)"
    if busy is not None:
        running = "(SELECT session FROM turns WHERE ended_at IS NULL)"
        sql += f" AND s.n {'IN' if busy else 'NOT IN'} {running}"
    sql += " ORDER BY s.created_at DESC, s.id DESC LIMIT :limit"
    return [session_of(row) for row in db.execute(sql, values)]


def update(db: sqlite3.Connection, _: float, tenant: str, session_id: str, changes: SessionChanges) -> Session:
    row = get_row(db, tenant, session_id)
    ttl, data = changed_session(row[5], row[6], changes)
    db.execute("UPDATE sessions SET ttl = ?, data = ? WHERE n = ?", (ttl, data, row[0]))
    return get(db, tenant, session_id)


def delete(db: sqlite3.Connection, now: float, tenant: str, session_id: str) -> str | None:
    n = get_row(db, tenant, session_id)[0]
    db.execute("UPDATE sessions SET deleted_at = ? WHERE n = ?", (now, n))
    running = db.execute(
        "UPDATE turns SET cancel_requested = 1 WHERE session = ? AND ended_at IS NULL RETURNING id", (n,)
    ).fetchall()
    return running[0][0] if running else None


# Many at once: what may go is found by a reader, and looked at again, each by itself, where it is deleted.

_LAST_ACTIVITY = """
coalesce((SELECT coalesce(ended_at, created_at) FROM turns WHERE session = sessions.n ORDER BY n DESC LIMIT 1),
         sessions.created_at)
"""
_LIVE_AND_IDLE = """
deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM turns WHERE session = sessions.n AND ended_at IS NULL)
"""
_OLDER = f"{_LIVE_AND_IDLE} AND tenant = :tenant AND {_LAST_ACTIVITY} < :before"
_PAST_TTL = f"{_LIVE_AND_IDLE} AND persistent = 1 AND created_at + ttl <= :now"
_PAST_IDLE = f"{_LIVE_AND_IDLE} AND persistent = 0 AND created_at <= :before AND {_LAST_ACTIVITY} <= :before"


class Sweep(NamedTuple):
    """Which sessions to delete."""

    condition: str
    values: dict[str, Any]


def older(tenant: str, before: float) -> Sweep:
    """A tenant's sessions without a running turn whose last activity was before a time."""
    return Sweep(_OLDER, {"tenant": to_text(tenant), "before": before})


def expired(now: float, idle_ttl_s: float) -> list[Sweep]:
    """Sessions without a running turn that are past their time."""
    return [Sweep(_PAST_TTL, {"now": now}), Sweep(_PAST_IDLE, {"before": now - idle_ttl_s})]


def find(db: sqlite3.Connection, sweep: Sweep, limit: int) -> list[int]:
    sql = f"SELECT n FROM sessions WHERE {sweep.condition} LIMIT :limit"
    return [n for (n,) in db.execute(sql, sweep.values | {"limit": limit})]


def delete_found(db: sqlite3.Connection, now: float, sweep: Sweep, found: Sequence[int]) -> int:
    """Delete those that were found and still fit."""
    return db.executemany(
        f"UPDATE sessions SET deleted_at = :deleted_at WHERE n = :n AND {sweep.condition}",
        [sweep.values | {"n": n, "deleted_at": now} for n in found],
    ).rowcount


# Access keys


def add_key(db: sqlite3.Connection, _: float, key: Key) -> None:
    cursor = db.execute(
        "INSERT INTO access_keys (digest, tenant, name, created_at) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
        (key.digest, to_text(key.tenant), to_text(key.name), key.created_at),
    )
    if cursor.rowcount != 1:
        raise Conflict("This key is there already.")


def find_key(db: sqlite3.Connection, digest: bytes) -> Key | None:
    row = db.execute("SELECT digest, tenant, name, created_at FROM access_keys WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else key_of(row)


def list_keys(db: sqlite3.Connection) -> list[Key]:
    rows = db.execute("SELECT digest, tenant, name, created_at FROM access_keys ORDER BY created_at, digest")
    return [key_of(row) for row in rows]


def remove_key(db: sqlite3.Connection, _: float, digest: bytes) -> bool:
    return db.execute("DELETE FROM access_keys WHERE digest = ?", (digest,)).rowcount == 1


def secret(db: sqlite3.Connection, _: float, name: str) -> bytes:
    db.execute("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, secrets.token_bytes(SECRET_BYTES)))
    (value,) = db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return value
