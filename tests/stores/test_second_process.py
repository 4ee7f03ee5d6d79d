"""The embedded store beside a second program that opens its file: `turnwire keys`, a backup, sqlite3."""

import subprocess
import sys
from pathlib import Path

import pytest

from turnwire.seams.store import Key
from turnwire.stores.sqlite import SQLiteStore

BY_SQLITE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(*[name for (name,) in db.execute("SELECT name FROM access_keys")])
db.close()
"""
BY_THE_STORE = """
import asyncio, sys
from turnwire.stores.sqlite import SQLiteStore
async def main():
    store = await SQLiteStore.open(sys.argv[1])
    print(*[key.name for key in await store.list_keys()])
    await store.close()
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [BY_SQLITE, BY_THE_STORE], ids=["sqlite", "store"])
async def test_a_program_that_opens_and_closes_the_database_takes_nothing_from_the_server(
    program: str, tmp_path: Path
) -> None:
    path = tmp_path / "turnwire.db"

    def names() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()

    store = await SQLiteStore.open(path)
    try:
        await store.find_key(b"")
        assert names() == ""
        assert (tmp_path / "turnwire.db-wal").exists(), "the other program removed the server's write-ahead log"

        await store.add_key(Key(b"1", "default", "one", 1.0))

        assert names() == "one"
    finally:
        await store.close()
