"""What only the SQLite store promises: group commit, durability, full disks, damage, migrations."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from stores.writers import WriterProcess, check_all_there
from turnwire.protocol.codec import split_frames
from turnwire.protocol.errors import NotFound
from turnwire.seams.store import Append, Appended, HistoryEntry, StoreDamaged, StoreUnavailable
from turnwire.stores.migrations import Migration, load_migrations
from turnwire.stores.sqlite import SQLiteStore, StoreFailed, StoreRefused, database, log, sessions, sweep, writer
from turnwire.stores.sqlite.appends import ROWS_MAX, fence_sql, write_appends
from turnwire.stores.sqlite.database import open_database
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import (
    COMPLETED,
    OWNER,
    TENANT,
    a_finished_turn,
    an_append,
    appended,
    begin,
    deltas,
    frames_of,
    handed_in,
    make_session,
    write,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turnwire.db"


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(path, **options)
    try:
        yield store
    finally:
        await store.close()


# Group commit


async def test_nothing_is_acknowledged_while_another_connection_holds_the_database(
    path: Path, clock: TurnableClock
) -> None:
    async with opened(path, clock=clock) as store:
        turns = [await begin(store, await make_session(store, clock)) for _ in range(50)]
        before = store.commits
        with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            futures = [handed_in(store, an_append(turn, 1)) for turn in turns]
            session = asyncio.create_task(make_session(store, clock))
            await asyncio.sleep(0.7)  # longer than one try of the writer's
            assert not any(future.done() for future in futures)
            assert not session.done()
            assert (await store.read_events(turns[0].id, 0, bytes_max=1)).last_seq == 0
            foreign.execute("COMMIT")

        assert await asyncio.wait_for(asyncio.gather(*futures), 5) == [Appended.WRITTEN] * 50
        await session
        assert store.commits - before <= 3


async def test_many_turns_share_few_commits(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock) as store:
        turns = [await begin(store, await make_session(store, clock)) for _ in range(50)]
        before = store.commits

        async def stream(turn: Any) -> None:
            for seq in range(1, 21):
                await write(store, turn, seq)

        await asyncio.gather(*(stream(turn) for turn in turns))
        assert store.commits - before <= 1000 / 10


async def test_a_store_that_closes_gives_up_waiting_for_a_foreign_lock(path: Path, clock: TurnableClock) -> None:
    store = await SQLiteStore.open(path, clock=clock)
    turn = await begin(store, await make_session(store, clock))
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        future = handed_in(store, an_append(turn, 1))
        await asyncio.wait_for(store.close(), 5)
        assert isinstance(await future, StoreUnavailable)
        foreign.execute("ROLLBACK")


async def test_a_long_foreign_lock_is_said_in_the_log(
    path: Path, clock: TurnableClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LOCK_WARNING_S", 0.3)
    async with opened(path, clock=clock) as store:
        turn = await begin(store, await make_session(store, clock))
        with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            future = handed_in(store, an_append(turn, 1))
            await asyncio.sleep(0.8)
            foreign.execute("ROLLBACK")
        assert await asyncio.wait_for(future, 5) is Appended.WRITTEN

    assert "write lock" in caplog.text


async def test_an_append_that_can_not_be_written_fails_alone(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock) as store:
        turns = [await begin(store, await make_session(store, clock)) for _ in range(3)]
        futures = [
            handed_in(store, an_append(turns[0], 1)),
            handed_in(store, an_append(turns[1], 1, history=(HistoryEntry("nonsense", b""),))),
            handed_in(store, an_append(turns[2], 1, last_seq=2**70)),
        ]
        session = await make_session(store, clock)

        assert await futures[0] is Appended.WRITTEN
        assert isinstance(await futures[1], sqlite3.IntegrityError)
        assert isinstance(await futures[2], OverflowError)
        assert await store.get_session(TENANT, session.id) == session
        await write(store, turns[1], 1)


async def test_an_operation_that_fails_half_way_leaves_nothing(path: Path, clock: TurnableClock) -> None:
    def half(db: sqlite3.Connection, _: float) -> None:
        db.execute("UPDATE turns SET owner = 'somebody'")
        raise ValueError("half way")

    async with opened(path, clock=clock) as store:
        turn = await begin(store, await make_session(store, clock))
        before = store.commits
        outcomes = await asyncio.gather(
            appended(store, an_append(turn, 1)),
            store._write(half),
            make_session(store, clock),
            return_exceptions=True,
        )
        assert store.commits == before + 1
        assert outcomes[0] is Appended.WRITTEN
        assert isinstance(outcomes[1], ValueError)
        assert await store.renew_leases(OWNER, [turn.id], lease_s=1) == set()
        assert len(await store.list_sessions(TENANT)) == 2


async def test_a_session_that_became_busy_after_it_was_found_is_not_deleted(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock) as store:
        busy, active, idle = [await make_session(store, clock) for _ in range(3)]
        clock.turn(100)
        sweep_ = sessions.older(TENANT, clock.now() - 50)
        found = await store._read(lambda db: sessions.find(db, sweep_, 10))
        assert len(found) == 3
        await begin(store, busy)
        await a_finished_turn(store, active)

        assert await store._write(lambda db, now: sessions.delete_found(db, now, sweep_, found)) == 1
        assert {session.id for session in await store.list_sessions(TENANT)} == {busy.id, active.id}
        assert idle.id not in {session.id for session in await store.list_sessions(TENANT)}


async def test_a_callback_that_raises_does_not_hurt_the_others(path: Path, clock: TurnableClock) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken(_: object) -> None:
        raise RuntimeError("a bug above")

    async with opened(path, clock=clock) as store:
        first, second = [await begin(store, await make_session(store, clock)) for _ in range(2)]
        store.append(an_append(first, 1), broken)
        assert await appended(store, an_append(second, 1)) is Appended.WRITTEN

    assert [str(context["exception"]) for context in reported] == ["a bug above"]


async def test_a_caller_that_is_cancelled_hurts_nobody(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock) as store:
        tasks = [asyncio.create_task(make_session(store, clock)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(await store.list_sessions(TENANT)) >= 5
        assert not any(isinstance(result, BaseException) for result in results[1::2])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 33, ROWS_MAX - 1, ROWS_MAX, ROWS_MAX + 1])
async def test_groups_of_any_size_are_written_whole(path: Path, clock: TurnableClock, count: int) -> None:
    async with opened(path, clock=clock) as store:
        turns = await asyncio.gather(*(_begin_anew(store, clock) for _ in range(count)))
        statements: list[str] = []
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.set_trace_callback(statements.append)
            appends = [an_append(turn, 1, 1 + i % 3) for i, turn in enumerate(turns)]
            assert write_appends(db, appends, clock.now()) == [Appended.WRITTEN] * count
            db.set_trace_callback(None)
        assert len(statements) == 2 * (1 + (count - 1) // ROWS_MAX)
        for i, turn in enumerate(turns):
            page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
            assert frames_of(page)[1:] == split_frames(deltas(1, 1 + i % 3))


async def _begin_anew(store: SQLiteStore, clock: TurnableClock) -> Any:
    return await begin(store, await make_session(store, clock))


def test_the_fence_looks_turns_up_by_their_id(path: Path) -> None:
    with closing(open_database(path, "FULL")) as db:
        for rows in (1, 2, 64):
            plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + fence_sql(rows), [None] * 5 * rows)]
            assert not any(step.startswith("SCAN turns") for step in plan), plan
            assert any("turns USING INDEX sqlite_autoindex_turns_1" in step for step in plan), plan


# Durability


async def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    for kill in range(3):
        process = WriterProcess(SQLiteStore, str(path))
        process.run_for(0.15 + 0.1 * kill)
        acknowledged = process.kill()

        async with opened(path) as store:
            await check_all_there(store, acknowledged)


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
async def test_the_database_is_set_up_as_asked(path: Path, synchronous: Any) -> None:
    with closing(open_database(path, synchronous)) as db:
        pragmas = {
            name: db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "auto_vacuum", "foreign_keys")
        }

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2 if synchronous == "FULL" else 1,
        "auto_vacuum": 2,
        "foreign_keys": 1,
    }


async def test_readers_can_not_write(path: Path) -> None:
    async with opened(path) as store:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await store._read(lambda db: db.execute("DELETE FROM sessions"))
        assert await store.list_keys() == []


# A full disk


async def test_a_full_disk_refuses_and_then_works_again(path: Path, clock: TurnableClock) -> None:
    failures: list[Exception] = []
    async with opened(path, clock=clock, on_fatal=failures.append) as store:
        turns = [await begin(store, await make_session(store, clock)) for _ in range(3)]
        limit = await store._write(lambda db, _: _set_page_limit(db, 40))
        seq = 1
        while (result := await appended(store, an_append(turns[0], seq, frames=b"x" * 20_000 + b"\n\n"))) is (
            Appended.WRITTEN
        ):
            seq += 1
        assert isinstance(result, StoreUnavailable)
        assert result.retry_after_s

        big = handed_in(store, an_append(turns[0], seq, frames=b"x" * 200_000))
        small = handed_in(store, an_append(turns[1], 1))
        assert [type(await future) for future in (big, small)] == [StoreUnavailable] * 2
        with pytest.raises(StoreUnavailable):
            await store._write(lambda db, _: db.execute("CREATE TABLE t AS SELECT zeroblob(1000000)"))
        assert (await store.read_events(turns[0].id, 0, bytes_max=1)).last_seq == seq - 1
        assert (await store.read_events(turns[1].id, 0, bytes_max=1)).last_seq == 0

        await store._write(lambda db, _: _set_page_limit(db, limit))
        await write(store, turns[0], seq)
        await write(store, turns[1], 1)
    assert failures == []


def _set_page_limit(db: sqlite3.Connection, pages: int) -> int:
    (before,) = db.execute("PRAGMA max_page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    return before


_FULL_DISK = """
import asyncio, pathlib, sys
from turnwire.seams.store import Appended, StoreUnavailable
from turnwire.stores.sqlite import SQLiteStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import an_append, appended, begin, make_session, write

