"""Reading the log, and the checksum that its segments carry."""

import sqlite3
import zlib
from typing import Any

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import HistoryEntry, Page, Segment, StoreDamaged
from turnwire.stores.sqlite.rows import to_text

NEWEST_CHECKED = 256
NEWEST_BYTES_MAX = 16 * 1024 * 1024
"""How many of the newest segments are read at the start, and of how many bytes: what a crash or a broken disk may
have spoilt last. More would make a restart slow."""


def checksum(turn: int, first_seq: int, last_seq: int, frames: bytes) -> int:
    """CRC-32 over a segment and its place, so that one which turns up elsewhere is found out, too."""
    return zlib.crc32(frames, zlib.crc32(b"%d %d %d" % (turn, first_seq, last_seq)))


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
    if events:
        raise NotFound(f"The events of {turn_id} are no longer kept.")
    segments: list[Segment] = []
    if first_seq <= last_seq:
        segments = _read_segments(db, turn, turn_id, first_seq, last_seq, bytes_max)
    return Page(segments, last_seq, bool(ended))


def _read_segments(
    db: sqlite3.Connection, turn: int, turn_id: str, first_seq: int, last_seq: int, bytes_max: int
) -> list[Segment]:
    segments: list[Segment] = []
    size = 0
    reached = first_seq - 1
    for row in db.execute(_SEGMENTS, {"turn": turn, "first": first_seq}):
        segment = _verified(turn, row, turn_id)
        follows = segment.first_seq <= first_seq if not segments else segment.first_seq == reached + 1
        if not follows or segment.last_seq < max(first_seq, segment.first_seq):
            break
        segments.append(segment)
        reached = segment.last_seq
        size += len(segment.frames)
        if size >= bytes_max:
            return segments
    if reached != last_seq:
        raise StoreDamaged(f"the log of {turn_id} has a gap behind event {reached}")
    return segments


def _verified(turn: int, row: tuple[Any, ...], turn_id: str) -> Segment:
    first_seq, last_seq, expected, frames = row
    if checksum(turn, first_seq, last_seq, frames) != expected:
        raise StoreDamaged(f"events {first_seq} to {last_seq} of {turn_id} are not what was written")
    return Segment(first_seq, last_seq, frames)


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
        _verified(turn, (first_seq, last_seq, expected, frames), turn_id)
        size += len(frames)
        if size >= NEWEST_BYTES_MAX:
            break
    for turn_id, last_seq in db.execute("SELECT id, last_seq FROM turns WHERE ended_at IS NULL").fetchall():
        read_events(db, turn_id, last_seq, 1)
