"""Removing what is no longer wanted, in bites: each is a transaction of its own that holds its locks for moments."""

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import Session
from turnwire.stores.common import GONE_KEPT_S, IDEMPOTENCY_VALID_S
from turnwire.stores.postgres.connection import Connection, changed
from turnwire.stores.postgres.rows import SESSION, session_of

ROWS_MAX = 1_000
"""Rows that a bite removes: some milliseconds' work."""


async def find_deleted(db: Connection, limit: int) -> list[int]:
    """Deleted sessions that have no running turn."""
    rows = await db.fetch(
        """
        SELECT n FROM sessions AS s
        WHERE deleted_at IS NOT NULL AND NOT EXISTS (SELECT FROM turns WHERE session = s.n AND ended_at IS NULL)
        ORDER BY deleted_at LIMIT $1
        """,
        limit,
    )
    return [n for (n,) in rows]


async def describe(db: Connection, n: int) -> Session:
    row = await db.fetchrow(f"{SESSION} WHERE s.n = $1", n)
    if row is None:
        raise NotFound
    return session_of(row)


_HISTORY = "DELETE FROM history WHERE n IN (SELECT n FROM history WHERE session = $1 ORDER BY n LIMIT $2)"
_SEGMENTS = """
DELETE FROM segments WHERE turn = $1
  AND first_seq IN (SELECT first_seq FROM segments WHERE turn = $1 ORDER BY first_seq LIMIT $2)
"""


async def purge_bite(db: Connection, session: int) -> bool:
    """Remove some of what belongs to a deleted session; False when nothing is left but the session itself."""
    if changed(await db.execute(_HISTORY, session, ROWS_MAX)) == ROWS_MAX:
        return True
    turn = await db.fetchval("SELECT n FROM turns WHERE session = $1 ORDER BY n LIMIT 1", session)
    if turn is None:
        return False
    if changed(await db.execute(_SEGMENTS, turn, ROWS_MAX)) < ROWS_MAX:
        await db.execute("DELETE FROM calls WHERE turn = $1", turn)
        await db.execute("DELETE FROM turn_bodies WHERE turn = $1", turn)
        await db.execute("DELETE FROM turns WHERE n = $1", turn)
    return True


async def remove_session(db: Connection, session: int, now: float | None) -> bool:
    """Remove the row of a purged session, and keep its place in the list; False when it is gone already."""
    await db.execute(
        "INSERT INTO gone_sessions (id, tenant, created_at, removed_at)"
        " SELECT id, tenant, created_at, moment($2) FROM sessions WHERE n = $1"
        " ON CONFLICT (id) DO UPDATE SET removed_at = excluded.removed_at",
        session,
        now,
    )
    return changed(await db.execute("DELETE FROM sessions WHERE n = $1", session)) == 1


async def find_droppable(db: Connection, ended_before: float, limit: int) -> list[int]:
    """Turns that ended before a time and still have events."""
    rows = await db.fetch(
        "SELECT n FROM turns WHERE ended_at IS NOT NULL AND events < 2 AND ended_at < $1 ORDER BY ended_at LIMIT $2",
        ended_before,
        limit,
    )
    return [n for (n,) in rows]


async def drop_bite(db: Connection, turn: int) -> bool:
    """Remove some of a turn's events, which count as gone from the first bite on; False when none are left."""
    more = changed(await db.execute(_SEGMENTS, turn, ROWS_MAX)) == ROWS_MAX
    await db.execute("UPDATE turns SET events = $2 WHERE n = $1", turn, 1 if more else 2)
    return more


async def forget(db: Connection, now: float | None) -> bool:
    """Remove what has expired of idempotency keys and places in lists; False when there is no more of it."""
    now = await db.fetchval("SELECT moment($1)", now)
    assert now is not None
    keys = await db.execute(
        "DELETE FROM idempotency_keys WHERE (tenant, key) IN"
        " (SELECT tenant, key FROM idempotency_keys WHERE created_at <= $1 LIMIT $2)",
        now - IDEMPOTENCY_VALID_S,
        ROWS_MAX,
    )
    places = await db.execute(
        "DELETE FROM gone_sessions WHERE id IN (SELECT id FROM gone_sessions WHERE removed_at <= $1 LIMIT $2)",
        now - GONE_KEPT_S,
        ROWS_MAX,
    )
    return max(changed(keys), changed(places)) == ROWS_MAX
