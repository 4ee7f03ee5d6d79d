"""What callers do with turns: begin one, follow it, cancel it, read the conversation; and their life over restarts."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import msgspec
import structlog
from pydantic_ai import RunContext
from pydantic_ai.messages import BinaryContent, UserContent
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset

from turnwire.engine.agent import Agent, TurnParts, tool_run_context
from turnwire.engine.asking import Approval, Asking, ToolAnswer, call_answer
from turnwire.engine.calls import Tools
from turnwire.engine.context import clean_text, prompt_entry
from turnwire.engine.follow import Follower
from turnwire.engine.functions import FunctionToolset, read_functions
from turnwire.engine.instructions import instructions_for
from turnwire.engine.limits import CONTEXTS_KEPT, RETRY_AFTER_DRAINING_S
from turnwire.engine.places import Places
from turnwire.engine.recovery import Reason, TakeOver, give_up, rebuild, take_up
from turnwire.engine.requests import StepLimits
from turnwire.engine.supervisor import Prepare, Running, Supervisor
from turnwire.engine.trouble import TurnFailed
from turnwire.engine.window import Window, size_of_tools
from turnwire.protocol.codec import encode_frame, encode_json
from turnwire.protocol.errors import InvalidRequest, NotFound, Unavailable
from turnwire.protocol.events import MessageCreated
from turnwire.protocol.ids import new_message_id, new_response_id
from turnwire.protocol.transcript import Block
from turnwire.seams.clock import Clock
from turnwire.seams.model import ChosenModel, Models, ThinkingLevel
from turnwire.seams.mounts import Mounted
from turnwire.seams.skills import SKILLS_PATH, Skills, skills_prompt
from turnwire.seams.store import NewTurn, Session, SessionChanges, Store, StoreDamaged, Turn
from turnwire.seams.tool import ToolContext, ToolFailed
from turnwire.seams.workspace import Workspace
from turnwire.seams.workspaces import Workspaces, workspace_of

log = structlog.get_logger(__name__)


class MessagePart(msgspec.Struct, frozen=True):
    """A part of a user's message. `data` of an image or a file is its bytes; `path` names it in the workspace."""

    type: Literal["text", "image", "file"]
    text: str = ""
    data: bytes = b""
    media_type: str = ""
    path: str | None = None


class MessageSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message may set for its turn."""

    temperature: float | None = None
    max_output_tokens: int | None = None
    thinking: ThinkingLevel | None = None


class Message(msgspec.Struct, frozen=True):
    """A message to a session. `parts` is never empty; `key` is its idempotency key."""

    parts: list[MessagePart]
    model: str | None = None
    settings: MessageSettings = MessageSettings()
    key: str | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The server's settings that turns go by. Times are seconds."""

    owner: str
    lease_s: float = 30.0
    tools_change: bool = False
    """The server's own tools come and go, as those of MCP servers do."""
    tool_result_timeout_s: float = 600.0
    turn_timeout_s: float = 5400.0
    turns_max: int = 1000
    turns_per_tenant_max: int = 200
    recovery: Literal["continue", "fail"] = "continue"
    recoveries_max: int = 3
    instructions: str | None = None
    steps: StepLimits = StepLimits()


