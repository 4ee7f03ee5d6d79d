"""What only the PostgreSQL store promises: group commit, lost connections, the hold, full disks, migrations."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from clusters import PASSWORD, Cluster, running
from stores.writers import WriterProcess, check_all_there
from turnwire import database_url
from turnwire.protocol.codec import encode_frame, encode_frames, split_frames
from turnwire.protocol.errors import NotFound
from turnwire.protocol.events import MessageCompleted, TextDelta, TextStart, TextStop, Usage
from turnwire.seams.store import Appended, Ending, HistoryEntry, StoreDamaged, StoreUnavailable, Turn
from turnwire.stores.common import StoreFailed, StoreRefused
from turnwire.stores.migrations import Migration, load_migrations
from turnwire.stores.postgres import PostgresStore, check, connection, hold, log, schema, sweep, writer
from turnwire.stores.postgres import database as database_module
from turnwire.stores.postgres import store as store_module
from turnwire.stores.postgres.appends import FENCE, write_appends
from turnwire.stores.postgres.check import check_all, look
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import (
    COMPLETED,
    TENANT,
    a_finished_turn,
    a_session,
    a_turn,
    an_append,
    appended,
    begin,
    deltas,
    end,
    frames_of,
    handed_in,
    make_session,
    write,
)

pytestmark = [pytest.mark.slow, pytest.mark.tool("postgres")]

MIGRATIONS = load_migrations("turnwire.stores.postgres")
END_CONNECTIONS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = 'tests' AND application_name LIKE 'turnwire %'
"""


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(url, **options)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection of somebody else, among our tables."""
    db: Any = await asyncpg.connect(url, server_settings={"search_path": "turnwire"})
    try:
        yield db
    finally:
        await db.close()


async def begin_anew(store: PostgresStore, clock: TurnableClock) -> Turn:
    return await begin(store, await make_session(store, clock))


# Group commit


async def test_many_turns_share_few_commits(database: str, clock: TurnableClock) -> None:
    async with opened(database) as store:
        turns = [await begin_anew(store, clock) for _ in range(50)]
        before = store.commits

        async def stream(turn: Turn) -> None:
            for seq in range(1, 21):
                await write(store, turn, seq)

        await asyncio.gather(*(stream(turn) for turn in turns))
        assert store.commits - before <= 1000 / 10


async def test_under_load_commits_begin_a_gap_apart_and_a_quiet_turn_never_waits(
    database: str, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GAP_S", 0.3)
    async with opened(database) as store:
        turns = [await begin_anew(store, clock) for _ in range(writer.LOAD_MIN)]

        async def commits_of(count: int) -> tuple[int, float]:
            before, began = store.commits, time.monotonic()
            for _ in range(3):
                await asyncio.gather(*(handed_in(store, an_append(turn, seq[turn.id])) for turn in turns[:count]))
                for turn in turns[:count]:
                    seq[turn.id] += 1
            return store.commits - before, time.monotonic() - began

        seq = dict.fromkeys([turn.id for turn in turns], 1)
        commits, took_s = await commits_of(writer.LOAD_MIN)
        assert commits == 3 and took_s > 2 * 0.3
        await asyncio.sleep(0.3)
        _, took_s = await commits_of(1)
        assert took_s < 0.3


async def test_an_append_that_can_not_be_written_fails_alone(database: str, clock: TurnableClock) -> None:
    async with opened(database) as store:
        turns = [await begin_anew(store, clock) for _ in range(3)]
        futures = [
            handed_in(store, an_append(turns[0], 1)),
            handed_in(store, an_append(turns[1], 1, history=(HistoryEntry("nonsense", b""),))),
            handed_in(store, an_append(turns[2], 1, last_seq=2**70)),
        ]

        assert await futures[0] is Appended.WRITTEN
        assert isinstance(await futures[1], asyncpg.CheckViolationError)
        assert "out of" in str(await futures[2])
        await write(store, turns[1], 1)


async def test_a_caller_that_is_cancelled_hurts_nobody_and_leaves_nothing_half_done(
    database: str, clock: TurnableClock
) -> None:
    async with opened(database) as store:
        session = await make_session(store, clock)
        for n in range(20):
            new = a_turn(session)
            task = asyncio.create_task(store.begin_turn(new))
            await asyncio.sleep(0.0005 * n)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            begun = await store.begin_turn(new)
            assert begun.turn.id == new.id
            await end(store, begun.turn)
        assert len(await store.list_turns(TENANT, session.id)) == 20


@pytest.mark.parametrize("count", [1, 2, 33, 300])
async def test_a_group_is_two_statements_whatever_its_size(database: str, clock: TurnableClock, count: int) -> None:
    async with opened(database) as store, connected(database) as db:
        turns = [await begin_anew(store, clock)]
        await write_appends(db, [an_append(turns[0], 9)], None)  # a new connection has to learn our types first
        await write_appends(db, [an_append(turns[0], 1)], None)
        turns = await asyncio.gather(*(begin_anew(store, clock) for _ in range(count)))
        statements: list[str] = []
        async with db.transaction():
            with db.query_logger(lambda record: statements.append(record.query)):
                appends = [an_append(turn, 1, 1 + i % 3) for i, turn in enumerate(turns)]
                assert await write_appends(db, appends, None) == [Appended.WRITTEN] * count
        assert len(statements) == 2
        for i, turn in enumerate(turns):
            page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
            assert frames_of(page)[1:] == split_frames(deltas(1, 1 + i % 3))


async def test_the_fence_looks_turns_up_by_their_id(database: str, clock: TurnableClock) -> None:
    async with opened(database) as store, connected(database) as db:
        await begin_anew(store, clock)
        await db.execute(
            "INSERT INTO turns (id, session, created_at, ended_at, status, owner, lease_until)"
            " SELECT 'msg_' || i, (SELECT min(n) FROM sessions), 1, 2, 'completed', '', 0"
            " FROM generate_series(1, 20000) AS i"
        )
        await db.execute("ANALYZE turns")
        await db.execute(f"PREPARE fence (text[], bigint[], bigint[], bigint[], boolean[]) AS {FENCE}")
        for mode in ("force_generic_plan", "force_custom_plan"):
            await db.execute(f"SET plan_cache_mode = {mode}")
            rows = await db.fetch("EXPLAIN EXECUTE fence ('{a,b}', '{1,1}', '{0,0}', '{1,1}', '{f,f}')")
            plan = "\n".join(line for (line,) in rows)
            assert "Index Scan using turns_id_key on turns" in plan and "Seq Scan on turns" not in plan, plan


# Durability


async def test_no_default_of_the_database_makes_commits_less_than_durable(database: str, cluster: Cluster) -> None:
    cluster.sql("ALTER DATABASE tests SET synchronous_commit = off")
    cluster.sql("ALTER DATABASE tests SET default_transaction_isolation = 'serializable'")
    try:
        async with opened(database) as store:
            read = store._database.read
            assert await read(lambda db: db.fetchval("SHOW synchronous_commit")) == "on"
            assert await read(lambda db: db.fetchval("SHOW transaction_isolation")) == "read committed"
        async with opened(f"{database}?synchronous_commit=remote_apply") as store:
            assert await store._database.read(lambda db: db.fetchval("SHOW synchronous_commit")) == "remote_apply"
    finally:
        cluster.sql("ALTER DATABASE tests RESET ALL")


async def test_no_timeout_of_the_database_ends_statements_or_the_hold(
    database: str, clock: TurnableClock, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    for setting in ("statement_timeout", "lock_timeout", "idle_session_timeout"):
        cluster.sql(f"ALTER DATABASE tests SET {setting} = 1")
    try:
        async with opened(database) as store:
            await asyncio.sleep(0.2)
            await a_finished_turn(store, await make_session(store, clock))
    finally:
        cluster.sql("ALTER DATABASE tests RESET ALL")
    assert not caplog.records


async def test_all_that_is_ours_is_in_a_schema_of_its_own(database: str, cluster: Cluster) -> None:
    async with opened(database):
        where = cluster.sql(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
            "tests",
        )

    assert where == "turnwire"


async def test_a_socket_of_the_machine_will_do(database: str, cluster: Cluster) -> None:
    async with opened(f"postgresql:///tests?host={cluster.folder}&port={cluster.port}&user=turnwire") as store:
        assert await store.list_keys() == []


async def test_of_several_hosts_one_that_is_there_is_used(database: str, cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    url = database.replace("@", f"@127.0.0.1:{nobody},")
    database_url.check(url)

    async with opened(url) as store:
        assert await store.list_keys() == []


async def test_a_standby_is_refused() -> None:
    with running() as cluster, cluster.database() as url:
        cluster.stop()
        (cluster.data / "standby.signal").touch()
        cluster.start()

        with pytest.raises(StoreRefused, match="is a standby, which takes no writes: name the primary"):
            await PostgresStore.open(url)


async def test_times_are_the_database_s(database: str, clock: TurnableClock) -> None:
    async with opened(database) as store:
        session = await make_session(store, clock)
        before = time.time()
        turn = await a_finished_turn(store, session)
        kept = await store.get_turn(TENANT, session.id, turn.id)

    assert kept.ended_at is not None
    assert before - 1 < kept.created_at <= kept.ended_at < time.time() + 1


@pytest.mark.parametrize("victim", ["the server", "the database"])
async def test_what_was_acknowledged_survives_a_kill_of(victim: str) -> None:
    with running() as cluster, cluster.database() as url:
        process = WriterProcess(PostgresStore, url)
        process.run_for(1)
        if victim == "the database":
            cluster.stop(signal.SIGQUIT)
        acknowledged = process.kill()
        if victim == "the database":
            cluster.start()

        async with opened(url) as store:
            await check_all_there(store, acknowledged)


# Lost connections


class _Lossy:
    """Commits of which some are cut off: before the database has them, or before its answer is here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.losses: list[str] = []
        commit = asyncpg.transaction.Transaction.commit

        async def lossy(transaction: Any) -> None:
            loss = self.losses.pop(0) if self.losses else ""
            if loss != "before":
                await commit(transaction)
            if loss:
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

        monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", lossy)


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> _Lossy:
    return _Lossy(monkeypatch)


