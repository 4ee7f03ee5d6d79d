"""What we use of asyncpg, which has no types, with types; and its errors, told apart."""

from typing import Any, Protocol, cast

import asyncpg

from turnwire.database_url import synchronous_commit
from turnwire.stores.postgres.rows import Row


class Transaction(Protocol):
    """A transaction, or a savepoint in one."""

    async def start(self) -> None: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


class Connection(Protocol):
    """A connection to the database. Statements are prepared once, by their text."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """The answer is the command's tag, such as `UPDATE 3`."""
        ...

    async def fetch(self, query: str, *args: Any) -> list[Row]: ...

    async def fetchrow(self, query: str, *args: Any) -> Row | None: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    def transaction(self, *, isolation: str | None = None, readonly: bool = False) -> Transaction: ...

    def add_termination_listener(self, callback: Any) -> None: ...

    def is_closed(self) -> bool: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...


def changed(tag: str) -> int:
    """How many rows a command changed."""
    return int(tag.rpartition(" ")[2])


STAND_BEHIND = "SELECT FROM schema_version WHERE version = 1 FOR KEY SHARE"
"""For a transaction that may find all there, from an earlier try, and write nothing: the lock of a row is written to
the database's own log. So it is committed behind the earlier try, and waits for the standby where that one was cut off
while it did."""

_CONNECT_TIMEOUT_S = 10.0
_COMMAND_TIMEOUT_S = 30.0
"""Longer than any of our statements takes on a database that is well."""

_SETTINGS = {
    # Not even the database's own or the user's defaults may change what the store relies on.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "search_path": "turnwire",
    # Nor what ends statements or connections: the program itself waits no longer than it should, but for a migration,
    # and a connection that idles may be the one that holds the database.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    # Statements here are short: compiling them costs more than it saves.
    "jit": "off",
    # A server that hangs must not hold locks, and one whose machine is gone must not hold the database, for ever.
    "idle_in_transaction_session_timeout": "60000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


def connect_options(url: str, name: str) -> dict[str, Any]:
    """What every connection is made with; `name` is what the database's own views show of it."""
    return {
        "dsn": url,
        "timeout": _CONNECT_TIMEOUT_S,
        "command_timeout": _COMMAND_TIMEOUT_S,
        "max_cached_statement_lifetime": 0,
        # Of several hosts the one that takes writes, also after a fail-over.
        "target_session_attrs": None if "target_session_attrs=" in url else "read-write",
        "server_settings": {**_SETTINGS, "application_name": name, "synchronous_commit": synchronous_commit(url)},
    }


async def connect(url: str, name: str) -> Connection:
    return cast(Connection, await asyncpg.connect(**connect_options(url, name)))


_OUTAGES: tuple[type[BaseException], ...] = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # on a connection that is just being lost
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresIOError,
)


def is_outage(exc: BaseException) -> bool:
    """Whether the database, or the way there, failed, and not the statement: it may work later, as it is."""
    return isinstance(exc, _OUTAGES) and not isinstance(exc, ValueError)


def in_words(exc: BaseException) -> str:
    """What went wrong, on one line, without a full stop."""
    if isinstance(exc, asyncpg.InternalClientError):
        return "the connection was lost"
    return " ".join(str(exc).split()).rstrip(".") or type(exc).__name__


def is_full(exc: BaseException) -> bool:
    """Whether the database's disk has no room."""
    return isinstance(exc, asyncpg.DiskFullError)


def is_damage(exc: BaseException) -> bool:
    """Whether the database found that it can't read what it wrote."""
    return isinstance(exc, asyncpg.DataCorruptedError | asyncpg.IndexCorruptedError)