async def main():
    folder, failures = pathlib.Path(sys.argv[1]), []
    store = await SQLiteStore.open(folder / "turnwire.db", on_fatal=failures.append)
    clock = TurnableClock()
    turn = await begin(store, await make_session(store, clock))
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    seq = 1
    while (result := await appended(store, an_append(turn, seq, frames=b"x" * 9_000))) is Appended.WRITTEN:
        seq += 1
    assert isinstance(result, StoreUnavailable), result
    assert (await store.read_events(turn.id, 0, bytes_max=1)).last_seq == seq - 1
    try:
        await make_session(store, clock, instructions="x" * 9_000)
        raise AssertionError("the disk is full")
    except StoreUnavailable:
        pass
    ballast.unlink()
    await write(store, turn, seq)
    assert (await store.read_events(turn.id, seq, bytes_max=1)).last_seq == seq
    assert failures == []
    await store.close()

asyncio.run(main())
"""


@pytest.mark.tool("unshare")
def test_a_file_system_without_room_refuses_and_then_works_again(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=1m tmpfs "$1" && exec {sys.executable} -c "$2" "$1"'
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", str(tmp_path), _FULL_DISK]
    process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert process.returncode == 0, process.stderr


_FULL_DISK_AT_THE_INDEX = """
import asyncio, os, pathlib, sqlite3, sys
from turnwire.seams.store import Appended, StoreUnavailable
from turnwire.stores.sqlite import SQLiteStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import an_append, appended, begin, make_session, write

