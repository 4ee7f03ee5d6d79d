"""Reading the log."""

import sqlite3

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import HistoryEntry, Page, Segment
from turnwire.stores.segments import page_of, require_kept, verified
from turnwire.stores.sqlite.rows import to_text

NEWEST_CHECKED = 256
NEWEST_BYTES_MAX = 16 * 1024 * 1024
"""How many of the newest segments are read at the start, and of how many bytes: what a crash or a broken disk may
have spoilt last. More would make a restart slow."""


_TURN = "SELECT n, last_seq, ended_at IS NOT NULL, events FROM turns WHERE id = ?"

_SEGMENTS = """
SELECT first_seq, last_seq, checksum, frames FROM segments
WHERE turn = :turn
  AND first_seq >= (SELECT max(first_seq) FROM segments WHERE turn = :turn AND first_seq <= :first)
ORDER BY first_seq
"""


def read_events(db: sqlite3.Connection, turn_id: str, first_seq: int, bytes_max: int) -> Page:
    """A page of a turn, see the seam."""
    row = db.execute(_TURN, (to_text(turn_id),)).fetchone()
    if row is None:
        raise NotFound(f"There is no response {turn_id}.")
    turn, last_seq, ended, events = row
    require_kept(turn_id, events)
    segments: list[Segment] = []
    if first_seq <= last_seq:
        rows = db.execute(_SEGMENTS, {"turn": turn, "first": first_seq})
        segments = page_of(rows, turn, turn_id, first_seq, last_seq, bytes_max)
    return Page(segments, last_seq, bool(ended))


_SUMMARY = """
SELECT h.kind, h.data, h.format, t.id, h.upto FROM history AS h JOIN turns AS t ON t.n = h.turn
WHERE h.session = ? AND h.kind = 'summary' ORDER BY h.n DESC LIMIT 1
"""
_HISTORY = """
SELECT h.kind, h.data, h.format, t.id FROM history AS h JOIN turns AS t ON t.n = h.turn
WHERE h.session = ? AND h.kind <> 'summary' ORDER BY h.n LIMIT -1 OFFSET ?
"""


def read_history(db: sqlite3.Connection, session_id: str) -> list[HistoryEntry]:
    """All that the model is given, oldest first: the latest summary, and the entries that it does not stand for."""
    row = db.execute("SELECT n FROM sessions WHERE id = ?", (to_text(session_id),)).fetchone()
    if row is None:
        raise NotFound(f"There is no session {session_id}.")
    history = [HistoryEntry(*entry) for entry in db.execute(_SUMMARY, row)]
    skipped = history[0].upto if history else 0
    return history + [HistoryEntry(*entry) for entry in db.execute(_HISTORY, (row[0], skipped))]


_NEWEST = """
SELECT s.turn, s.first_seq, s.last_seq, s.checksum, s.frames, t.id
FROM segments AS s JOIN turns AS t ON t.n = s.turn
WHERE s.turn > (SELECT max(n) FROM turns) - ?1 ORDER BY s.turn DESC, s.first_seq DESC LIMIT ?1
"""


def check_newest(db: sqlite3.Connection) -> None:
    """Read the newest segments and every running turn's last. StoreDamaged when one is not what was written."""
    size = 0
    for turn, first_seq, last_seq, expected, frames, turn_id in db.execute(_NEWEST, (NEWEST_CHECKED,)):
        verified(turn, (first_seq, last_seq, expected, frames), turn_id)
        size += len(frames)
        if size >= NEWEST_BYTES_MAX:
            break
    for turn_id, last_seq in db.execute("SELECT id, last_seq FROM turns WHERE ended_at IS NULL").fetchall():
        read_events(db, turn_id, last_seq, 1)
