"""Group commit: one thread owns the only writing connection, and what gathers while it commits is its next group.

The event loop gathers appends and operations in lists of its own; at the end of the loop's iteration they go to the
thread as one group, or, when a group is under way, as soon as that one is done. The thread writes a group in one
transaction, the appends first, every operation in a savepoint of its own, and tells the loop once.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from turnwire.seams.clock import Clock
from turnwire.seams.store import Append, AppendDone, Appended, StoreUnavailable
from turnwire.stores.common import RETRY_AFTER_S, StoreFailed
from turnwire.stores.sqlite.appends import write_appends

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection, float], T]
"""Writes in the transaction that is open; the float is the time. It may be run again, after a rollback."""

logger = logging.getLogger("turnwire.stores.sqlite")

LOCK_WARNING_S = 10.0
"""How often the log says that another program holds the database."""

WAL_BYTES_MAX = 32 * 1024 * 1024
"""SQLite begins the write-ahead log anew only at a moment without readers, which may not come under load: past this
size the writer waits for one (WRITER_BUSY_MS). When none comes, it tries again after a quarter as many bytes more:
often enough to bound the log, seldom enough that waiting costs little."""

_FATAL = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}
"""After these nothing is known about the disk's content: when an fsync fails, Linux forgets what it could not write."""


class _Group:
    """What is written in one transaction, and then what became of it."""

    __slots__ = ("appends", "error", "operations", "outcomes", "results")

    def __init__(
        self,
        appends: list[tuple[Append, AppendDone]],
        operations: list[tuple[Operation[Any], asyncio.Future[Any]]],
    ) -> None:
        self.appends = appends
        self.operations = operations
        self.results: list[Appended | Exception] = []
        self.outcomes: list[tuple[Any, Exception | None]] = []
        self.error: Exception | None = None
        """What kept the whole group from being written."""


