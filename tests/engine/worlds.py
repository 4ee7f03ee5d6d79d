"""A simulated world: servers that share one store, over which time, outages and deaths pass; and its laws.

Everything runs on one loop in virtual time. `World` is driven from outside, a step at a time; `faults()` says which of
the laws are broken.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from pydantic_ai import RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import FunctionToolset

from turnwire.engine.context import History
from turnwire.engine.follow import Follower
from turnwire.engine.leases import Leases
from turnwire.engine.turns import Message, MessagePart, Options, Turns
from turnwire.models.demo import DemoModel
from turnwire.protocol.codec import decode_frames
from turnwire.protocol.errors import LocalProtocolError, NotFound, TurnwireError
from turnwire.protocol.events import TERMINAL, Event, MessageResumed, ToolUseExecuting
from turnwire.protocol.grammar import Grammar
from turnwire.protocol.ids import new_session_id
from turnwire.protocol.sse import SSEDecoder
from turnwire.seams.store import Session, Turn
from turnwire.seams.tool import REPEATABLE, ToolContext
from turnwire.stores.memory import MemoryStore
from turnwire.testing.faulty import Faults, FaultyModel, FaultyTools, faulty_store
from turnwire.testing.virtual_time import LoopClock, VirtualTimeLoop
from turnwire.workspaces.directory import DirectoryWorkspaces

TENANT = "acme"
LEASE_S = 30.0


class Chosen(NamedTuple):
    """`turnwire.seams.model.ChosenModel`."""

    model: Model
    spec: str = "demo"
    tools: bool = True
    images: bool = False
    files: bool = False
    context_tokens: int | None = None

    def settings(self, thinking: Any) -> ModelSettings:
        return ModelSettings()


class OneModel:
    """`turnwire.seams.model.Models`: whatever is asked for, it is this one."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def choose(self, spec: str | None) -> Chosen:
        return Chosen(self._model)


class LookingModel(WrapperModel):
    """Keeps what is wrong with the histories that it is given."""

    def __init__(self, wrapped: Model, faults: list[str]) -> None:
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
        self._faults += history_faults(messages)
        if not isinstance(messages[-1], ModelRequest):
            self._faults.append("the model is asked behind its own answer")
        async with super().request_stream(messages, model_settings, model_request_parameters, run_context) as stream:
            yield stream


def history_faults(messages: list[ModelMessage]) -> list[str]:
    """What a provider would refuse: calls without a result right behind, two user's messages in a row, nothing in a
    message."""
    faults: list[str] = []
    open_calls: list[str] = []
    for message in messages:
        if not message.parts:
            faults.append("an empty message")
        if isinstance(message, ModelResponse):
            if open_calls:
                faults.append(f"calls without a result: {open_calls}")
            if all(
                isinstance(part, ThinkingPart) or (isinstance(part, TextPart) and not part.content)
                for part in message.parts
            ):
                faults.append("a response that says nothing")
            open_calls = [part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)]
            continue
        prompts = 0
        for part in message.parts:
            match part:
                case ToolReturnPart(tool_call_id=id_):
                    if id_ not in open_calls:
                        faults.append(f"a result of no open call {id_}")
                    else:
                        open_calls.remove(id_)
                case UserPromptPart():
                    prompts += 1
                    if open_calls:
                        faults.append(f"a user's message before the results of {open_calls}")
                case _:
                    faults.append(f"a part {part!r}")
        if prompts > 1:
            faults.append("two messages of the user in a row")
    return faults


class MarkingTools(FunctionToolset[ToolContext]):
    """`count`, which must not run twice, `look`, which may, and both take their time."""

    def __init__(self, world: "World") -> None:
        super().__init__(id="marks", max_retries=0)

        async def count(token: str, seconds: float = 0.0) -> str:
            world.marks[token] += 1
            if not await world.is_executing(token):
                world.wrong.append(f"{token} ran before its tool_use.executing was durable")
            await asyncio.sleep(seconds)
            return f"counted {token}"

        async def look(token: str, seconds: float = 0.0) -> str:
            await asyncio.sleep(seconds)
            return f"looked at {token}"

        self.add_function(count, metadata={REPEATABLE: False})
        self.add_function(look, metadata={REPEATABLE: True})


