"""The embedded store: SQLite, one writer thread, a few readers."""

import asyncio
import math
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from turnwire.protocol.errors import NotFound
from turnwire.protocol.events import Usage
from turnwire.seams.clock import Clock, SystemClock
from turnwire.seams.store import (
    Append,
    AppendDone,
    Begun,
    CallAnswer,
    HistoryEntry,
    Key,
    NewTurn,
    Page,
    RemoveFiles,
    Session,
    SessionChanges,
    Store,
    StoreDamaged,
    StoreUnavailable,
    Turn,
)
from turnwire.stores.common import RETRY_AFTER_S, delete_in_bites, require_condition
from turnwire.stores.sqlite import calls, log, sessions, sweep, turns
from turnwire.stores.sqlite.database import READER_BUSY_MS, Synchronous, connect, open_database
from turnwire.stores.sqlite.writer import Operation, Writer, is_full, primary_code

T = TypeVar("T")

READERS = 4
"""Threads that read. Reads are short, and what has caught up never reads: a few are enough."""


class SQLiteStore:
    """`turnwire.seams.store.Store` in one SQLite file. `open()` makes it; one process to a file."""

    def __init__(self, writer: Writer, path: Path, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._readers = _Readers(path)

    @classmethod
    async def open(
        cls,
        path: Path | str,
        *,
        clock: Clock | None = None,
        synchronous: Synchronous = "FULL",
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> "SQLiteStore":
        """Open the file, or make it; its folder must be there. `StoreRefused` when it can't be used.

        `on_fatal` is called on the event loop when the database fails in a way after which nothing may be written
        (a failed fsync): the server must stop. `synchronous="NORMAL"` may lose the last commits when the machine
        dies, never when the process does.
        """
        path = Path(path)
        db = await asyncio.to_thread(open_database, path, synchronous)
        clock = clock or SystemClock()
        return cls(Writer(db, path, clock, on_fatal), path, clock)

    @property
    def commits(self) -> int:
        """How many transactions were committed since the store was opened."""
        return self._writer.commits

    async def close(self) -> None:
        # The writer last: whoever closes the last connection brings the write-ahead log into the file.
        await self._readers.close()
        await self._writer.close()

    async def _write(self, operation: Operation[T]) -> T:
        return await self._writer.run(operation)

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return await self._readers.run(query)

    # Sessions

    async def create_session(self, session: Session) -> None:
        await self._write(partial(sessions.create, session=session))

    async def get_session(self, tenant: str, session_id: str) -> Session:
        return await self._read(partial(sessions.get, tenant=tenant, session_id=session_id))

    async def list_sessions(
        self, tenant: str, *, busy: bool | None = None, after: str | None = None, limit: int = 100
    ) -> list[Session]:
        return await self._read(partial(sessions.list_, tenant=tenant, busy=busy, after=after, limit=limit))

    async def update_session(self, tenant: str, session_id: str, changes: SessionChanges) -> Session:
        return await self._write(partial(sessions.update, tenant=tenant, session_id=session_id, changes=changes))

    async def delete_session(self, tenant: str, session_id: str) -> str | None:
        return await self._write(partial(sessions.delete, tenant=tenant, session_id=session_id))

    async def delete_sessions(self, tenant: str, *, idle: bool, older_than_s: float | None) -> int:
        require_condition(idle, older_than_s)
        before = math.inf if older_than_s is None else self._clock.now() - older_than_s
        return await self._sweep(sessions.older(tenant, before), limit=None)

    async def expire_sessions(self, *, idle_ttl_s: float, limit: int) -> int:
        expired = 0
        for sweep_ in sessions.expired(self._clock.now(), idle_ttl_s):
            expired += await self._sweep(sweep_, limit=limit - expired)
        return expired

    async def _sweep(self, sweep_: sessions.Sweep, limit: int | None) -> int:
        return await delete_in_bites(
            lambda bite: self._read(partial(sessions.find, sweep=sweep_, limit=bite)),
            lambda found: self._write(partial(sessions.delete_found, sweep=sweep_, found=found)),
            limit,
        )

    async def purge_sessions(self, *, limit: int, remove_files: RemoveFiles | None = None) -> list[Session]:
        purged: list[Session] = []
        for n in await self._read(partial(sweep.find_deleted, limit=limit)):
            try:
                session = await self._read(partial(sweep.describe, n=n))
            except NotFound:
                continue
            await self._bites(partial(sweep.purge_bite, session=n))
            if remove_files is not None and not await remove_files(session):
                continue
            if await self._write(partial(sweep.remove_session, session=n)):
                purged.append(session)
        await self._bites(sweep.forget)
        await self._bites(sweep.vacuum_bite)
        return purged

    async def _bites(self, bite: Operation[bool]) -> None:
        while await self._write(bite):
            pass

    # Turns

    async def begin_turn(self, new: NewTurn) -> Begun:
        return await self._write(partial(turns.begin, new=new))

    def append(self, append: Append, done: AppendDone) -> None:
        self._writer.append(append, done)

    async def keep_summary(self, turn_id: str, epoch: int, summary: HistoryEntry, usage: Usage) -> bool:
        return await self._write(
            partial(turns.keep_summary, turn_id=turn_id, epoch=epoch, summary=summary, usage=usage)
        )

    async def get_turn(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        return await self._read(partial(turns.get, tenant=tenant, session_id=session_id, turn_id=turn_id))

    async def list_turns(
        self, tenant: str, session_id: str, *, after: str | None = None, limit: int = 100, newest_first: bool = True
    ) -> list[Turn]:
        return await self._read(
            partial(
                turns.list_, tenant=tenant, session_id=session_id, after=after, limit=limit, newest_first=newest_first
            )
        )

    async def request_cancel(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        return await self._write(partial(turns.request_cancel, tenant=tenant, session_id=session_id, turn_id=turn_id))

    async def cancel_requests(self, owner: str) -> list[str]:
        return await self._read(partial(turns.cancel_requests, owner=owner))

    # Calls that wait for their caller

    async def answer_calls(self, tenant: str, session_id: str, answers: Sequence[CallAnswer]) -> list[str]:
        return await self._write(partial(calls.answer_calls, tenant=tenant, session_id=session_id, answers=answers))

    async def call_answers(self, turn_id: str) -> dict[str, CallAnswer | None]:
        return await self._read(partial(calls.call_answers, turn_id=turn_id))

    async def give_up_calls(self, turn_id: str, call_ids: Sequence[str]) -> dict[str, CallAnswer]:
        return await self._write(partial(calls.give_up_calls, turn_id=turn_id, call_ids=call_ids))

    # Leases

    async def take_over(self, owner: str, *, lease_s: float, everything: bool = False) -> list[Turn]:
        return await self._write(partial(turns.take_over, owner=owner, lease_s=lease_s, everything=everything))

    async def renew_leases(self, owner: str, turn_ids: Sequence[str], *, lease_s: float) -> set[str]:
        return await self._write(partial(turns.renew_leases, owner=owner, turn_ids=turn_ids, lease_s=lease_s))

    async def release_turns(self, owner: str, turn_ids: Sequence[str]) -> None:
        await self._write(partial(turns.release_turns, owner=owner, turn_ids=turn_ids))

    # Reading

    async def read_events(self, turn_id: str, first_seq: int, *, bytes_max: int) -> Page:
        return await self._read(partial(log.read_events, turn_id=turn_id, first_seq=first_seq, bytes_max=bytes_max))

    async def read_history(self, session_id: str) -> list[HistoryEntry]:
        return await self._read(partial(log.read_history, session_id=session_id))

    # Retention

    async def drop_events(self, *, ended_before: float, limit: int) -> int:
        droppable = await self._read(partial(sweep.find_droppable, ended_before=ended_before, limit=limit))
        for n in droppable:
            await self._bites(partial(sweep.drop_bite, turn=n))
        if droppable:
            await self._bites(sweep.vacuum_bite)
        return len(droppable)

    # Keys

    async def add_key(self, key: Key) -> None:
        await self._write(partial(sessions.add_key, key=key))

    async def find_key(self, digest: bytes) -> Key | None:
        return await self._read(partial(sessions.find_key, digest=digest))

    async def list_keys(self) -> list[Key]:
        return await self._read(sessions.list_keys)

    async def remove_key(self, digest: bytes) -> bool:
        return await self._write(partial(sessions.remove_key, digest=digest))

    async def secret(self, name: str) -> bytes:
        return await self._write(partial(sessions.secret, name=name))


class _Readers:
    """A pool of threads, each with a connection of its own that can't write. A read is one short transaction: one
    left open would keep the write-ahead log from being begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="turnwire-store-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable("The server is stopping.", retry_after_s=RETRY_AFTER_S)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, query)

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = connect(self._path, READER_BUSY_MS, query_only=True)
            self._connections.append(db)
        db.execute("BEGIN")
        try:
            return query(db)
        except sqlite3.DatabaseError as exc:
            if primary_code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreDamaged(f"the database {self._path} is damaged: {exc}") from exc
            if primary_code(exc) == sqlite3.SQLITE_BUSY:
                raise StoreUnavailable("Another program holds the database.", retry_after_s=RETRY_AFTER_S) from exc
            if is_full(exc):
                raise StoreUnavailable(retry_after_s=RETRY_AFTER_S) from exc
            raise
        finally:
            if db.in_transaction:
                db.execute("COMMIT")

    async def close(self) -> None:
        """Finish the reads that are under way."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown)
        for db in self._connections:
            db.close()


def _fits(store: SQLiteStore) -> Store:  # pyright: ignore[reportUnusedFunction]
    """SQLiteStore is a Store: the type checker says so."""
    return store
