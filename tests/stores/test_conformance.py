"""Memory and SQLite pass the suite that every store passes."""

from pathlib import Path

import pytest

from turnwire.seams.store import Store
from turnwire.stores.memory import MemoryStore
from turnwire.stores.sqlite import SQLiteStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import CASES, Case


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_a_store_keeps_its_promises(case: Case, kind: str, tmp_path: Path) -> None:
    clock = TurnableClock()
    store: Store
    if kind == "memory":
        store = MemoryStore(clock=clock)
    else:
        store = await SQLiteStore.open(tmp_path / "turnwire.db", clock=clock)
    try:
        await case(store, clock)
    finally:
        await store.close()