PAGE = 4096

async def main():
    folder, failures = pathlib.Path(sys.argv[1]), []
    store = await SQLiteStore.open(folder / "turnwire.db", on_fatal=failures.append)
    turn = await begin(store, await make_session(store, TurnableClock()))
    holder = sqlite3.connect(folder / "turnwire.db", isolation_level=None)
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM turns").fetchall()
    wal, seq = folder / "turnwire.db-wal", 1
    while wal.stat().st_size < 4030 * (PAGE + 24):
        await write(store, turn, seq, frames=b"x" * 9_000)
        seq += 1
    ballast = folder / "ballast"
    ballast.touch()
    while True:
        # Room for what a small append adds to the log, and not for the 8 pages that its index grows by.
        more = os.statvfs(folder).f_bavail - 7
        with ballast.open("r+b") as file:
            file.truncate(min(ballast.stat().st_size, ballast.stat().st_size + more * PAGE))
            file.seek(0, os.SEEK_END)
            file.write(bytes(max(more, 0) * PAGE))
        if (result := await appended(store, an_append(turn, seq, frames=b"x" * 100))) is not Appended.WRITTEN:
            break
        seq += 1
    assert isinstance(result, StoreUnavailable), result
    assert result.__cause__.sqlite_errorname == "SQLITE_IOERR_SHMSIZE", result.__cause__
    assert (await store.read_events(turn.id, 0, bytes_max=1)).last_seq == seq - 1
    ballast.unlink()
    for _ in range(20):
        await write(store, turn, seq)
        seq += 1
    assert (await store.read_events(turn.id, seq - 1, bytes_max=1)).last_seq == seq - 1
    assert failures == []
    holder.close()
    await store.close()

