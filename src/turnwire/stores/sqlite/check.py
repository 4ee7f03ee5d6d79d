"""Reads a whole database and says what is wrong with it: for `turnwire doctor --deep`."""

import sqlite3
from contextlib import closing
from pathlib import Path

from turnwire.stores.segments import FAULTS_MAX, Checked, faults_of_turn

_SEGMENTS = "SELECT first_seq, last_seq, checksum, frames FROM segments WHERE turn = ? ORDER BY first_seq"


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
                faults += faults_of_turn(db.execute(_SEGMENTS, (n,)), n, id_, last_seq, ended=bool(ended))
                if len(faults) >= FAULTS_MAX:
                    break
        except sqlite3.DatabaseError as exc:
            faults.append(f"SQLite can't read on: {exc}")
    return Checked(turns, events, faults[:FAULTS_MAX])