class Turns:
    """The turns of this server."""

    def __init__(
        self,
        store: Store,
        models: Models,
        toolset: AbstractToolset[ToolContext],
        workspaces: Workspaces,
        clock: Clock,
        options: Options,
        skills: Skills | None = None,
    ) -> None:
        self._store = store
        self._models = models
        self._toolset = toolset
        self._workspaces = workspaces
        self._clock = clock
        self._options = options
        self._skills = skills
        self._places = Places(turns_max=options.turns_max, turns_per_tenant_max=options.turns_per_tenant_max)
        self.supervisor = Supervisor(store, self._places, turn_timeout_s=options.turn_timeout_s)
        self._own_tools: Tools | None = None
        self._contexts: dict[str, int] = {}
        """Models whose providers took less than they are said to take, and how much that is."""
        self.draining = False
        """New turns are refused: the server is about to stop."""

    # Beginning

    async def begin(self, tenant: str, session_id: str, message: Message) -> tuple[Turn, bool]:
        """The turn that this message begins, durably; or, True, the one that its idempotency key began before."""
        if self.draining:
            raise Unavailable(
                "The server is about to stop: try again in a moment.", retry_after_s=RETRY_AFTER_DRAINING_S
            )
        session = await self._store.get_session(tenant, session_id)
        chosen = await self._models.choose(message.model or session.model)
        for part in message.parts:
            _check_part(part, chosen)
        refusal = self._places.refusal(tenant)
        if refusal is not None and message.key is not None:
            # A retry of a message whose turn has begun takes no place.
            return await self._begin(session, message, refusal)
        with self._places.reserved(tenant):
            return await self._begin(session, message)

    async def _begin(self, session: Session, message: Message, refusal: Exception | None = None) -> tuple[Turn, bool]:
        turn_id = new_response_id()
        created = MessageCreated(turn_id, session.id)
        frames = encode_frame(created)
        begun = await self._store.begin_turn(
            NewTurn(
                id=turn_id,
                session_id=session.id,
                tenant=session.tenant,
                message_id=new_message_id(),
                message=encode_json([_block(part) for part in message.parts]),
                history=prompt_entry(_prompt(message.parts)),
                frames=frames,
                model=message.model,
                settings=encode_json(message.settings),
                owner=self._options.owner,
                lease_s=self._options.lease_s,
                idempotency_key=message.key,
                fingerprint=_fingerprint(session.id, message),
                refusal=refusal,
            )
        )
        if not begun.replayed:
            running = Running(self._store, begun.turn, [created])
            running.tail.keep(0, frames)
            self.supervisor.start(running, self._preparation(begun.session))
        return begun.turn, begun.replayed

    def _preparation(self, session: Session, takeover: TakeOver | None = None) -> Prepare:
        """How a turn of this session is made ready; with a `takeover`, one whose server died."""

        async def prepare(running: Running) -> Agent:
            turn = running.turn
            await running.load_history()
            if takeover is not None and self._options.recovery == "fail":
                raise TurnFailed("The server was restarted while this turn ran: send the message again.")
            if turn.recoveries > self._options.recoveries_max:
                raise TurnFailed(
                    f"The server stopped {turn.recoveries} times while this turn ran, so it was given up: "
                    "send the message again."
                )
            try:
                chosen = await self._models.choose(turn.model or session.model)
            except InvalidRequest as exc:
                raise TurnFailed(exc.message) from exc
            parts = await self._parts(running, session, chosen)
            if takeover is not None:
                take_up(running, parts, takeover.reason)
                await takeover.done.wait()
            return Agent(parts)

        return prepare

    async def _parts(self, running: Running, session: Session, chosen: ChosenModel) -> TurnParts:
        settings = msgspec.json.decode(running.turn.settings, type=MessageSettings)
        workspace, skills = await asyncio.to_thread(self._view, session, chosen)
        deps = ToolContext(
            session.tenant, session.id, workspace, partial(self._set_status, session), network=session.network
        )
        context = tool_run_context(deps, chosen.model)
        toolset = self._toolset_of(session)
        tools: Tools = await self._tools_of(toolset, context) if chosen.tools else {}
        instructions = await asyncio.to_thread(
            instructions_for,
            [self._options.instructions, skills, session.instructions],
            workspace if chosen.tools else None,
        )
        model_settings = _model_settings(settings, chosen)
        running.asking = Asking(
            self._store, running.turn.id, self._clock, timeout_s=self._options.tool_result_timeout_s
        )
        return TurnParts(
            recorder=running.recorder,
            history=running.history,
            model=chosen,
            toolset=toolset,
            tools=tools,
            context=context,
            approvals=frozenset(session.approvals),
            asking=running.asking,
            instructions=instructions,
            settings=model_settings,
            show_thinking=settings.thinking != "off",
            window=self._window(chosen, tools, instructions, model_settings.get("max_tokens") or 0),
            limits=self._options.steps,
        )

    def _toolset_of(self, session: Session) -> AbstractToolset[ToolContext]:
        if not session.tools:
            return self._toolset
        functions = read_functions(session.tools, ())
        declared = {function.name for function in functions}
        # An MCP server that came up later may have a tool of the same name: the session's own wins.
        own = self._toolset.filtered(lambda _, tool: tool.name not in declared)
        return CombinedToolset([own, FunctionToolset(functions)])

    async def _tools_of(self, toolset: AbstractToolset[ToolContext], context: RunContext[ToolContext]) -> Tools:
        """The tools, made anew only where they differ from turn to turn: they are a large part of a quiet turn's
        memory."""
        if toolset is not self._toolset or self._options.tools_change:
            return await toolset.get_tools(context)
        if self._own_tools is None:
            self._own_tools = await toolset.get_tools(context)
            for tool in self._own_tools.values():
                # What a tool returns is text; with a schema of it, each request would copy the definition to drop it.
                tool.tool_def = replace(tool.tool_def, return_schema=None)
        return self._own_tools

    def _view(self, session: Session, chosen: ChosenModel) -> tuple[Workspace, str | None]:
        """What a turn sees of the files, the skills among them, and what it is told of those."""
        workspace = workspace_of(session, self._workspaces)
        shown = None if self._skills is None or not chosen.tools else self._skills.workspace(session.tenant)
        if self._skills is None or shown is None:
            return workspace, None
        return Mounted(workspace, SKILLS_PATH, shown), skills_prompt(self._skills.list(session.tenant))

    def _window(self, chosen: ChosenModel, tools: Tools, instructions: str | None, answer_tokens: int) -> Window | None:
        if chosen.context_tokens is None:
            return None
        definitions = (tool.tool_def for tool in tools.values())
        fixed = size_of_tools([d.name, d.description, d.parameters_json_schema] for d in definitions)
        learnt = self._contexts.get(chosen.spec, chosen.context_tokens)
        return Window(
            min(chosen.context_tokens, learnt),
            fixed + len((instructions or "").encode(errors="replace")),
            answer_tokens,
            lambda tokens: self._learn_context(chosen.spec, tokens),
        )

    async def _set_status(self, session: Session, status: str) -> None:
        changes = SessionChanges(metadata={"status": status or None})
        try:
            await self._store.update_session(session.tenant, session.id, changes)
        except NotFound as exc:
            raise ToolFailed("The session is gone.") from exc

    def _learn_context(self, spec: str, tokens: int) -> None:
        log.warning("context_smaller_than_thought", model=spec, tokens=tokens)
        if len(self._contexts) >= CONTEXTS_KEPT:
            self._contexts.clear()
        self._contexts[spec] = tokens

    async def server_tools(self) -> list[str]:
        """Names of the server's own tools."""
        chosen = await self._models.choose(None)
        nobody = tool_run_context(ToolContext("", "", cast(Workspace, None)), chosen.model)
        return list(await self._toolset.get_tools(nobody))

    # Calls that wait for their caller

    async def answer_calls(
        self, tenant: str, session_id: str, answers: Sequence[tuple[str, ToolAnswer | Approval]]
    ) -> None:
        """Keep the caller's answers, all or none, and let the turns that wait for them go on."""
        kept = [call_answer(call_id, answer) for call_id, answer in answers]
        for turn_id in await self._store.answer_calls(tenant, session_id, kept):
            running = self.supervisor.get(turn_id)
            if running is not None and running.asking is not None:
                running.asking.wake()

    # Following

    async def get(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        return await self._store.get_turn(tenant, session_id, turn_id)

    def follow(self, turn: Turn, next_seq: int, *, numbered: bool) -> Follower:
        """A follower from the event `next_seq` on."""
        return self.supervisor.follow(turn.id, next_seq, numbered=numbered)

    async def follow_after(self, tenant: str, session_id: str, turn_id: str, after: int) -> Follower | None:
        """A numbered follower of what comes after the event `after` (-1: everything); None when that was the last.

        `InvalidRequest` when the log has no such event, `NotFound` when its events are gone.
        """
        turn = await self._store.get_turn(tenant, session_id, turn_id)
        running = self.supervisor.get(turn_id)
        last_seq = turn.last_seq if running is None else max(turn.last_seq, running.tail.last_seq)
        if after > last_seq:
            raise InvalidRequest(f"The last event id {after} is beyond the log, which ends at {last_seq}.")
        ended = turn.ended_at is not None or (running is not None and running.tail.ended)
        if ended and after == last_seq:
            return None
        if running is None:
            await self._store.read_events(turn_id, after + 1, bytes_max=1)
        return self.follow(turn, after + 1, numbered=True)

    async def content_so_far(self, turn: Turn) -> list[Block]:
        """What a running turn has said so far, as its log tells."""
        return (await rebuild(self._store, turn)).recorder.transcript.content

    async def cancel(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        """Ask for the end of a turn; the answer is the turn, which may have ended already."""
        turn = await self._store.request_cancel(tenant, session_id, turn_id)
        if turn.ended_at is None:
            self.stop(turn_id)
        return turn

    def stop(self, turn_id: str) -> None:
        """Stop a turn here, whose cancel is durable."""
        running = self.supervisor.get(turn_id)
        if running is not None:
            running.cancel()

    # Life over restarts

    async def take_over(self, *, everything: bool, reason: Reason) -> int:
        """Take up turns that their server left running: all, or those whose lease has run out. How many they are."""
        turns = await self._store.take_over(self._options.owner, lease_s=self._options.lease_s, everything=everything)
        takeover = TakeOver(reason, asyncio.Event())
        try:
            for turn in turns:
                await self._take_up(turn, takeover)
        finally:
            takeover.done.set()
        return len(turns)

    async def _take_up(self, turn: Turn, takeover: TakeOver) -> None:
        try:
            running = await rebuild(self._store, turn)
        except StoreDamaged:
            log.exception("turn_damaged", response_id=turn.id)
            give_up(self._store, turn)
            return
        try:
            session = await self._store.get_session(turn.tenant, turn.session_id)
        except NotFound:  # deleted: its turn is to be cancelled, and needs no more of it than its id
            session = _deleted_session(turn)
        age_s = self._clock.now() - turn.created_at
        self.supervisor.start(running, self._preparation(session, takeover), age_s=age_s)
        if turn.cancel_requested:
            running.cancel()

    async def drain(self, grace_s: float) -> None:
        """Refuse new turns, let running ones end for a grace time, and leave the others for the next start."""
        self.draining = True
        left = await self.supervisor.drain(grace_s)
        if left:
            log.info("turns_left", count=len(left))
            await self._store.release_turns(self._options.owner, left)


def _deleted_session(turn: Turn) -> Session:
    return Session(
        id=turn.session_id, tenant=turn.tenant, created_at=turn.created_at, ttl=0, last_activity=turn.created_at
    )


def _check_part(part: MessagePart, chosen: ChosenModel) -> None:
    if part.type == "image" and not chosen.images:
        raise InvalidRequest(f"The model {chosen.spec} takes no images; GET /v1/models tells which ones do.")
    if part.type == "file" and not chosen.files:
        raise InvalidRequest(f"The model {chosen.spec} takes no files; put their text into the message.")


def _block(part: MessagePart) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    return {"type": part.type, "path": part.path, "media_type": part.media_type}


def _prompt(parts: Sequence[MessagePart]) -> str | list[UserContent]:
    if len(parts) == 1 and parts[0].type == "text":
        return clean_text(parts[0].text)
    return [
        clean_text(part.text)
        if part.type == "text"
        else BinaryContent(part.data, media_type=part.media_type, identifier=part.path)
        for part in parts
    ]


def _fingerprint(session_id: str, message: Message) -> bytes:
    """What a repeat under the same idempotency key must match: the session, the message and the model."""
    return hashlib.sha256(encode_json([session_id, message.parts, message.model])).digest()


def _model_settings(settings: MessageSettings, chosen: ChosenModel) -> ModelSettings:
    result = chosen.settings(settings.thinking)
    if settings.temperature is not None:
        result["temperature"] = settings.temperature
    if settings.max_output_tokens is not None:
        result["max_tokens"] = settings.max_output_tokens
    return result
