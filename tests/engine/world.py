"""Turns as the server runs them, without HTTP in front: a store on disk, models at fake providers, tools."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset

from turnwire.engine.turns import Message, MessagePart, Options, Turns
from turnwire.models.resolve import Models
from turnwire.protocol.ids import new_session_id
from turnwire.seams.clock import SystemClock
from turnwire.seams.store import Session, Turn
from turnwire.seams.tool import ToolContext
from turnwire.seams.workspace import FileAccess
from turnwire.stores.sqlite.store import SQLiteStore
from turnwire.tools.files import FileTools
from turnwire.workspaces.directory import DirectoryWorkspaces

TENANT = "t"


@dataclass
class Chosen:
    spec: str
    model: Model
    context_tokens: int | None
    tools: bool = True
    images: bool = True
    files: bool = False

    def settings(self, thinking: str | None) -> ModelSettings:
        return ModelSettings()


class World:
    """One server's turns; `restart()` is a server that died and came back."""

    def __init__(
        self, store: SQLiteStore, models: Models, folder: Path, context_tokens: int | None, **more: Any
    ) -> None:
        self.store = store
        self.folder = folder
        self._models = models
        self._context_tokens = context_tokens
        self._more = more
        self.turns = self.new_turns()

    async def choose(self, spec: str | None) -> Chosen:
        name = spec or str(self._models.default)
        return Chosen(name, self._models.resolve(spec), self._context_tokens)

    def new_turns(self) -> Turns:
        more = dict(self._more)
        toolsets: Sequence[AbstractToolset[ToolContext]] = more.pop("toolsets", [FileTools()])
        return Turns(
            self.store,
            self,
            CombinedToolset(list(toolsets)),
            DirectoryWorkspaces(self.folder),
            SystemClock(),
            Options(owner="here", **more),
        )

    async def restart(self) -> None:
        """The server dies, and another begins; the turns that ran are taken up."""
        self.turns.supervisor.abandon()
        while len(self.turns.supervisor):
            await asyncio.sleep(0.001)
        self.turns = self.new_turns()
        await self.turns.take_over(everything=True, reason="server_restarted")

    async def session(self, **fields: Any) -> Session:
        clock = SystemClock()
        session = Session(
            id=new_session_id(), tenant=TENANT, created_at=clock.now(), ttl=9999, last_activity=clock.now(), **fields
        )
        await self.store.create_session(session)
        return session

    async def begin(self, session: Session, text: str) -> Turn:
        turn, _ = await self.turns.begin(TENANT, session.id, Message([MessagePart("text", text)]))
        return turn

    async def turn(self, session: Session, text: str) -> Turn:
        """A whole turn."""
        return await self.ended(await self.begin(session, text))

    def task(self, turn: Turn) -> "asyncio.Task[None]":
        running = self.turns.supervisor.get(turn.id)
        assert running is not None and running.task is not None
        return running.task

    def write(self, path: str, data: bytes) -> None:
        """A file in the tenant's workspace."""
        with DirectoryWorkspaces(self.folder).shared(TENANT, FileAccess()).put(path, bytes_max=len(data)) as upload:
            upload.write(data)
            upload.commit()

    async def ended(self, turn: Turn) -> Turn:
        running = self.turns.supervisor.get(turn.id)
        if running is not None and running.task is not None:
            await running.task
        turn = await self.store.get_turn(TENANT, turn.session_id, turn.id)
        assert turn.ended_at is not None
        return turn


@asynccontextmanager
async def a_world(
    folder: Path, spec: str, env: Mapping[str, str], *, context_tokens: int | None = None, **more: Any
) -> AsyncIterator[World]:
    store = await SQLiteStore.open(folder / "db.sqlite", clock=SystemClock(), synchronous="NORMAL")
    models = Models(spec, env=env)
    await models.preload()
    world = World(store, models, folder / "workspaces", context_tokens, **more)
    try:
        yield world
    finally:
        await world.turns.drain(0)
        await models.aclose()
        await store.close()
