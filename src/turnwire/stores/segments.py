"""Segments as they come from a database: the checksum that they carry, and pages of them."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from turnwire.protocol.codec import decode_frames
from turnwire.protocol.errors import NotFound, ProtocolError
from turnwire.protocol.grammar import Grammar
from turnwire.seams.store import Segment, StoreDamaged

Row = Sequence[Any]
"""first_seq, last_seq, checksum, frames."""


def checksum(turn: int, first_seq: int, last_seq: int, frames: bytes) -> int:
    """CRC-32 over a segment and its place, so that one which turns up elsewhere is found out, too."""
    return zlib.crc32(frames, zlib.crc32(b"%d %d %d" % (turn, first_seq, last_seq)))


def verified(turn: int, row: Row, turn_id: str) -> Segment:
    first_seq, last_seq, expected, frames = row
    if checksum(turn, first_seq, last_seq, frames) != expected:
        raise StoreDamaged(f"events {first_seq} to {last_seq} of {turn_id} are not what was written")
    return Segment(first_seq, last_seq, frames)


def page_of(
    rows: Iterable[Row], turn: int, turn_id: str, first_seq: int, last_seq: int, bytes_max: int
) -> list[Segment]:
    """Whole segments from `first_seq` on, until `bytes_max` is reached; StoreDamaged where one is missing.

    `rows` are the turn's, in their order, and begin with the one that holds `first_seq`.
    """
    segments: list[Segment] = []
    size = 0
    reached = first_seq - 1
    for row in rows:
        segment = verified(turn, row, turn_id)
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


def require_kept(turn_id: str, events: int) -> None:
    """`events` is the column of the turn: other than 0, they are removed or being removed."""
    if events:
        raise NotFound(f"The events of {turn_id} are no longer kept.")


# For `turnwire doctor --deep`

FAULTS_MAX = 20
"""Faults that are told of: a damaged disk spoils much, and the first ones say which."""


class Checked(NamedTuple):
    """What was read, and what is wrong with it, a sentence each."""

    turns: int
    events: int
    faults: list[str]


def faults_of_turn(rows: Iterable[Row], n: int, id_: str, last_seq: int, *, ended: bool) -> Iterator[str]:
    """What is wrong with a turn's segments, which are all of them: their checksums, and the grammar of their events."""
    grammar = Grammar()
    try:
        for first, last, crc, frames in rows:
            if checksum(n, first, last, frames) != crc:
                raise StoreDamaged(f"the events {first} to {last} are not what was written")
            if first != grammar.next_seq:
                raise StoreDamaged(f"the events {grammar.next_seq} to {first - 1} are missing")
            grammar.check_all(decode_frames(frames))
    except (StoreDamaged, ProtocolError) as exc:
        yield f"The response {id_}: {exc}."
        return
    if grammar.next_seq != last_seq + 1:
        yield f"The response {id_}: its last event is {last_seq}, and the log ends at {grammar.next_seq - 1}."
    elif grammar.ended != ended:
        yield f"The response {id_}: it has {'ended' if ended else 'not ended'}, and its log says otherwise."
