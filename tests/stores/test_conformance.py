"""Memory, SQLite and PostgreSQL pass the suite that every store passes."""

from pathlib import Path

import pytest

from turnwire.stores.memory import MemoryStore
from turnwire.stores.postgres import PostgresStore
from turnwire.stores.sqlite import SQLiteStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import CASES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


@every_case
async def test_the_memory_keeps_its_promises(case: Case) -> None:
    clock = TurnableClock()
    await case(MemoryStore(clock=clock), clock)


@every_case
async def test_sqlite_keeps_its_promises(case: Case, tmp_path: Path) -> None:
    clock = TurnableClock()
    store = await SQLiteStore.open(tmp_path / "turnwire.db", clock=clock)
    try:
        await case(store, clock)
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.tool("postgres")
@every_case
async def test_postgresql_keeps_its_promises(case: Case, database: str) -> None:
    clock = TurnableClock()
    store = await PostgresStore.open(database, clock=clock)
    try:
        await case(store, clock)
    finally:
        await store.close()
