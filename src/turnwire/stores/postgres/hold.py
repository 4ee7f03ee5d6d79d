"""The hold on the database: one server at a time, by a lock that goes with its connection.

It is a session's advisory lock on a connection of its own, so that nothing has to be cleaned up after a crash. When
the connection is lost, nothing is written until the lock is taken again, on a new one. Whoever finds that another
server has taken it meanwhile must stop; what it may still have under way is fenced, as the other one began with new
epochs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from turnwire.seams.store import StoreUnavailable
from turnwire.stores.common import RETRY_AFTER_S, StoreFailed, StoreRefused
from turnwire.stores.postgres.connection import Connection, is_outage

logger = logging.getLogger("turnwire.stores.postgres")

LOCK_CLASS = 0x74776972
"""'twir': the first half of the numbers of our advisory locks."""

LOCK_OF_THE_SERVER = 1
LOCK_OF_MIGRATIONS = 2

TAKE_PATIENCE_S = 3.0
"""How long a start waits for the lock of a server that has just died."""

TAKE_AGAIN_EVERY_S = 0.25
HEARTBEAT_S = 5.0
"""How often the connection is tried: one that the network has dropped says nothing by itself."""

TRY = "SELECT pg_try_advisory_lock($1, $2)"
_HOLDER = """
SELECT a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1 AND l.objid = $2 AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Hold:
    """The lock of the one server. `take()` it, `keep()` it, then `wait()` before whatever is written."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        name: str,
        where: str,
        on_fatal: Callable[[Exception], None] | None,
    ) -> None:
        """`name`: what our connections are called in the database; nobody else's are. `where`: the database, for
        people."""
        self._connect = connect
        self._name = name
        self._where = where
        self._on_fatal = on_fatal
        self._held = False
        self._hurried = False
        self._news = asyncio.Event()
        """Whoever waits need not wait any longer."""
        self._lost = asyncio.Event()
        self._failed: StoreFailed | None = None
        self._db: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def take(self, db: Connection) -> None:
        """Take the lock on this connection. StoreRefused when another server has it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKE_PATIENCE_S
        while not await db.fetchval(TRY, LOCK_CLASS, LOCK_OF_THE_SERVER):
            if loop.time() > until:
                raise StoreRefused(
                    f"The database {self._where} is in use by another server ({await holder(db)}): stop that one, or "
                    "give this one a database of its own."
                )
            await asyncio.sleep(TAKE_AGAIN_EVERY_S)

    def keep(self, db: Connection) -> None:
        """From now on the connection is ours: it is watched, and tried now and then, which a statement that somebody
        else has under way on it would not survive."""
        self._watch(db)
        self._keeper = asyncio.create_task(self._keep(), name="turnwire-store-hold")

    async def wait(self, timeout_s: float) -> None:
        """Return when the lock is ours. `StoreUnavailable` when it is not within a time, StoreFailed when it never
        will be."""
        if not self._held:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
        if self._failed is not None:
            raise self._failed
        if not self._held:
            raise StoreUnavailable(
                "The server has lost its database, and waits for it: try again later.", retry_after_s=RETRY_AFTER_S
            )

    def hurry(self) -> None:
        """From now on, nobody waits."""
        self._hurried = True
        self._news.set()

    async def close(self) -> None:
        """Let go."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._db is not None:
            await close_quietly(self._db)

    def _watch(self, db: Connection) -> None:
        self._db = db
        self._lost.clear()
        db.add_termination_listener(self._on_lost)
        self._held = True
        self._news.set()
        if db.is_closed():
            self._on_lost(db)

    def _on_lost(self, db: Connection) -> None:
        if db is not self._db:
            return  # one of before
        self._held = False
        if not self._hurried:
            self._news.clear()
        self._lost.set()

    async def _keep(self) -> None:
        while self._failed is None:
            await self._until_lost()
            logger.warning(
                "The hold on the database %s is lost: nothing is written until it is taken again.", self._where
            )
            while not self._held and self._failed is None:
                try:
                    await self._take_again()
                except Exception as exc:
                    if not is_outage(exc):
                        logger.exception("The hold on the database %s could not be taken.", self._where)
                    await asyncio.sleep(TAKE_AGAIN_EVERY_S)

    async def _until_lost(self) -> None:
        assert self._db is not None
        while not self._lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._lost.wait()
                    return
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._db.fetchval("SELECT 1")
            except Exception:
                self._db.terminate()
                self._on_lost(self._db)

    async def _take_again(self) -> None:
        db = await self._connect()
        try:
            taken = await db.fetchval(TRY, LOCK_CLASS, LOCK_OF_THE_SERVER)
            # The database may not have noticed yet that our own connection of before is gone.
            other = None if taken else await holder(db)
        except BaseException:
            db.terminate()
            raise
        if taken:
            logger.warning("The hold on the database %s is taken again.", self._where)
            self._watch(db)
            return
        await close_quietly(db)
        if other is None or other == self._name:
            await asyncio.sleep(TAKE_AGAIN_EVERY_S)
        else:
            self._fail(other or "unknown")

    def _fail(self, other: str) -> None:
        self._failed = StoreFailed(
            f"Another server ({other}) took the database {self._where} while this one had lost it: run one server on "
            "it."
        )
        self._news.set()
        logger.critical("%s", self._failed)
        if self._on_fatal is not None:
            self._on_fatal(self._failed)


async def holder(db: Connection) -> str | None:
    """What the server is called that holds this database; None: nobody does."""
    return await db.fetchval(_HOLDER, LOCK_CLASS, LOCK_OF_THE_SERVER)


async def close_quietly(db: Connection) -> None:
    """Close a connection, of which nothing is wanted any more."""
    try:
        await db.close(timeout=2)
    except Exception:
        db.terminate()
