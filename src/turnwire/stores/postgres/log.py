"""Reading the log."""

from turnwire.protocol.errors import NotFound
from turnwire.seams.store import HistoryEntry, Page, Segment
from turnwire.stores.postgres.connection import Connection
from turnwire.stores.postgres.rows import Row, to_text
from turnwire.stores.segments import page_of, require_kept

SEGMENTS_MAX = 256
"""Segments in one statement: most pages take one."""

# The turn and its segments at the same instant, in one statement. Its segments come until their bytes are enough, by
# their lengths, which costs no reading of the frames.
_PAGE = f"""
SELECT t.n, t.last_seq, t.ended_at IS NOT NULL, t.events, s.first_seq, s.last_seq, s.checksum, s.frames
FROM turns AS t LEFT JOIN LATERAL (
    SELECT *, sum(octet_length(frames))
              OVER (ORDER BY first_seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM segments
    WHERE turn = t.n
      AND first_seq >= (SELECT max(first_seq) FROM segments WHERE turn = t.n AND first_seq <= $2)
    ORDER BY first_seq LIMIT {SEGMENTS_MAX}
) AS s ON (s.before IS NULL OR s.before < $3) AND t.events = 0 AND $2 <= t.last_seq
WHERE t.id = $1 ORDER BY s.first_seq
"""


async def read_events(db: Connection, turn_id: str, first_seq: int, bytes_max: int) -> Page:
    """A page of a turn, see the seam."""
    found = await db.fetch(_PAGE, to_text(turn_id), first_seq, bytes_max)
    if not found:
        raise NotFound(f"There is no response {turn_id}.")
    turn, last_seq, ended, events = found[0][:4]
    require_kept(turn_id, events)
    segments: list[Segment] = []
    if first_seq <= last_seq:
        rows = await _rest(db, turn_id, found, last_seq, bytes_max)
        segments = page_of(rows, turn, turn_id, first_seq, last_seq, bytes_max)
    return Page(segments, last_seq, ended)


async def _rest(db: Connection, turn_id: str, found: list[Row], last_seq: int, bytes_max: int) -> list[Row]:
    """The segments of a page: those that were found, and more where they were many and small."""
    rows = [row[4:] for row in found if row[4] is not None]
    size = sum(len(frames) for *_, frames in rows)
    while len(found) == SEGMENTS_MAX and size < bytes_max and rows[-1][1] < last_seq:
        found = await db.fetch(_PAGE, to_text(turn_id), rows[-1][1] + 1, bytes_max - size)
        more = [row[4:] for row in found if row[4] is not None and rows[-1][1] < row[4] <= last_seq]
        if not more:
            break
        rows += more
        size += sum(len(frames) for *_, frames in more)
    return rows


_SUMMARY = """
SELECT h.kind, h.data, h.format, t.id, h.upto FROM history AS h JOIN turns AS t ON t.n = h.turn
WHERE h.session = $1 AND h.kind = 'summary' ORDER BY h.n DESC LIMIT 1
"""
_HISTORY = """
SELECT h.kind, h.data, h.format, t.id FROM history AS h JOIN turns AS t ON t.n = h.turn
WHERE h.session = $1 AND h.kind <> 'summary' ORDER BY h.n OFFSET $2
"""


async def read_history(db: Connection, session_id: str) -> list[HistoryEntry]:
    """All that the model is given, oldest first: the latest summary, and the entries that it does not stand for."""
    session = await db.fetchval("SELECT n FROM sessions WHERE id = $1", to_text(session_id))
    if session is None:
        raise NotFound(f"There is no session {session_id}.")
    summary = await db.fetch(_SUMMARY, session)
    entries = await db.fetch(_HISTORY, session, summary[0][4] if summary else 0)
    return [HistoryEntry(*entry) for entry in (*summary, *entries)]