LOSSES = pytest.mark.parametrize("losses", [["before"], ["after"], ["before", "after"], ["after", "before", "after"]])


@LOSSES
async def test_an_append_whose_commit_was_cut_off_is_written_once(
    database: str, clock: TurnableClock, lossy: _Lossy, losses: list[str]
) -> None:
    async with opened(database) as store:
        session = await make_session(store, clock)
        turn = await begin(store, session)
        lossy.losses = list(losses)
        await write(store, turn, 1, 3, history=(HistoryEntry("response", b"r"),))
        lossy.losses = list(losses)
        await write(store, turn, 4, ending=COMPLETED)

        assert len(await store.read_history(session.id)) == 2
        assert frames_of(await store.read_events(turn.id, 1, bytes_max=10_000)) == split_frames(deltas(1, 4))
        assert not (await store.get_session(TENANT, session.id)).busy


@LOSSES
@pytest.mark.parametrize("key", [None, "k1"])
async def test_a_begin_whose_commit_was_cut_off_finds_itself(
    database: str, clock: TurnableClock, lossy: _Lossy, losses: list[str], key: str | None
) -> None:
    async with opened(database) as store:
        session = await make_session(store, clock)
        new = a_turn(session, idempotency_key=key, fingerprint=b"f")
        lossy.losses = list(losses)

        begun = await store.begin_turn(new)

        assert (begun.turn.id, begun.replayed) == (new.id, False)
        assert begun.session.busy
        assert len(await store.list_turns(TENANT, session.id)) == 1
        assert len(await store.read_history(session.id)) == 1