asyncio.run(main())
"""


@pytest.mark.tool("unshare")
def test_a_disk_without_room_for_the_index_of_the_log_is_lived_through_too(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=40m tmpfs "$1" && exec {sys.executable} -c "$2" "$1"'
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", str(tmp_path), _FULL_DISK_AT_THE_INDEX]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert process.returncode == 0, process.stderr


async def test_an_io_error_stops_everything(path: Path, clock: TurnableClock) -> None:
    failures: list[Exception] = []

    def fail(_: sqlite3.Connection, __: float) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    async with opened(path, clock=clock, on_fatal=failures.append) as store:
        turn = await begin(store, await make_session(store, clock))
        first = handed_in(store, an_append(turn, 1))
        with pytest.raises(StoreFailed):
            await store._write(fail)
        assert isinstance(await first, StoreFailed)
        assert isinstance(await appended(store, an_append(turn, 1)), StoreFailed)
        with pytest.raises(StoreFailed):
            await make_session(store, clock)
        assert (await store.read_events(turn.id, 0, bytes_max=1)).last_seq == 0

    assert len(failures) == 1


_LIMITED = """
import asyncio, resource, sys
from turnwire.seams.store import Appended
from turnwire.stores.sqlite import SQLiteStore, StoreFailed
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import an_append, appended, begin, make_session

async def main():
    failures = []
    store, clock = await SQLiteStore.open(sys.argv[1], on_fatal=failures.append), TurnableClock()
    turn = await begin(store, await make_session(store, clock))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    seq = 1
    while (result := await appended(store, an_append(turn, seq, frames=b"x" * 50_000))) is Appended.WRITTEN:
        seq += 1
    assert isinstance(result, StoreFailed), result
    assert failures == [result], failures
    await store.close()
    print(turn.id, seq - 1)

