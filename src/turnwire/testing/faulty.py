"""Parts that fail: a store, a model and tools, each wrapped around a working one, by seeded chance or when told to.

    faults = Faults(seed=7, fails=0.1)
    store = faulty_store(MemoryStore(), faults)
    faults.outage = True        # from now on nothing is stored, and nothing is read

One `Faults` may serve several wrappers; the order of its draws is the order in which things happen, so under
`turnwire.testing.virtual_time` a seed always gives the same story.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from turnwire.seams.model import Piece, PiecewiseStream
from turnwire.seams.store import Append, AppendDone, Appended, Store, StoreUnavailable
from turnwire.seams.tool import ToolContext

FOREVER_S = 10.0 * 365 * 24 * 3600
"""Hangs last so long, and not for ever, so that a loop in virtual time is never left without a timer."""


@dataclass
class Faults:
    """How often something goes wrong: chances from 0 to 1, looked at for each operation."""

    seed: int = 0
    delay_s: float = 0.0
    """An operation takes up to so long."""
    fails: float = 0.0
    """It fails, and nothing has happened."""
    loses: float = 0.0
    """It is done, and its caller hears of a failure. A store's writes only."""
    hangs: float = 0.0
    """It never comes to its end. A model's and a tool's only."""
    outage: bool = False
    """Everything fails."""
    dead: bool = False
    """The process of this wrapper's user is dead: nothing is done any more, and nobody hears of anything."""
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)

    def happens(self, chance: float) -> bool:
        return chance > 0 and self.draw.random() < chance

    def delay(self) -> float:
        """Seconds to wait before the next operation. After the death of the process: for ever."""
        if self.dead:
            return FOREVER_S
        return self.draw.uniform(0, self.delay_s) if self.delay_s else 0.0

    @property
    def fail(self) -> bool:
        return self.outage or self.happens(self.fails)


# The store

_WRITES = frozenset(
    {
        *("create_session", "update_session", "delete_session", "delete_sessions", "expire_sessions"),
        *("purge_sessions", "begin_turn", "request_cancel", "answer_calls", "give_up_calls", "take_over"),
        *("renew_leases", "release_turns", "drop_events", "add_key", "remove_key"),
    }
)


def faulty_store(store: Store, faults: Faults) -> Store:
    """The store, which fails."""
    return cast(Store, _FaultyStore(store, faults))


class _FaultyStore:
    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        faults = self._faults

        async def call(*args: Any, **kwargs: Any) -> Any:
            await _wait(faults)
            if faults.fail:
                raise StoreUnavailable("The store failed as it was asked to.")
            result = await verb(*args, **kwargs)
            if faults.dead:
                await asyncio.sleep(FOREVER_S)
            if name in _WRITES and faults.happens(faults.loses):
                raise StoreUnavailable("It was stored, and the acknowledgement was lost.")
            return result

        return call

    def append(self, append: Append, done: AppendDone) -> None:
        faults = self._faults
        loop = asyncio.get_running_loop()
        if faults.dead:
            return

        def acknowledge(result: Appended | Exception) -> None:
            if faults.dead:
                return
            lost = result is Appended.WRITTEN and faults.happens(faults.loses)
            done(StoreUnavailable("It was stored, and the acknowledgement was lost.") if lost else result)

        def write() -> None:
            if faults.dead:
                return
            if faults.fail:
                loop.call_soon(done, StoreUnavailable("The store failed as it was asked to."))
            else:
                self._store.append(append, acknowledge)

        loop.call_later(faults.delay(), write)


async def _wait(faults: Faults) -> None:
    delay_s = faults.delay()
    if delay_s:
        await asyncio.sleep(delay_s)


# The model


class FaultyModel(WrapperModel):
    """A model that is late, refuses, breaks off in the middle of its answer, or falls silent there."""

    def __init__(self, wrapped: Model, faults: Faults) -> None:
        super().__init__(wrapped)
        self._faults = faults

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        faults = self._faults
        await _wait(faults)
        if faults.fail:
            raise ModelAPIError(self.model_name, "The model failed as it was asked to.")
        async with super().request_stream(messages, model_settings, model_request_parameters, run_context) as stream:
            assert isinstance(stream, PiecewiseStream), "only a PiecewiseStream can be made to fail in the middle"
            # The stream stays what it is, with all its other sides; only its batches go through here.
            setattr(stream, "pieces", _faulty_pieces(stream.pieces, faults, self.model_name))  # noqa: B010
            yield cast(StreamedResponse, stream)


def _faulty_pieces(
    pieces: Callable[[], AsyncIterator[list[Piece]]], faults: Faults, name: str
) -> Callable[[], AsyncIterator[list[Piece]]]:
    async def faulty() -> AsyncIterator[list[Piece]]:
        async for batch in pieces():
            await _wait(faults)
            if faults.happens(faults.hangs):
                await asyncio.sleep(FOREVER_S)
            if faults.fail:
                raise ModelAPIError(name, "The model broke off as it was asked to.")
            yield batch

    return faulty


# Tools


class FaultyTools(WrapperToolset[ToolContext]):
    """Tools that are late, fail before they did anything or, with `loses`, after it, or hang there."""

    def __init__(self, wrapped: AbstractToolset[ToolContext], faults: Faults) -> None:
        super().__init__(wrapped)
        self._faults = faults

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[ToolContext], tool: ToolsetTool[ToolContext]
    ) -> Any:
        faults = self._faults
        await _wait(faults)
        if faults.fail:
            raise RuntimeError("The tool failed as it was asked to.")
        result = await super().call_tool(name, tool_args, ctx, tool)
        if faults.happens(faults.hangs):
            await asyncio.sleep(FOREVER_S)
        if faults.happens(faults.loses):
            raise RuntimeError("The tool failed after it had done its work, as it was asked to.")
        return result