class Writer:
    """The writing side of the store. Its methods are called on the event loop that made it."""

    def __init__(
        self, db: sqlite3.Connection, path: Path, clock: Clock, on_fatal: Callable[[Exception], None] | None
    ) -> None:
        self.commits = 0
        """How many transactions were committed."""
        self._db = db
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._wal_bytes_max = WAL_BYTES_MAX
        self._clock = clock
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._appends: list[tuple[Append, AppendDone]] = []
        self._operations: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        self._scheduled = False
        self._under_way = False
        self._closing = threading.Event()
        self._failed: Exception | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: SimpleQueue[_Group | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="turnwire-store-writer", daemon=True)
        self._thread.start()

    # On the event loop

    def append(self, append: Append, done: AppendDone) -> None:
        """Write with the next group; `done` is called once, never from within this call."""
        assert 0 < append.first_seq <= append.last_seq, "an append holds at least one event"
        refusal = self._refusal()
        if refusal is not None:
            self._loop.call_soon(done, refusal)
            return
        self._appends.append((append, done))
        if not self._scheduled:
            self._schedule()

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation with the next group; its answer once that is committed, or its error."""
        refusal = self._refusal()
        if refusal is not None:
            raise refusal
        future: asyncio.Future[T] = self._loop.create_future()
        self._operations.append((operation, future))
        if not self._scheduled:
            self._schedule()
        return await future

    async def close(self) -> None:
        """Write what has gathered, then let go of the database."""
        if not self._closing.is_set():
            self._closing.set()
            await self._idle.wait()
            self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _refusal(self) -> Exception | None:
        if self._failed is not None:
            return self._failed
        if self._closing.is_set():
            return StoreUnavailable("The server is stopping.", retry_after_s=RETRY_AFTER_S)
        return None

    def _schedule(self) -> None:
        """See to it that a group leaves at the end of this iteration, or when the one under way is done."""
        self._scheduled = True
        self._idle.clear()
        if not self._under_way:
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        group = _Group(self._appends, [pair for pair in self._operations if not pair[1].cancelled()])
        self._appends, self._operations, self._scheduled = [], [], False
        if not group.appends and not group.operations:
            self._idle.set()
            return
        self._under_way = True
        self._queue.put(group)

    def _finished(self, group: _Group) -> None:
        """Tell everyone what became of theirs. Who writes on at once is in the next group, which leaves behind them."""
        if group.error is not None and self._failed is None and isinstance(group.error, StoreFailed):
            self._fail(group.error)
        for i, (_, done) in enumerate(group.appends):
            try:
                done(group.error or group.results[i])
            except Exception as exc:
                self._loop.call_exception_handler({"message": "the callback of an append raised", "exception": exc})
        for i, (_, future) in enumerate(group.operations):
            if future.cancelled():
                continue
            value, error = (None, group.error) if group.error is not None else group.outcomes[i]
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
        self._under_way = False
        if self._scheduled and self._failed is None:
            self._hand_over()
        elif self._failed is not None:
            self._drop_gathered(self._failed)
        else:
            self._idle.set()

    def _fail(self, error: Exception) -> None:
        self._failed = error
        logger.critical("%s", error)
        if self._on_fatal is not None:
            self._on_fatal(error)

    def _drop_gathered(self, error: Exception) -> None:
        """Nothing is written any more: tell those who wait for it."""
        appends, self._appends = self._appends, []
        operations, self._operations = self._operations, []
        self._scheduled = False
        for _, done in appends:
            self._loop.call_soon(done, error)
        for _, future in operations:
            if not future.done():
                future.set_exception(error)
        self._idle.set()

    # On the writer's thread

    def _work(self) -> None:
        try:
            while (group := self._queue.get()) is not None:
                try:
                    self._write(group)
                except Exception as exc:
                    group.error = self._judge(exc, group)
                self._loop.call_soon_threadsafe(self._finished, group)
                self._bound_wal()
        except RuntimeError:
            # The loop was closed under the store: what was handed in is committed or not, nobody is there to be told.
            logger.warning("The event loop was closed before the store.")
        finally:
            self._db.close()

    def _write(self, group: _Group) -> None:
        """Commit a group. What is raised kept all of it from being written."""
        try:
            self._transact(group, write_appends)
        except Exception as exc:
            self._roll_back()
            if isinstance(exc, StoreUnavailable) or _ends_group(exc):
                raise
            # An append can't be written, whoever's it is: each in a savepoint of its own, so that it fails alone.
            try:
                self._transact(group, self._append_apart)
            except Exception:
                self._roll_back()
                raise

    def _judge(self, exc: Exception, group: _Group) -> Exception:
        """What the members of a group that was not written are told."""
        code = primary_code(exc)
        if is_full(exc):
            logger.warning("The disk is full: a group of %d writes was rolled back.", _size(group))
            error: Exception = StoreUnavailable(retry_after_s=RETRY_AFTER_S)
        elif code in _FATAL:
            error = StoreFailed(f"The database {self._path} failed and can't be trusted now: {exc}.")
        else:
            return exc
        error.__cause__ = exc
        return error

    def _transact(
        self,
        group: _Group,
        write: Callable[[sqlite3.Connection, list[Append], float], list[Any]],
    ) -> None:
        self._begin()
        now = self._clock.now()
        group.results = write(self._db, [append for append, _ in group.appends], now) if group.appends else []
        group.outcomes = [self._in_savepoint(operation, now) for operation, _ in group.operations]
        self._db.execute("COMMIT")
        self.commits += 1

    def _append_apart(self, _: sqlite3.Connection, appends: list[Append], now: float) -> list[Appended | Exception]:
        results: list[Appended | Exception] = []
        for append in appends:
            written, error = self._in_savepoint(lambda db, now, append=append: write_appends(db, [append], now), now)
            results += written if written is not None else [error or AssertionError()]
        return results

    def _in_savepoint(self, operation: Operation[T], now: float) -> tuple[T | None, Exception | None]:
        """Run one operation. What it raises undoes what it wrote and nothing else; what ends the group goes on up."""
        db = self._db
        db.execute("SAVEPOINT operation")
        try:
            value = operation(db, now)
        except Exception as exc:
            if not db.in_transaction or _ends_group(exc):
                raise
            db.execute("ROLLBACK TO operation")
            db.execute("RELEASE operation")
            return None, exc
        db.execute("RELEASE operation")
        return value, None

    def _begin(self) -> None:
        """Take the write lock, however long another program holds it; StoreUnavailable when the store closes first."""
        began = warned = time.monotonic()
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as exc:
                if primary_code(exc) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                if self._closing.is_set():
                    raise StoreUnavailable("Another program holds the database.", retry_after_s=RETRY_AFTER_S) from exc
            now = time.monotonic()
            if now - warned >= LOCK_WARNING_S:
                warned = now
                logger.warning(
                    "Another program has held the write lock of %s for %d s: nothing is stored until it lets go.",
                    self._path,
                    now - began,
                )

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _bound_wal(self) -> None:
        try:
            size = self._wal.stat().st_size
            if size <= self._wal_bytes_max:
                return
            (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (OSError, sqlite3.Error) as exc:
            # The next commit meets the same trouble, if it lasts, and answers for it.
            logger.warning("The write-ahead log of %s could not be looked after: %s", self._path, exc)
            return
        self._wal_bytes_max = size + WAL_BYTES_MAX // 4 if busy else WAL_BYTES_MAX
        if busy:
            logger.warning("A reader holds %s: its write-ahead log has grown to %d bytes.", self._path, size)


def primary_code(exc: BaseException) -> int:
    """SQLite's primary result code of an error; 0 when it comes from the module and not from SQLite."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def is_full(exc: BaseException) -> bool:
    """Whether the disk has no room. SQLite says so as an I/O error where it could not enlarge the index of its
    write-ahead log (32 KiB for every 4,096 pages of it), which holds nothing that outlives the processes."""
    return (
        primary_code(exc) == sqlite3.SQLITE_FULL or getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE
    )


def _ends_group(exc: Exception) -> bool:
    return is_full(exc) or primary_code(exc) in _FATAL


def _size(group: _Group) -> int:
    return len(group.appends) + len(group.operations)