asyncio.run(main())
"""


async def test_a_write_that_the_system_refuses_stops_everything_and_loses_nothing(path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert process.returncode == 0, process.stderr
    turn_id, last_seq = process.stdout.split()

    async with opened(path) as store:
        assert (await store.read_events(turn_id, 0, bytes_max=1)).last_seq == int(last_seq) > 3


# Damage


def _flip(path: Path, where: bytes) -> None:
    """Flip a bit of the first place in the file that holds `where`."""
    content = bytearray(path.read_bytes())
    at = content.index(where)
    content[at] ^= 1
    path.write_bytes(content)


async def test_a_damaged_segment_is_never_given_out(
    path: Path, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path, clock=clock) as store:
        session = await make_session(store, clock)
        turn = await begin(store, session)
        for seq in range(1, 600):
            await write(store, turn, seq)
        monkeypatch.setattr(log, "NEWEST_CHECKED", 100)  # opening does not read the damage
    _flip(path, b'"content":"42 "')

    async with opened(path, clock=clock) as store:
        assert len(frames_of(await store.read_events(turn.id, 43, bytes_max=1_000_000))) == 557
        with pytest.raises(StoreDamaged, match="events 42 to 42"):
            await store.read_events(turn.id, 40, bytes_max=1_000_000)
        page = await store.read_events(turn.id, 41, bytes_max=1)
        assert frames_of(page) == [deltas(41, 1)]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM segments WHERE first_seq = 3",
        "DELETE FROM segments WHERE first_seq = 5",
        "UPDATE segments SET first_seq = 7, last_seq = 7 WHERE first_seq = 3",
        "UPDATE segments SET frames = (SELECT frames FROM segments WHERE first_seq = 2),"
        " checksum = (SELECT checksum FROM segments WHERE first_seq = 2) WHERE first_seq = 3",
        "UPDATE segments SET last_seq = 4 WHERE first_seq = 3",
        "DELETE FROM segments",
    ],
)
async def test_a_gap_or_a_misplaced_segment_is_damage(path: Path, clock: TurnableClock, damage: str) -> None:
    async with opened(path, clock=clock) as store:
        turn = await begin(store, await make_session(store, clock))
        for seq in range(1, 6):
            await write(store, turn, seq)
        with closing(sqlite3.connect(path)) as db:
            db.execute(damage)
            db.commit()

        with pytest.raises(StoreDamaged):
            await store.read_events(turn.id, 0, bytes_max=1_000_000)


async def test_a_running_turn_without_its_last_segment_is_refused_at_the_start(
    path: Path, clock: TurnableClock
) -> None:
    async with opened(path, clock=clock) as store:
        turn = await begin(store, await make_session(store, clock))
        await write(store, turn, 1)
        with closing(sqlite3.connect(path)) as db:
            db.execute("DELETE FROM segments WHERE first_seq = 1")
            db.commit()

    with pytest.raises(StoreRefused, match="has a gap"):
        await SQLiteStore.open(path)


async def test_damage_among_the_newest_segments_is_refused_at_the_start(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock) as store:
        turn = await begin(store, await make_session(store, clock))
        await write(store, turn, 1, 3)
    _flip(path, b'"content":"2 "')

    with pytest.raises(StoreRefused, match=r"turnwire\.db is damaged"):
        await SQLiteStore.open(path)


@pytest.mark.parametrize("kept", [1, 99, 100, 4096, 0.5, -1])
async def test_a_file_that_is_cut_off_is_refused(path: Path, clock: TurnableClock, kept: float) -> None:
    async with opened(path, clock=clock) as store:
        for _ in range(20):
            await a_finished_turn(store, await make_session(store, clock), 30)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else int(kept)])

    with pytest.raises(StoreRefused, match=r"turnwire\.db") as refused:
        await SQLiteStore.open(path)
    assert "restore a backup" in str(refused.value)


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("Once upon a time, there was a text file that was no database.\n" * 10)
    before = path.read_bytes()

    with pytest.raises(StoreRefused, match="no SQLite database"):
        await SQLiteStore.open(path)
    assert path.read_bytes() == before


async def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
        db.commit()

    with pytest.raises(StoreRefused, match="another program"):
        await SQLiteStore.open(path)


async def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="can't be opened"):
        await SQLiteStore.open(tmp_path / "missing" / "turnwire.db")


async def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))

    with pytest.raises(StoreRefused, match=r"needs 3\.37\.0"):
        await SQLiteStore.open(path)


# Migrations


async def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 999")

    with pytest.raises(StoreRefused, match=r"has the version 999, this turnwire knows versions up to \d+"):
        await SQLiteStore.open(path)
    assert database.read_version(path) == 999


def test_a_migration_that_fails_leaves_the_version_before_it(path: Path) -> None:
    first = load_migrations("turnwire.stores.sqlite")
    open_database(path, "FULL", first).close()
    broken = Migration(len(first) + 1, "broken", "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);")

    with pytest.raises(StoreRefused, match="no such table: nowhere"):
        open_database(path, "FULL", [*first, broken])
    assert database.read_version(path) == len(first)
    with closing(open_database(path, "FULL", first)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)
    mended = broken._replace(sql="CREATE TABLE half (x);")
    with closing(open_database(path, "FULL", [*first, mended])) as db:
        assert db.execute("SELECT count(*) FROM half").fetchone() == (0,)
    assert database.read_version(path) == len(first) + 1


def test_a_first_migration_that_fails_can_be_made_anew(path: Path) -> None:
    with pytest.raises(StoreRefused):
        open_database(path, "FULL", [Migration(1, "broken", "CREATE TABLE a (x); nonsense;")])

    open_database(path, "FULL").close()
    assert database.read_version(path) == len(load_migrations("turnwire.stores.sqlite"))


async def test_opening_again_changes_nothing(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock) as store:
        session = await make_session(store, clock)
        turn = await a_finished_turn(store, session, 3)
    async with opened(path, clock=clock) as store:
        assert (await store.get_session(TENANT, session.id)).response_id == turn.id
        assert len(frames_of(await store.read_events(turn.id, 0, bytes_max=1_000_000))) == 4


# Size


@pytest.mark.slow
async def test_the_write_ahead_log_is_bounded_under_reading_and_writing(
    path: Path, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WAL_BYTES_MAX", 6_000_000)
    written, largest = 0, 0
    async with opened(path, clock=clock, synchronous="NORMAL") as store:
        turns = [await begin(store, await make_session(store, clock)) for _ in range(8)]
        stop = asyncio.Event()

        def dawdle(db: sqlite3.Connection) -> None:
            db.execute("SELECT count(*) FROM segments").fetchone()
            time.sleep(0.02)

        async def read() -> None:
            while not stop.is_set():
                await store._read(dawdle)

        readers = [asyncio.create_task(read()) for _ in range(8)]  # there is always one
        for seq in range(1, 100):
            appends: list[Append] = [an_append(turn, seq, frames=b"x" * 60_000) for turn in turns]
            results = await asyncio.gather(*(handed_in(store, append) for append in appends))
            assert results == [Appended.WRITTEN] * 8
            written += 8 * 60_000
            largest = max(largest, path.with_name("turnwire.db-wal").stat().st_size)
        stop.set()
        await asyncio.gather(*readers)

    assert written > 45_000_000
    assert largest < 15_000_000


async def test_purging_takes_bites_and_gives_the_space_back(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock, synchronous="NORMAL") as store:
        session, other = await make_session(store, clock), await make_session(store, clock)
        turn, running = await begin(store, session), await begin(store, other)
        for seq in range(1, 300):
            await write(store, turn, seq, frames=b"x" * 60_000)
        await write(store, turn, 300, ending=COMPLETED)
        await store.delete_session(TENANT, session.id)
        before = store.commits
        full = await store._read(_pages)
        purge = asyncio.create_task(store.purge_sessions(limit=10))
        waits: list[float] = []
        seq = 0
        while not purge.done():
            began = time.monotonic()
            seq += 1
            await write(store, running, seq)
            waits.append(time.monotonic() - began)

        assert [gone.id for gone in await purge] == [session.id]
        assert store.commits - before > 18
        assert store.commits - before - seq < 100
        assert seq > 5
        left = await store._read(_pages)
        assert left < full / 2
        with pytest.raises(NotFound):
            await store.read_events(turn.id, 0, bytes_max=1)
        assert (await store.read_events(running.id, 0, bytes_max=1)).last_seq == seq


def _pages(db: sqlite3.Connection) -> int:
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    return pages


async def test_dropping_a_long_log_hides_it_from_the_first_bite_on(path: Path, clock: TurnableClock) -> None:
    async with opened(path, clock=clock, synchronous="NORMAL") as store:
        session = await make_session(store, clock)
        turn = await begin(store, session)
        for seq in range(1, 450):
            await write(store, turn, seq)
        await write(store, turn, 450, ending=COMPLETED)
        clock.turn(1)
        (n,) = await store._read(lambda db: db.execute("SELECT n FROM turns").fetchone())
        assert await store._write(lambda db, now: sweep.drop_bite(db, now, n))
        with pytest.raises(NotFound, match="no longer kept"):
            await store.read_events(turn.id, 449, bytes_max=1)
        # A crash here leaves the rest: the next sweep goes on with it.
        assert await store.drop_events(ended_before=clock.now(), limit=10) == 1
        assert await store._read(lambda db: db.execute("SELECT count(*) FROM segments").fetchone()) == (0,)


async def test_closing_twice_is_fine_and_leaves_one_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store = await SQLiteStore.open(path)
    await store.list_keys()
    await asyncio.gather(store.close(), store.close())
    await store.close()

    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert caplog.text == ""
