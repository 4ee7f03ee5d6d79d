"""The sweeper meets trouble, and goes on."""

import asyncio

import pytest

from turnwire.engine import sweeper
from turnwire.engine.sweeper import Sweeper
from turnwire.seams.store import Session
from turnwire.seams.workspace import FileAccess, Workspace
from turnwire.stores.memory import MemoryStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import TENANT, make_session


class Files:
    """`Workspaces` whose disk fails for some sessions."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.failing: set[str] = set()

    def shared(self, tenant: str, access: FileAccess) -> Workspace:
        raise AssertionError

    def private(self, tenant: str, session_id: str, access: FileAccess) -> Workspace:
        raise AssertionError

    def remove_private(self, tenant: str, session_id: str) -> None:
        if session_id in self.failing:
            raise OSError(5, "Input/output error")
        self.removed.append(session_id)


class World:
    def __init__(self) -> None:
        self.clock = TurnableClock()
        self.store = MemoryStore(clock=self.clock)
        self.files = Files()
        self.sweeper = Sweeper(self.store, self.files, self.clock, idle_ttl_s=300, replay_retention_s=None)

    async def deleted(self) -> Session:
        session = await make_session(self.store, self.clock, workspace="private")
        await self.store.delete_session(TENANT, session.id)
        return session


async def test_files_that_could_not_be_removed_are_tried_again_and_keep_nobody_up() -> None:
    world = World()
    bad, good = await world.deleted(), await world.deleted()
    world.files.failing = {bad.id}

    await world.sweeper.sweep()
    assert world.files.removed == [good.id]

    world.files.failing = set()
    await world.sweeper.sweep()
    assert world.files.removed == [good.id, bad.id]
    assert await world.store.purge_sessions(limit=10) == []


async def test_a_server_that_dies_before_the_files_are_removed_finds_them_again() -> None:
    world = World()
    session = await world.deleted()

    async def die(_: Session) -> bool:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await world.store.purge_sessions(limit=10, remove_files=die)
    await world.sweeper.sweep()

    assert world.files.removed == [session.id]


async def test_no_failure_ends_the_sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    session = await world.deleted()
    failures = [RuntimeError("a bug"), OSError("a disk")]
    expire_sessions = world.store.expire_sessions

    async def fail_first(*, idle_ttl_s: float, limit: int) -> int:
        if failures:
            raise failures.pop()
        return await expire_sessions(idle_ttl_s=idle_ttl_s, limit=limit)

    monkeypatch.setattr(world.store, "expire_sessions", fail_first)
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL_S", 0.01)
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL_MIN_S", 0.01)
    quick = Sweeper(world.store, world.files, world.clock, idle_ttl_s=300, replay_retention_s=None)

    running = asyncio.create_task(quick.run())
    async with asyncio.timeout(5):
        while not world.files.removed:
            await asyncio.sleep(0.01)
    running.cancel()

    assert world.files.removed == [session.id]
    assert failures == []