class Server:
    """A server process: what it has in memory goes with it."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.world = world
        self.faults = Faults(seed=world.seed * 1000 + len(world.servers), delay_s=0.02)
        self.model_faults = world.model_faults
        store = faulty_store(world.store, self.faults)
        model = LookingModel(FaultyModel(DemoModel(pace=50.0), world.model_faults), world.wrong)
        tools = FaultyTools(MarkingTools(world), world.tool_faults)
        options = Options(owner=name, lease_s=LEASE_S, recoveries_max=world.recoveries_max)
        self.turns = Turns(store, OneModel(model), tools, world.workspaces, world.clock, options)
        self._leases = Leases(store, self.turns, name, lease_s=LEASE_S)
        self._task = world.loop.create_task(self._leases.run())
        self.requests: list[asyncio.Task[Any]] = []

    def die(self) -> None:
        """At once: nothing more reaches the store, nobody hears of anything."""
        self.faults.dead = True
        self._task.cancel()
        for request in self.requests:
            request.cancel()
        self.turns.supervisor.abandon()
        self.world.loop.run_until_complete(asyncio.sleep(0))
        self.world.servers.remove(self)


class Reader:
    """Follows a turn from a number on, at its own pace, over any number of breaks."""

    def __init__(self, world: "World", turn: Turn, first_seq: int, pause_s: float, *, numbered: bool) -> None:
        self.turn = turn
        self.first_seq = first_seq
        self.numbered = numbered
        self.frames: list[tuple[str, str]] = []
        self.ended = False
        self.wrong: list[str] = []
        self._world = world
        self._pause_s = pause_s
        self.task = world.loop.create_task(self._run())

    async def _run(self) -> None:
        while not self.ended:
            server = self._world.any_server()
            if server is not None:
                # A connection to the server: it breaks when the server dies.
                connection = self._world.loop.create_task(self._read(server))
                server.requests.append(connection)
                await asyncio.wait([connection])
                with suppress(TurnwireError, asyncio.CancelledError):
                    connection.result()
            if not self.ended:
                await asyncio.sleep(1.0)

    async def _read(self, server: Server) -> None:
        next_seq = self.first_seq + len(self.frames)
        follower: Follower | None
        if self.numbered:
            turn = self.turn
            follower = await server.turns.follow_after(turn.tenant, turn.session_id, turn.id, next_seq - 1)
            if follower is None:
                self.wrong.append("told that there is no more, without an ending")
                self.ended = True
                return
        else:
            follower = server.turns.follow(self.turn, next_seq, numbered=False)
        decoder = SSEDecoder()
        async for data in follower:
            for event in decoder.feed(data):
                expected = self.first_seq + len(self.frames)
                if self.numbered:
                    body = json.loads(event.data)
                    if int(event.id) != expected or body.pop("sequence_number") != expected:
                        self.wrong.append(f"got {event.id} where {expected} comes next")
                self.frames.append((event.event, event.data))
                if event.event in {terminal.type for terminal in TERMINAL}:
                    self.ended = True
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
        if not self.ended and not follower.cut_off:
            self.wrong.append("ended cleanly without an ending")


class World:
    def __init__(self, folder: Path, *, seed: int = 0, recoveries_max: int = 3) -> None:
        self.seed = seed
        self.recoveries_max = recoveries_max
        # Thousands of faults are written to the log, each with its trace: that would be most of the time.
        self._log_settings = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.loop = VirtualTimeLoop()
        asyncio.set_event_loop(self.loop)
        self.clock = LoopClock(self.loop)
        self.store = MemoryStore(clock=self.clock)
        self.workspaces = DirectoryWorkspaces(folder)
        self.model_faults = Faults(seed)
        self.tool_faults = Faults(seed + 1)
        self.marks: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.servers: list[Server] = []
        self.sessions: list[str] = []
        self.turns: dict[str, Turn] = {}
        self.readers: list[Reader] = []
        self.cancelled: set[str] = set()
        self.deleted: set[str] = set()
        self.orders: dict[str, list[str]] = {}
        """By turn: the words that its texts hold."""
        self._logs: dict[str, list[Event]] = {}
        self._names = 0
        self.start_server()

    # What may happen

    def start_server(self) -> Server:
        self._names += 1
        server = Server(self, f"server-{self._names}")
        self.servers.append(server)
        return server

    def any_server(self) -> Server | None:
        return self.servers[0] if self.servers else None

    def restart(self, server: Server) -> Server:
        """The server dies, and another one takes up all that there is: the embedded store's way."""
        server.die()
        new = self.start_server()
        self.do(new, new.turns.take_over(everything=True, reason="server_restarted"))
        return new

    def do(self, server: Server, request: Any) -> Any:
        """A request to a server, whose answer is waited for; None when it was refused."""
        task = self.loop.create_task(request)
        server.requests.append(task)
        try:
            return self.loop.run_until_complete(asyncio.wait_for(task, 60.0))
        except (TurnwireError, TimeoutError):
            return None

    def new_session(self) -> str:
        now = self.clock.now()
        session = Session(id=new_session_id(), tenant=TENANT, created_at=now, last_activity=now, ttl=14400)
        self.loop.run_until_complete(self.store.create_session(session))
        self.sessions.append(session.id)
        return session.id

    def begin(
        self, server: Server, session_id: str, text: str, words: list[str], key: str | None = None
    ) -> Turn | None:
        message = Message(parts=[MessagePart("text", text=text)], key=key)
        begun = self.do(server, server.turns.begin(TENANT, session_id, message))
        if begun is None:
            return None
        turn, _ = begun
        self.turns[turn.id] = turn
        self.orders[turn.id] = words
        return turn

    def log(self, turn_id: str) -> list[Event]:
        """As of the last `check()`."""
        return self._logs[turn_id]

    def log_length(self, turn_id: str) -> int:
        return len(self._logs[turn_id])

    def cancel(self, server: Server, turn: Turn) -> None:
        after = self.do(server, server.turns.cancel(TENANT, turn.session_id, turn.id))
        if after is not None and after.ended_at is None:
            self.cancelled.add(turn.id)

    def delete(self, server: Server, session_id: str) -> None:
        async def delete() -> None:
            running_id = await self.store.delete_session(TENANT, session_id)
            if running_id is not None:
                server.turns.stop(running_id)
                self.cancelled.add(running_id)

        with suppress(NotFound):
            self.loop.run_until_complete(delete())
            self.deleted.add(session_id)

    # Its laws

    async def is_executing(self, token: str) -> bool:
        """Whether a running turn's log says that the call with this token is being made."""
        for session_id in self.sessions:
            if session_id in self.deleted:
                continue
            for turn in await self.store.list_turns(TENANT, session_id, limit=1):
                page = await self.store.read_events(turn.id, 0, bytes_max=1 << 40)
                events = [event for segment in page.segments for event in decode_frames(segment.frames)]
                if any(isinstance(e, ToolUseExecuting) and e.input.get("token") == token for e in events):
                    return True
        return bool(self.deleted)  # it may be of a session that can't be looked at any more

    def check(self) -> None:
        faults = self.loop.run_until_complete(self._faults())
        assert not faults, "\n".join(faults)

    async def _faults(self) -> list[str]:
        faults = list(self.wrong)
        for token, count in self.marks.items():
            if count > 1:
                faults.append(f"{token} ran {count} times")
        for turn_id in self.turns:
            faults += [f"{turn_id}: {fault}" for fault in await self._log_faults(turn_id)]
        for reader in self.readers:
            faults += reader.wrong + self._reader_faults(reader)
        for session_id in self.sessions:
            if session_id not in self.deleted:
                faults += await self._session_faults(session_id)
        return faults

    async def _log_faults(self, turn_id: str) -> list[str]:
        page = await self.store.read_events(turn_id, 0, bytes_max=1 << 40)
        events = [event for segment in page.segments for event in decode_frames(segment.frames)]
        before = self._logs.get(turn_id, [])
        faults: list[str] = []
        if events[: len(before)] != before:
            faults.append("the log was changed")
        self._logs[turn_id] = events
        grammar = Grammar()
        try:
            grammar.check_all(events)
        except LocalProtocolError as exc:
            return [*faults, f"event {grammar.next_seq}: {exc}"]
        if page.last_seq != len(events) - 1:
            faults.append(f"last_seq is {page.last_seq}, with {len(events)} events")
        if page.ended != grammar.ended:
            faults.append(f"ended: {page.ended} for the store, {grammar.ended} in the log")
        if grammar.ended and turn_id in self.cancelled and events[-1].type != "message.cancelled":
            faults.append(f"was to be cancelled, and ended as {events[-1]}")
        if grammar.ended and turn_id not in self.cancelled and events[-1].type == "message.cancelled":
            faults.append("ended as cancelled, though nobody asked for it")
        return faults

    def _reader_faults(self, reader: Reader) -> list[str]:
        events = self._logs[reader.turn.id][reader.first_seq :][: len(reader.frames)]
        if [event.type for event in events] != [type_ for type_, _ in reader.frames]:
            return [f"a reader from {reader.first_seq} has {reader.frames}, the log {events}"]
        return []

    async def _session_faults(self, session_id: str) -> list[str]:
        session = await self.store.get_session(TENANT, session_id)
        turns = await self.store.list_turns(TENANT, session_id, limit=1000)
        faults: list[str] = []
        running = [turn for turn in turns if turn.ended_at is None]
        if session.busy != bool(running) or len(running) > 1:
            faults.append(f"{session_id}: busy is {session.busy} with {len(running)} running turns")
        history = History(await self.store.read_history(session_id))
        if not running and turns:
            faults += [f"{session_id}: {fault}" for fault in history_faults(history.messages)]
            if history.awaits_model or history.open_calls:
                faults.append(f"{session_id}: the history of an idle session is not closed")
        for turn in turns:
            faults += self._word_faults(turn)
        return faults

    def _word_faults(self, turn: Turn) -> list[str]:
        """Each word that the model was to say is in the conversation once, or, of a broken turn, at most once."""
        if turn.content is None or turn.id not in self.orders:
            return []
        blocks = json.loads(turn.content)
        said = Counter(" ".join(block["text"] for block in blocks if block["type"] in ("text", "thinking")).split())
        least = 1 if turn.status == "completed" else 0
        return [
            f"{turn.id} ({turn.status}): {word} stands {said[word]} times"
            for word in self.orders[turn.id]
            if not least <= said[word] <= 1
        ]

    # The end

    def come_to_rest(self) -> None:
        """The faults are over, a server lives, and time passes: everything must come to its end."""
        for faults in (self.model_faults, self.tool_faults, *(server.faults for server in self.servers)):
            faults.outage, faults.fails, faults.loses, faults.hangs = False, 0.0, 0.0, 0.0
        if not self.servers:
            self.start_server()
        self.loop.run_for(7200)
        self.check()
        for turn_id in self.turns:
            assert self._logs[turn_id][-1].type in {terminal.type for terminal in TERMINAL}, f"{turn_id} never ended"
        for reader in self.readers:
            # Readers of a deleted session get its ending, or are cut off and find nothing more.
            assert reader.ended or reader.turn.session_id in self.deleted, (
                f"a reader of {reader.turn.id} from {reader.first_seq} still waits"
            )
        for server in self.servers:
            assert not len(server.turns.supervisor), f"{server.name} still runs {server.turns.supervisor.turn_ids}"

    def kinds(self) -> set[str]:
        """Which events there were, for the statistics: a world in which nothing happens proves nothing."""
        kinds: set[str] = set()
        for log in self._logs.values():
            for event in log:
                kinds.add(f"{event.type} {event.reason}" if isinstance(event, MessageResumed) else event.type)
        return kinds

    def close(self) -> None:
        for reader in self.readers:
            reader.task.cancel()
        for server in list(self.servers):
            server.die()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        self.loop.close()
        structlog.configure(**self._log_settings)
