"""Reads a whole database and says what is wrong with it: for `turnwire doctor --deep`."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from turnwire.protocol.codec import decode_frames
from turnwire.protocol.errors import ProtocolError
from turnwire.protocol.grammar import Grammar
from turnwire.seams.store import StoreDamaged
from turnwire.stores.sqlite.log import checksum

FAULTS_MAX = 20
"""Faults that are told of: a damaged disk spoils much, and the first ones say which."""


class Checked(NamedTuple):
    """What was read, and what is wrong with it, a sentence each."""

    turns: int
    events: int
    faults: list[str]


def check_all(path: Path) -> Checked:
    """Every page of the file, every segment's checksum, and the grammar of every turn whose events are kept.

    Reads only; a server may run meanwhile. `sqlite3.Error` when the file can't be opened at all.
    """
    faults: list[str] = []
    turns = events = 0
    # A turn that runs goes on while it is read: one transaction sees all of it at one moment.
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("BEGIN")
        try:
            for (line,) in db.execute(f"PRAGMA integrity_check({FAULTS_MAX})"):
                if line != "ok":
                    faults.append(f"SQLite finds: {line}")
            for n, id_, last_seq, ended in db.execute(
                "SELECT n, id, last_seq, ended_at IS NOT NULL FROM turns WHERE events = 0"
            ).fetchall():
                turns += 1
                events += last_seq + 1
                faults += _faults_of_turn(db, n, id_, last_seq, bool(ended))
                if len(faults) >= FAULTS_MAX:
                    break
        except sqlite3.DatabaseError as exc:
            faults.append(f"SQLite can't read on: {exc}")
    return Checked(turns, events, faults[:FAULTS_MAX])


def _faults_of_turn(db: sqlite3.Connection, n: int, id_: str, last_seq: int, ended: bool) -> Iterator[str]:
    grammar = Grammar()
    try:
        for first, last, crc, frames in db.execute(
            "SELECT first_seq, last_seq, checksum, frames FROM segments WHERE turn = ? ORDER BY first_seq", (n,)
        ):
            if checksum(n, first, last, frames) != crc:
                raise StoreDamaged(f"the events {first} to {last} are not what was written")
            if first != grammar.next_seq:
                raise StoreDamaged(f"the events {grammar.next_seq} to {first - 1} are missing")
            grammar.check_all(decode_frames(frames))
    except (StoreDamaged, ProtocolError, ValueError, AssertionError) as exc:
        yield f"The response {id_}: {exc}."
        return
    if grammar.next_seq != last_seq + 1:
        yield f"The response {id_}: its last event is {last_seq}, and the log ends at {grammar.next_seq - 1}."
    elif grammar.ended != ended:
        yield f"The response {id_}: it has {'ended' if ended else 'not ended'}, and its log says otherwise."
