"""From the settings to a store."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from turnwire.seams.clock import Clock
from turnwire.seams.store import Store
from turnwire.stores.common import StoreRefused
from turnwire.stores.sqlite import SQLiteStore
from turnwire.stores.sqlite.database import Synchronous, read_version

MISSING = "The database_url needs the package asyncpg: pip install 'turnwire[postgres]', or in a checkout `make setup`."


class Opened(NamedTuple):
    """A store, and what the operator should know of its database, a sentence each."""

    store: Store
    notes: list[str]


async def open_store(
    database_url: str | None,
    path: Path,
    *,
    synchronous: Synchronous,
    clock: Clock | None = None,
    hold: bool = True,
    on_fatal: Callable[[Exception], None] | None = None,
) -> Opened:
    """PostgreSQL, when there is a URL, else SQLite in the file `path`. StoreRefused when it can't be used.

    Args:
        clock: SQLite's; PostgreSQL has its own.
        hold: whether a server asks, of which there is one to a database; SQLite leaves that to the data folder.
    """
    if database_url is None:
        store = await SQLiteStore.open(path, clock=clock, synchronous=synchronous, on_fatal=on_fatal)
        return Opened(store, [])
    try:
        from turnwire.stores.postgres import PostgresStore
    except ModuleNotFoundError as exc:
        raise StoreRefused(MISSING) from exc
    postgres = await PostgresStore.open(database_url, hold=hold, on_fatal=on_fatal)
    return Opened(postgres, postgres.notes)


async def version_of(database_url: str | None, path: Path) -> int:
    """The version of a database's tables, 0 when there are none, without a change to it. StoreRefused as above."""
    if database_url is None:
        return await asyncio.to_thread(lambda: read_version(path) if path.exists() else 0)
    try:
        from turnwire.stores.postgres.check import look
    except ModuleNotFoundError as exc:
        raise StoreRefused(MISSING) from exc
    return (await look(database_url)).version
