"""The connections to the database: transactions, what becomes of them when it goes away, and its return.

A write is a transaction in a task of its own, so that a caller who goes away leaves nothing half done. When its
connection is lost before the commit, nothing has happened, and it is made again. When it is lost *during* the commit,
nobody knows: then the operation runs again too, but every operation that may do so looks itself up first, by what it
wrote (a fence that has moved, an id that is taken), and behind the locks of the earlier try, should that be under way
still. What such a look-up finds is acknowledged by a commit of its own, as it may not be on the standby yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import asyncpg

from turnwire.seams.store import StoreDamaged, StoreUnavailable
from turnwire.stores.common import RETRY_AFTER_S
from turnwire.stores.postgres.connection import (
    STAND_BEHIND,
    Connection,
    Transaction,
    connect_options,
    in_words,
    is_damage,
    is_full,
    is_outage,
)
from turnwire.stores.postgres.hold import Hold

T = TypeVar("T")
Operation = Callable[[Connection], Awaitable[T]]
"""Statements on a connection. A write is in the transaction that is open, and may be run again."""

logger = logging.getLogger("turnwire.stores.postgres")

CONNECTIONS_MAX = 8
"""What runs at the same time, the appends aside. Statements are short, and what has caught up never reads."""

PATIENCE_S = 5.0
"""How long a database that is away is waited for: a restart or a fail-over is over by then, and nobody noticed."""

DOUBT_PATIENCE_S = 20.0
"""How long, where it isn't known whether something was written: a wrong answer is worse than a late one."""

RETRY_DELAY_S = 0.05
RETRY_DELAY_MAX_S = 1.0
CLOSE_TIMEOUT_S = 5.0


class _Unacknowledged(Exception):
    """The connection was lost during a commit."""


class Database:
    """The connections of one server to its database."""

    def __init__(self, url: str, *, name: str, where: str, hold: Hold | None) -> None:
        self.commits = 0
        """How many transactions were committed."""
        options = connect_options(url, name)
        self._pool = _pool(CONNECTIONS_MAX, options)
        self._line = _pool(1, options)
        """What writes to many turns at once goes over one connection, one after another: so none waits for a lock of
        another that waits for one of its own."""
        self._where = where
        self._hold = hold
        self._away = False
        self._closing = False
        self._hurried = False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        await self._pool
        await self._line

    async def read(self, query: Operation[T]) -> T:
        """Run statements that change nothing. `StoreUnavailable` when the database is away."""
        return await self._patiently(lambda _: self._query(query), repeatable=True)

    async def write(self, operation: Operation[T], *, repeatable: bool = True, line: bool = False) -> T:
        """Run an operation in a transaction; its answer once that is committed, or its error.

        Args:
            operation: what it raises undoes what it wrote.
            repeatable: it looks itself up, or does no harm when it is done twice.
            line: it writes to many turns at once.

        Raises:
            StoreUnavailable: the database is away; when the operation is not repeatable, it may have been done.
        """
        task = asyncio.create_task(
            self._patiently(lambda doubt: self._transact(operation, line, doubt), repeatable=repeatable)
        )
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def hurry(self) -> None:
        """From now on, wait for a database that is away no longer."""
        self._hurried = True
        if self._hold is not None:
            self._hold.hurry()

    async def close(self) -> None:
        """Finish what is under way, then let go of the database."""
        self._closing = True
        self.hurry()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for pool in (self._pool, self._line):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await pool.close()
            except TimeoutError:
                pool.terminate()
        if self._hold is not None:
            await self._hold.close()

    async def _patiently(self, attempt: Callable[[bool], Awaitable[T]], *, repeatable: bool) -> T:
        """Make an attempt until one succeeds; each is told whether an earlier one may have been committed."""
        if self._closing:
            raise StoreUnavailable("The server is stopping.", retry_after_s=RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        began, delay_s, patience_s = loop.time(), RETRY_DELAY_S, PATIENCE_S
        doubt = False
        while True:
            try:
                result = await attempt(doubt)
            except _Unacknowledged as exc:
                doubt = True
                error: BaseException | None = exc.__cause__
                patience_s = DOUBT_PATIENCE_S if repeatable else 0.0
            except Exception as exc:
                if is_damage(exc):
                    raise StoreDamaged(f"the database {self._where} is damaged: {exc}") from exc
                if not is_outage(exc) and not isinstance(exc, StoreUnavailable):
                    raise
                error = exc
            else:
                self._note_return()
                return result
            assert error is not None
            self._note_outage(error)
            if self._hurried or is_full(error) or loop.time() - began + delay_s > patience_s:
                raise _unavailable(error) from error.__cause__ if isinstance(error, StoreUnavailable) else error
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_DELAY_MAX_S)

    async def _query(self, query: Operation[T]) -> T:
        async with self._pool.acquire(timeout=PATIENCE_S) as connection:
            try:
                return await query(cast(Connection, connection))
            except Exception as exc:
                if is_outage(exc):
                    _drop(cast(Connection, connection))
                raise

    async def _transact(self, operation: Operation[T], line: bool, doubt: bool) -> T:
        if self._hold is not None:
            await self._hold.wait(PATIENCE_S)
        pool = self._line if line else self._pool
        async with pool.acquire(timeout=PATIENCE_S) as connection:
            db = cast(Connection, connection)
            transaction = db.transaction()
            await transaction.start()
            try:
                result = await operation(db)
                if doubt:
                    await db.execute(STAND_BEHIND)
            except BaseException as exc:
                await _roll_back(db, transaction, lost=is_outage(exc))
                raise
            try:
                await transaction.commit()
            except Exception as exc:
                _drop(db)
                if is_outage(exc):
                    raise _Unacknowledged from exc
                raise
        self.commits += 1
        return result

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone: then nobody asks for it

    def _note_outage(self, error: BaseException) -> None:
        if not self._away:
            self._away = True
            logger.warning("The database %s failed, and is tried again: %s", self._where, in_words(error))

    def _note_return(self) -> None:
        if self._away:
            self._away = False
            logger.warning("The database %s works again.", self._where)


def _pool(size: int, options: dict[str, Any]) -> Any:
    """Connections that are made when they are needed, and made anew when they were lost."""
    return asyncpg.create_pool(
        min_size=0, max_size=size, max_queries=2**62, max_inactive_connection_lifetime=0, reset=_as_it_is, **options
    )


async def _as_it_is(_: Any) -> None:
    """A connection that goes back holds nothing that would have to be reset."""


async def _roll_back(db: Connection, transaction: Transaction, *, lost: bool) -> None:
    """Where the connection is lost, the database does it."""
    try:
        if not lost:
            await transaction.rollback()
            return
    except Exception:
        logger.debug("A transaction could not be rolled back.", exc_info=True)
    _drop(db)


def _drop(db: Connection) -> None:
    """Never use a connection again, whatever state it is in."""
    with suppress(asyncpg.InterfaceError):  # the pool may have taken it back by itself
        db.terminate()


def _unavailable(error: BaseException) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):  # the hold's
        return error
    if is_full(error):
        return StoreUnavailable(retry_after_s=RETRY_AFTER_S)
    return StoreUnavailable("The server's database is away: try again later.", retry_after_s=RETRY_AFTER_S)
