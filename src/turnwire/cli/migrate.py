"""`turnwire migrate`: the database brought to this version, without a server."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from turnwire.database_url import shown
from turnwire.datadir import DataDir
from turnwire.settings import Settings, load_settings
from turnwire.stores.choose import open_store, version_of


def migrate(config: Path | None, **flags: object) -> None:
    """Take the missing steps, and say in a line what was done. No server may run on the database."""
    settings = load_settings(config, **flags)
    with ExitStack() as stack:
        data = DataDir(settings.data_dir)
        if settings.database is None:
            data = stack.enter_context(DataDir.open(settings.data_dir))
        asyncio.run(_migrate(settings, data.database))


async def _migrate(settings: Settings, path: Path) -> None:
    url = settings.database
    name = str(path) if url is None else f"PostgreSQL, {shown(url)}"
    before = await version_of(url, path)
    # How long a step takes nobody can tell: it is one transaction.
    with Console(stderr=True).status(f"Bringing {name} to this version …"):
        store, _ = await open_store(url, path, synchronous=settings.sqlite_synchronous)
        await store.close()
    after = await version_of(url, path)
    done = f"is up to date, at version {after}" if before == after else f"was brought from version {before} to {after}"
    print(f"The database {name} {done}.")
