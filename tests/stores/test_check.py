"""`check_all`: a whole database is good, or it is said what is wrong."""

import sqlite3
from contextlib import closing

import pytest

from turnwire.protocol.codec import encode_frame, encode_frames
from turnwire.protocol.events import MessageCompleted, TextDelta, TextStart, TextStop, Usage
from turnwire.seams.store import Ending
from turnwire.stores.sqlite.check import check_all
from turnwire.stores.sqlite.store import SQLiteStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import begin, make_session, write


@pytest.fixture
async def database(tmp_path):
    """A database with one finished turn and one that runs."""
    path = tmp_path / "turnwire.db"
    clock = TurnableClock()
    store = await SQLiteStore.open(path, clock=clock)
    turn = await begin(store, await make_session(store, clock))
    await write(store, turn, 1, 3, frames=encode_frames([TextStart(), TextDelta("words"), TextStop()]))
    end = encode_frame(MessageCompleted(turn.id, usage=Usage()))
    await write(store, turn, 4, frames=end, ending=Ending("completed", Usage(), b"[]"))
    await begin(store, await make_session(store, clock))
    await store.close()
    return path


async def test_a_good_database_has_no_fault(database):
    assert check_all(database) == (2, 6, [])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            "UPDATE segments SET frames = CAST(replace(frames, 'words', 'swords') AS BLOB) WHERE first_seq = 1",
            "not what was written",
        ),
        ("DELETE FROM segments WHERE first_seq = 1", "events 1 to 3 are missing"),
        ("DELETE FROM segments WHERE first_seq = 4", "its last event is 4, and the log ends at 3"),
        ("UPDATE turns SET status = 'error', ended_at = 1 WHERE ended_at IS NULL", "its log says otherwise"),
    ],
)
async def test_a_fault_is_named(database, change, fault):
    with closing(sqlite3.connect(database)) as db, db:
        assert db.execute(change).rowcount == 1

    [found] = check_all(database).faults
    assert fault in found


async def test_a_damaged_page_is_found(database):
    raw = bytearray(database.read_bytes())
    for at in range(3 * 4096, len(raw), 512):
        raw[at : at + 32] = bytes(32)
    database.write_bytes(raw)

    assert check_all(database).faults
