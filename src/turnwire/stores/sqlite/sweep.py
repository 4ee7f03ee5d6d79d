"""Removing what is no longer wanted, in bites: each is a transaction of its own that holds the writer for moments."""

import sqlite3

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import Session
from turnwire.stores.common import GONE_KEPT_S, IDEMPOTENCY_VALID_S
from turnwire.stores.sqlite.rows import SESSION, session_of

ROWS_MAX = 200
"""Rows that a bite removes: about a millisecond's work."""

BYTES_MAX = 1024 * 1024
"""Bytes of frames that a bite removes: each of their pages is freed one by one."""

VACUUM_PAGES = 256
"""Pages that a bite gives back to the file system: 1 MiB, which are moved from the end of the file."""

FREE_PAGES_KEPT = 1024
"""Free pages that stay in the file, to be written again: giving them back, and growing anew, costs more."""


def find_deleted(db: sqlite3.Connection, limit: int) -> list[int]:
    """Deleted sessions that have no running turn."""
    rows = db.execute(
        """
        SELECT n FROM sessions
        WHERE deleted_at IS NOT NULL AND n NOT IN (SELECT session FROM turns WHERE ended_at IS NULL)
        ORDER BY deleted_at LIMIT ?
        """,
        (limit,),
    )
    return [n for (n,) in rows]


def describe(db: sqlite3.Connection, n: int) -> Session:
    row = db.execute(f"{SESSION} WHERE s.n = ?", (n,)).fetchone()
    if row is None:
        raise NotFound
    return session_of(row)


def purge_bite(db: sqlite3.Connection, _: float, session: int) -> bool:
    """Remove some of what belongs to a deleted session; False when nothing is left but the session itself."""
    removed = db.execute(
        "DELETE FROM history WHERE n IN (SELECT n FROM history WHERE session = ? LIMIT ?)", (session, ROWS_MAX)
    ).rowcount
    while removed < ROWS_MAX:
        turn = db.execute("SELECT n FROM turns WHERE session = ? LIMIT 1", (session,)).fetchone()
        if turn is None:
            return False
        rows, more = _remove_segments(db, turn[0], ROWS_MAX - removed)
        if more:
            return True
        db.execute("DELETE FROM calls WHERE turn = ?", turn)
        db.execute("DELETE FROM turn_bodies WHERE turn = ?", turn)
        db.execute("DELETE FROM turns WHERE n = ?", turn)
        removed += rows + 2
    return True


def remove_session(db: sqlite3.Connection, now: float, session: int) -> bool:
    """Remove the row of a purged session, and keep its place in the list; False when it is gone already."""
    db.execute(
        "INSERT OR REPLACE INTO gone_sessions (id, tenant, created_at, removed_at)"
        " SELECT id, tenant, created_at, ? FROM sessions WHERE n = ?",
        (now, session),
    )
    return db.execute("DELETE FROM sessions WHERE n = ?", (session,)).rowcount == 1


def find_droppable(db: sqlite3.Connection, ended_before: float, limit: int) -> list[int]:
    """Turns that ended before a time and still have events."""
    rows = db.execute(
        "SELECT n FROM turns WHERE ended_at IS NOT NULL AND events < 2 AND ended_at < ? ORDER BY ended_at LIMIT ?",
        (ended_before, limit),
    )
    return [n for (n,) in rows]


def drop_bite(db: sqlite3.Connection, _: float, turn: int) -> bool:
    """Remove some of a turn's events, which count as gone from the first bite on; False when none are left."""
    _, more = _remove_segments(db, turn, ROWS_MAX)
    db.execute("UPDATE turns SET events = ? WHERE n = ?", (1 if more else 2, turn))
    return more


def _remove_segments(db: sqlite3.Connection, turn: int, rows_max: int) -> tuple[int, bool]:
    """Remove a turn's first segments: how many, and whether there are more."""
    sizes = db.execute(
        "SELECT first_seq, length(frames) FROM segments WHERE turn = ? ORDER BY first_seq LIMIT ?",
        (turn, rows_max + 1),
    ).fetchall()
    size = count = 0
    for _, length in sizes[:rows_max]:
        count += 1
        size += length
        if size >= BYTES_MAX:
            break
    if count:
        db.execute("DELETE FROM segments WHERE turn = ? AND first_seq <= ?", (turn, sizes[count - 1][0]))
    return count, count < len(sizes)


def forget(db: sqlite3.Connection, now: float) -> bool:
    """Remove what has expired of idempotency keys and places in lists; False when there is no more of it."""
    keys = db.execute(
        "DELETE FROM idempotency_keys WHERE (tenant, key) IN"
        " (SELECT tenant, key FROM idempotency_keys WHERE created_at <= ? LIMIT ?)",
        (now - IDEMPOTENCY_VALID_S, ROWS_MAX),
    ).rowcount
    places = db.execute(
        "DELETE FROM gone_sessions WHERE id IN (SELECT id FROM gone_sessions WHERE removed_at <= ? LIMIT ?)",
        (now - GONE_KEPT_S, ROWS_MAX),
    ).rowcount
    return max(keys, places) == ROWS_MAX


def vacuum_bite(db: sqlite3.Connection, _: float) -> bool:
    """Give free pages back to the file system, when they are many; False when they no longer are."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    kept = max(FREE_PAGES_KEPT, pages // 8)
    if free <= kept:
        return False
    # Each step of the statement frees one page and gives a row without columns, behind which sqlite3 does not step on.
    for _ in range(min(VACUUM_PAGES, free - kept)):
        db.execute("PRAGMA incremental_vacuum(1)")
    return True