@pytest.mark.parametrize("patient", [True, False], ids=["in the same call", "in the next call"])
async def test_a_commit_that_was_cut_off_is_acknowledged_when_the_standby_has_it(
    database: str, clock: TurnableClock, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    if not patient:
        monkeypatch.setattr(database_module, "DOUBT_PATIENCE_S", 0.0)

    def standbys(names: str) -> None:
        cluster.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        cluster.sql("SELECT pg_reload_conf()")

    waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    async with opened(database) as store:
        turn = await begin_anew(store, clock)
        standbys("nobody")
        try:
            future = handed_in(store, an_append(turn, 1))
            for _ in range(2):
                while not future.done() and cluster.sql(f"SELECT count(*) {waits}") == "0":
                    await asyncio.sleep(0.05)
                assert not future.done()
                cluster.sql(f"SELECT pg_terminate_backend(pid, 1000) {waits}")
                if not patient:
                    assert isinstance(await future, StoreUnavailable)
                    future = handed_in(store, an_append(turn, 1))
        finally:
            standbys("")
        assert await future is Appended.WRITTEN


async def test_what_can_not_be_looked_up_is_not_done_twice(database: str, clock: TurnableClock, lossy: _Lossy) -> None:
    async with opened(database) as store:
        session = a_session(clock)
        lossy.losses = ["after"]
        with pytest.raises(StoreUnavailable):
            await store.create_session(session)
        turn = await begin(store, session)

        lossy.losses = ["after"]
        with pytest.raises(StoreUnavailable):
            await store.take_over("server-2", lease_s=1, everything=True)
        assert (await store.get_turn(TENANT, session.id, turn.id)).epoch == 2


async def _stories(store: PostgresStore, clock: TurnableClock, stop: asyncio.Event) -> list[tuple[str, str, int]]:
    """Turns that begin, run and end in one session, until told to stop: session, turn and last event of each."""
    session = await make_session(store, clock)
    told: list[tuple[str, str, int]] = []
    while not stop.is_set():
        turn = await begin(store, session)
        for seq in range(1, 6):
            await write(store, turn, seq, history=(HistoryEntry("response", b"%d" % seq),))
        await end(store, turn, 6)
        told.append((session.id, turn.id, 6))
    return told


async def _require_told(store: PostgresStore, told: list[tuple[str, str, int]]) -> None:
    for session_id in {session_id for session_id, _, _ in told}:
        listed = await store.list_turns(TENANT, session_id, limit=9999)
        turns = [(session_id, turn.id, turn.last_seq) for turn in listed]
        assert sorted(turns) == sorted(story for story in told if story[0] == session_id)
        assert len(await store.read_history(session_id)) == 6 * len(turns)
    for _, turn_id, last in told:
        page = await store.read_events(turn_id, 1, bytes_max=1_000_000)
        assert (frames_of(page), page.ended) == (split_frames(deltas(1, last)), True)


async def test_connections_that_are_killed_again_and_again_lose_and_double_nothing(
    database: str, clock: TurnableClock, cluster: Cluster
) -> None:
    async with opened(database) as store:
        stop = asyncio.Event()
        stories = [asyncio.create_task(_stories(store, clock, stop)) for _ in range(8)]
        killed = 0
        for _ in range(25):
            await asyncio.sleep(0.15)
            killed += int(await asyncio.to_thread(cluster.sql, END_CONNECTIONS))
        stop.set()
        told = [story for stories_ in await asyncio.wait_for(asyncio.gather(*stories), 60) for story in stories_]

        assert killed > 50 and len(told) > 16
        await _require_told(store, told)


async def test_a_database_that_is_restarted_under_load_is_waited_for(clock: TurnableClock) -> None:
    with running() as cluster, cluster.database() as url:
        async with opened(url) as store:
            stop = asyncio.Event()
            stories = [asyncio.create_task(_stories(store, clock, stop)) for _ in range(8)]
            for how in (signal.SIGINT, signal.SIGQUIT):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(cluster.stop, how)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(cluster.start)
            await asyncio.sleep(0.5)
            stop.set()
            told = [story for stories_ in await asyncio.wait_for(asyncio.gather(*stories), 60) for story in stories_]

            assert len(told) > 16
            await _require_told(store, told)


async def test_a_database_that_stays_away_refuses_and_then_works_again(
    clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PATIENCE_S", 0.3)
    failures: list[Exception] = []
    with running("fsync=off") as cluster, cluster.database() as url:
        async with opened(url, on_fatal=failures.append) as store:
            session = await make_session(store, clock)
            turn = await begin(store, session)
            await write(store, turn, 1)
            cluster.stop()

            result = await appended(store, an_append(turn, 2))
            assert isinstance(result, StoreUnavailable) and result.retry_after_s
            for call in (
                store.get_session(TENANT, session.id),
                store.create_session(a_session(clock)),
                store.begin_turn(a_turn(session)),
                store.read_events(turn.id, 0, bytes_max=1),
                store.renew_leases("server-1", [turn.id], lease_s=1),
            ):
                with pytest.raises(StoreUnavailable):
                    await call

            cluster.start("fsync=off")
            until = time.monotonic() + 20
            while await appended(store, an_append(turn, 2)) is not Appended.WRITTEN:
                assert time.monotonic() < until
            assert (await store.read_events(turn.id, 0, bytes_max=1_000_000)).last_seq == 2
    assert failures == []


async def test_a_store_whose_database_is_away_closes_at_once(clock: TurnableClock) -> None:
    with running("fsync=off") as cluster, cluster.database() as url:
        store = await PostgresStore.open(url)
        turn = await begin_anew(store, clock)
        cluster.stop()
        waiting = handed_in(store, an_append(turn, 1))
        await asyncio.sleep(0.2)

        await asyncio.wait_for(store.close(), 4)

        assert isinstance(await waiting, StoreUnavailable)


_FULL_DISK = """
import asyncio, pathlib, random, sys
from clusters import running
from turnwire.seams.store import Appended, StoreUnavailable
from turnwire.stores.postgres import PostgresStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import an_append, appended, begin, make_session, write

async def main(cluster, folder):
    failures = []
    store = await PostgresStore.open(cluster.url("tight"), on_fatal=failures.append)
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
    while (result := await appended(store, an_append(turn, seq, frames=random.randbytes(9_000)))) is Appended.WRITTEN:
        seq += 1
    assert isinstance(result, StoreUnavailable), result
    assert "disk" in str(result), result
    assert (await store.read_events(turn.id, 0, bytes_max=1)).last_seq == seq - 1
    ballast.unlink()
    for _ in range(20):
        await write(store, turn, seq)
        seq += 1
    assert (await store.read_events(turn.id, seq - 1, bytes_max=1)).last_seq == seq - 1
    assert failures == []
    await store.close()

folder = pathlib.Path(sys.argv[1])
with running() as cluster:
    cluster.own(folder / "space")
    cluster.sql(f"CREATE TABLESPACE small LOCATION '{folder / 'space'}'")
    cluster.sql("CREATE DATABASE tight TABLESPACE small")
    asyncio.run(main(cluster, folder))
"""


@pytest.mark.tool("overlay")
def test_a_full_disk_is_lived_through() -> None:
    """Of the tables alone: where the write-ahead log has no room PostgreSQL stops, an outage as others are."""
    script = f'mount -t tmpfs -o size=60m,mode=755 tmpfs /mnt && exec {sys.executable} -c "$1" /mnt'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", _FULL_DISK]
    env = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PATH": os.environ["PATH"]}
    process = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=env)

    assert process.returncode == 0, process.stderr


# One server to a database


async def test_a_second_server_is_refused_and_single_actions_are_not(database: str, clock: TurnableClock) -> None:
    async with opened(database) as store:
        with pytest.raises(StoreRefused, match=r"in use by another server \(turnwire \w+ pid \d+ on ") as refused:
            await PostgresStore.open(database)
        assert PASSWORD not in str(refused.value)

        async with opened(database, hold=False) as beside:
            await make_session(beside, clock)
        assert len(await store.list_sessions(TENANT)) == 1
    async with opened(database):
        pass


HOLDS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 1953982834 AND objid = 1 AND granted"


async def test_a_hold_that_is_lost_is_taken_again_before_anything_is_written(
    database: str, clock: TurnableClock, cluster: Cluster
) -> None:
    async with opened(database) as store:
        turn = await begin_anew(store, clock)
        before = cluster.sql(HOLDS)
        cluster.sql(f"SELECT pg_terminate_backend({before})")
        await asyncio.sleep(0.05)  # until the loop has heard of it

        await write(store, turn, 1)

        assert cluster.sql(HOLDS) not in ("", before)


async def test_a_server_whose_hold_another_one_has_taken_stops_and_writes_nothing(
    database: str, clock: TurnableClock, cluster: Cluster
) -> None:
    failures: list[Exception] = []
    async with opened(database, on_fatal=failures.append) as store:
        turn = await begin_anew(store, clock)
        async with connected(database) as rival:
            waits = asyncio.create_task(rival.execute("SELECT pg_advisory_lock(1953982834, 1)"))
            await asyncio.sleep(0.2)
            cluster.sql(f"SELECT pg_terminate_backend({cluster.sql(HOLDS)})")
            await waits
            # A moment later it knows; what it writes until then is fenced by the epochs of the other one.
            until = time.monotonic() + 5
            while not failures and time.monotonic() < until:
                await asyncio.sleep(0.01)
            result = await appended(store, an_append(turn, 1))

            assert isinstance(result, StoreFailed) and "took the database" in str(result)
            assert failures == [result]
            with pytest.raises(StoreFailed):
                await make_session(store, clock)
            assert (await store.read_events(turn.id, 0, bytes_max=1)).last_seq == 0


# Opening, and migrations


async def test_opening_again_changes_nothing(database: str, clock: TurnableClock) -> None:
    async with opened(database) as store:
        session = await make_session(store, clock)
        turn = await a_finished_turn(store, session, 3)
    async with opened(database) as store:
        assert (await store.get_session(TENANT, session.id)).response_id == turn.id
        assert len(frames_of(await store.read_events(turn.id, 0, bytes_max=1_000_000))) == 4


async def test_a_newer_database_is_refused_and_left_alone(database: str) -> None:
    async with opened(database):
        pass
    async with connected(database) as db:
        await db.execute("INSERT INTO schema_version (version, name) VALUES (999, 'later')")

        with pytest.raises(StoreRefused, match=r"has the version 999, this turnwire knows versions up to \d+"):
            await PostgresStore.open(database)
        assert await db.fetchval("SELECT max(version) FROM schema_version") == 999


async def test_a_migration_that_fails_leaves_the_version_before_it(database: str) -> None:
    broken = Migration(len(MIGRATIONS) + 1, "broken", "CREATE TABLE half (x integer); INSERT INTO nowhere VALUES (1);")
    async with connected(database) as db:
        with pytest.raises(StoreRefused, match='relation "nowhere" does not exist'):
            await schema.migrate(db, "here", [*MIGRATIONS, broken], held=True)
        assert await schema.read_version(db, "here") == len(MIGRATIONS)
        assert await db.fetchval("SELECT to_regclass('turnwire.half')") is None

        await schema.migrate(db, "here", [*MIGRATIONS, broken._replace(sql="CREATE TABLE half (x integer)")], held=True)
        assert await schema.read_version(db, "here") == len(MIGRATIONS) + 1


async def test_a_migration_takes_what_it_takes(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Migration(len(MIGRATIONS) + 1, "slow", "SELECT pg_sleep(2)")
    monkeypatch.setattr(store_module, "load_migrations", lambda _: [*MIGRATIONS, slow])
    monkeypatch.setattr(hold, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(connection, "_COMMAND_TIMEOUT_S", 1.0)

    async with opened(database), connected(database) as db:
        assert await schema.read_version(db, "here") == slow.version


async def test_nothing_is_migrated_under_a_server_that_runs(database: str) -> None:
    later = Migration(len(MIGRATIONS) + 1, "later", "CREATE TABLE later (x integer)")
    async with opened(database), connected(database) as db:
        with pytest.raises(StoreRefused, match="in use by a server of another version"):
            await schema.migrate(db, "here", [*MIGRATIONS, later], held=False)
        assert await schema.read_version(db, "here") == len(MIGRATIONS)


async def test_programs_that_open_an_empty_database_at_once_make_its_tables_once(database: str) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(database, hold=False) for _ in range(5)))
    for store in stores:
        assert await store.list_keys() == []
        await store.close()


@pytest.mark.parametrize("losses", [1, 2, 3])
async def test_a_connection_that_is_lost_while_the_store_is_opened_is_made_again(
    database: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    left = losses
    migrate = store_module.migrate

    async def cut_off(db: Any, *args: Any, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            cluster.sql(END_CONNECTIONS)
        await migrate(db, *args, **options)

    monkeypatch.setattr(store_module, "migrate", cut_off)
    if losses == 3:
        with pytest.raises(StoreRefused, match="can't be reached"):
            await PostgresStore.open(database)
    else:
        async with opened(database) as store:
            assert await store.list_keys() == []


async def test_a_schema_of_another_program_is_refused(database: str, cluster: Cluster) -> None:
    cluster.sql("CREATE SCHEMA turnwire CREATE TABLE theirs (x integer)", "tests")

    with pytest.raises(StoreRefused, match="a schema turnwire of another program"):
        await PostgresStore.open(database)


async def test_a_user_without_rights_is_told_what_it_needs(database: str, cluster: Cluster) -> None:
    cluster.sql("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    try:
        with pytest.raises(StoreRefused, match="CREATE SCHEMA turnwire AUTHORIZATION"):
            await PostgresStore.open(f"postgresql://poor:poor@127.0.0.1:{cluster.port}/tests")
        cluster.sql("CREATE SCHEMA turnwire AUTHORIZATION poor", "tests")
        async with opened(f"postgresql://poor:poor@127.0.0.1:{cluster.port}/tests") as store:
            assert await store.list_keys() == []
    finally:
        cluster.sql("DROP SCHEMA IF EXISTS turnwire CASCADE", "tests")
        cluster.sql("DROP ROLE poor")


async def test_tables_of_another_user_are_refused_when_they_are_looked_at_or_opened(
    database: str, cluster: Cluster
) -> None:
    async with opened(database):
        pass
    cluster.sql("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    url = f"postgresql://poor:poor@127.0.0.1:{cluster.port}/tests"
    try:
        for open_ in (PostgresStore.open, look):
            with pytest.raises(StoreRefused, match="permission denied for schema turnwire"):
                await open_(url)
        cluster.sql("GRANT USAGE ON SCHEMA turnwire TO poor", "tests")
        for open_ in (PostgresStore.open, look, check_all):
            with pytest.raises(StoreRefused, match="permission denied for table"):
                await open_(url)
        cluster.sql("GRANT ALL ON ALL TABLES IN SCHEMA turnwire TO poor", "tests")
        cluster.sql("REVOKE DELETE ON turnwire.access_keys FROM poor", "tests")
        with pytest.raises(StoreRefused, match="has no right to the table access_keys: let it own the schema turnwire"):
            await PostgresStore.open(url)
        cluster.sql("GRANT DELETE ON turnwire.access_keys TO poor", "tests")
        cluster.sql("CREATE TABLE turnwire.copy_of_somebody (x integer)", "tests")
        async with opened(url) as store:
            assert await store.list_keys() == []
    finally:
        cluster.sql("DROP OWNED BY poor", "tests")
        cluster.sql("DROP ROLE poor")


@pytest.mark.parametrize("reader", [look, check_all])
async def test_a_connection_that_is_lost_while_a_database_is_looked_at_is_a_refusal(
    database: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, reader: Callable[[str], Awaitable[Any]]
) -> None:
    async with opened(database):
        pass
    connect = check.connect_or_refuse

    async def lost(*words: str) -> Any:
        db = await connect(*words)
        cluster.sql(END_CONNECTIONS)
        return db

    monkeypatch.setattr(check, "connect_or_refuse", lost)

    with pytest.raises(StoreRefused, match="can't be reached"):
        await reader(database)


async def test_a_database_in_another_encoding_is_refused(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")

    with pytest.raises(StoreRefused, match="is in LATIN1"):
        await PostgresStore.open(cluster.url("latin"))


# Damage, and a backup


async def _one_ended_and_one_running(store: PostgresStore, clock: TurnableClock) -> Turn:
    turn = await begin_anew(store, clock)
    await write(store, turn, 1, 3, frames=encode_frames([TextStart(), TextDelta("words"), TextStop()]))
    ending = encode_frame(MessageCompleted(turn.id, usage=Usage()))
    await write(store, turn, 4, frames=ending, ending=Ending("completed", Usage(), b"[]"))
    await begin_anew(store, clock)
    return turn


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE segments SET frames = frames || 'x' WHERE first_seq = 1", "not what was written"),
        ("UPDATE segments SET last_seq = 4 WHERE first_seq = 1", "not what was written"),
        ("DELETE FROM segments WHERE first_seq = 1", "events 1 to 3 are missing"),
        ("DELETE FROM segments WHERE first_seq = 4", "its last event is 4, and the log ends at 3"),
    ],
)
async def test_damage_is_never_given_out_and_the_doctor_finds_it(
    database: str, clock: TurnableClock, change: str, fault: str
) -> None:
    async with opened(database) as store, connected(database) as db:
        turn = await _one_ended_and_one_running(store, clock)
        assert await check_all(database) == (2, 6, [])
        await db.execute(change)

        with pytest.raises(StoreDamaged):
            await store.read_events(turn.id, 0, bytes_max=1_000_000)
    [found] = (await check_all(database)).faults
    assert fault in found


async def test_a_dump_of_a_running_server_s_database_is_a_backup(
    database: str, clock: TurnableClock, cluster: Cluster, tmp_path: Path
) -> None:
    dump = tmp_path / "turnwire.dump"
    async with opened(database) as store:
        turn = await _one_ended_and_one_running(store, clock)
        command = [cluster.programs / "pg_dump", "--format=custom", "--schema=turnwire", f"--file={dump}", database]
        subprocess.run(command, check=True)
    with cluster.database() as restored:
        command = [cluster.programs / "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={restored}", dump]
        subprocess.run(command, check=True)
        assert await check_all(restored) == (2, 6, [])
        async with opened(restored) as store:
            assert (await store.read_events(turn.id, 0, bytes_max=1)).last_seq == 4
            assert len(await store.take_over("next", lease_s=1, everything=True)) == 1


# Size


async def test_a_page_of_many_small_segments_is_whole(
    database: str, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database) as store:
        turn = await begin_anew(store, clock)
        for seq in range(1, 3 * log.SEGMENTS_MAX):
            await write(store, turn, seq)
        page = await store.read_events(turn.id, 0, bytes_max=10_000_000)
        assert frames_of(page)[1:] == split_frames(deltas(1, 3 * log.SEGMENTS_MAX - 1))

        most = len(deltas(100, 1)) * (log.SEGMENTS_MAX + 50)
        page = await store.read_events(turn.id, 10, bytes_max=most)
        assert log.SEGMENTS_MAX + 20 < len(page.segments) < log.SEGMENTS_MAX + 100


async def test_purging_and_dropping_take_bites(
    database: str, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ROWS_MAX", 10)
    async with opened(database, clock=clock) as store, connected(database) as db:
        session = await make_session(store, clock)
        turn = await begin(store, session)
        for seq in range(1, 45):
            await write(store, turn, seq, history=(HistoryEntry("response", b"r"),))
        await end(store, turn, 45)
        clock.turn(1)
        n = await db.fetchval("SELECT n FROM turns")
        assert await sweep.drop_bite(db, n)
        with pytest.raises(NotFound, match="no longer kept"):
            await store.read_events(turn.id, 45, bytes_max=1)
        # A crash here leaves the rest: the next sweep goes on with it.
        assert await store.drop_events(ended_before=clock.now(), limit=10) == 1
        assert await db.fetchval("SELECT count(*) FROM segments") == 0

        await store.delete_session(TENANT, session.id)
        assert [gone.id for gone in await store.purge_sessions(limit=10)] == [session.id]
        for table in ("history", "turns", "turn_bodies", "sessions"):
            assert await db.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_closing_twice_is_fine(database: str) -> None:
    store = await PostgresStore.open(database)
    await store.list_keys()
    await asyncio.gather(store.close(), store.close())
    await store.close()
