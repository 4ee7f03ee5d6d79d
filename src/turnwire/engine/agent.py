"""The agent's loop: model request, tool calls, model request, until the model has nothing more to call.

Where a turn stands is read from its history alone, so the loop that begins a turn is the loop that goes on with one
whose server died. A step has two durable points: (a) the model's whole response joins the history in the transaction
of its last `*.stop`, before any tool starts; (b) each call's return joins it in the transaction of its `tool_result`.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import InstructionPart, ModelResponse, ToolCallPart
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import RunUsage

from turnwire.engine.asking import Approval, Asking, ToolAnswer
from turnwire.engine.blocks import BlockWriter
from turnwire.engine.calls import NOT_APPROVED, REFUSED, SUPERSEDED, UNANSWERED, CallRunner, Result, Tools, in_turn
from turnwire.engine.compaction import Compactor
from turnwire.engine.context import Call, Compaction, History, clean_value, response_entry, return_entry
from turnwire.engine.limits import (
    REQUEST_ATTEMPTS_MAX,
    RETRY_DELAY_MAX_S,
    STEPS_MAX,
    TOKENS_MAX,
    TOOL_CALLS_MAX,
)
from turnwire.engine.recorder import Recorder
from turnwire.engine.requests import StepLimits, ask, delay_s, usage_of
from turnwire.engine.trouble import Trouble, TurnFailed, explain, is_provider_error, is_refused, is_too_long
from turnwire.engine.window import Window
from turnwire.protocol.codec import encode_json
from turnwire.protocol.events import Event, MessageResumed, ToolCallAnswered, ToolCallRequested, ToolResult
from turnwire.seams.model import ChosenModel, Piece, PiecewiseStream
from turnwire.seams.store import CallRequest, HistoryEntry
from turnwire.seams.tool import ToolContext

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class TurnParts:
    """What a turn is run with."""

    recorder: Recorder
    history: History
    model: ChosenModel
    toolset: AbstractToolset[ToolContext]
    tools: Tools
    context: RunContext[ToolContext]
    approvals: frozenset[str]
    asking: Asking
    instructions: str | None
    settings: ModelSettings
    show_thinking: bool
    window: Window | None = None
    """The model's context; None: it takes whatever it is given."""
    limits: StepLimits = field(default_factory=StepLimits)


class Agent:
    """One turn's loop. `run()` returns when the model has come to its end; `TurnFailed` when it can't."""

    def __init__(self, parts: TurnParts) -> None:
        self._parts = parts
        self._recorder = parts.recorder
        self._history = parts.history
        self._runner = CallRunner(parts.toolset, parts.tools, parts.context, parts.approvals, images=parts.model.images)
        if not parts.model.images:
            self._history.leave_out_images()
        self._compactor = None
        if parts.window is not None:
            self._history.limit_outputs(parts.window.output_bytes_max)
            self._compactor = Compactor(
                parts.recorder, parts.history, parts.window, parts.model, parts.context, parts.limits
            )

    async def run(self) -> None:
        while True:
            if self._history.open_calls:
                await self._run_calls(list(self._history.open_calls.values()))
            elif self._history.awaits_model:
                self._check_limits()
                if self._compactor is not None:
                    await self._compactor.make_room()
                await self._step()
            else:
                return

    def _check_limits(self) -> None:
        usage = self._recorder.usage
        for have, most, what in (
            (usage.requests, STEPS_MAX, "model requests"),
            (usage.tool_calls, TOOL_CALLS_MAX, "tool calls"),
            (usage.total_tokens, TOKENS_MAX, "tokens"),
        ):
            if have >= most:
                raise TurnFailed(f"The turn reached its limit of {most} {what}: send another message to go on.")

    # A step: a model request, made again while that helps.

    async def _step(self) -> None:
        attempts, interruptions, made_room = 0, 0, False
        seen: Compaction | None = None  # how it was before the images were left out
        while True:
            self._recorder.step_seq = self._recorder.next_seq
            writer = BlockWriter(self._parts.tools)
            try:
                response = await self._request(writer)
                break
            except Exception as exc:
                if not is_provider_error(exc):
                    raise
                shown = self._recorder.next_seq > self._recorder.step_seq
                if is_too_long(exc) and not made_room and await self._make_room_at_once():
                    made_room = True
                    continue
                if seen is None and is_refused(exc) and not shown and self._compactor is not None:
                    # A provider refuses a request with an image that it can't read, and would each later one.
                    seen = self._compactor.try_without_images()
                    if seen is not None:
                        log.warning("asked_without_images", model=self._parts.model.spec, error=repr(exc)[:2000])
                        continue
                attempts += 1
                trouble = explain(exc, self._parts.model.spec)
                log.warning("model_request_failed", model=self._parts.model.spec, shown=shown, error=repr(exc)[:2000])
                interruptions += shown
                if not self._may_try_again(trouble, attempts, interruptions):
                    if seen is not None and is_refused(exc):  # so it was not for the images
                        self._history.compact(seen)
                    raise TurnFailed(trouble.sentence) from exc
                if shown:
                    self._supersede_step()
                await asyncio.sleep(delay_s(attempts, trouble))
        if seen is not None and self._compactor is not None:
            await self._compactor.keep()
        self._keep(response, writer)

    async def _make_room_at_once(self) -> bool:
        """The provider refused the conversation as too long; whether it is shorter now."""
        window, compactor = self._parts.window, self._compactor
        if window is None or compactor is None:
            return False
        window.was_too_long(self._history)
        return await compactor.make_room()

    def _may_try_again(self, trouble: Trouble, attempts: int, interruptions: int) -> bool:
        return (
            trouble.transient
            and attempts < REQUEST_ATTEMPTS_MAX
            and interruptions <= self._parts.limits.step_retries
            and (trouble.retry_after_s or 0) <= RETRY_DELAY_MAX_S
        )

    def _supersede_step(self) -> None:
        """The provider broke off after the step had shown something: say that it is made again."""
        grammar = self._recorder.grammar
        response_id = self._recorder.turn.id
        events: list[Event] = [
            *grammar.closing(),
            *(ToolResult(id_, SUPERSEDED, is_error=True) for id_ in grammar.unanswered),
            MessageResumed(response_id, "provider_interrupted", self._recorder.step_seq),
        ]
        self._recorder.record(events)

    async def _request(self, writer: BlockWriter) -> ModelResponse:
        parts = self._parts
        parameters = ModelRequestParameters(
            function_tools=[tool.tool_def for tool in parts.tools.values()],
            instruction_parts=[InstructionPart(content=parts.instructions)] if parts.instructions else None,
        )

        async def show(pieces: list[Piece]) -> None:
            self._show(writer, pieces)
            await self._recorder.room()

        stream = await ask(
            parts.model, self._history.messages, parts.settings, parameters, parts.context, parts.limits, show
        )
        return self._whole(stream, writer)

    def _show(self, writer: BlockWriter, pieces: list[Piece]) -> None:
        if not self._parts.show_thinking:
            pieces = [piece for piece in pieces if piece.kind != "thinking"]
        events = writer.feed(pieces)
        if events:
            self._recorder.record(events)

    def _whole(self, stream: StreamedResponse, writer: BlockWriter) -> ModelResponse:
        """The response, when its stream has come to its end."""
        response = stream.get()
        if not isinstance(stream, PiecewiseStream) and not _says_that_it_is_whole(response):
            # The vendors' SDKs take the end of the connection for the end of the answer.
            raise ModelAPIError(self._parts.model.spec, "The provider's stream broke off before it was complete.")
        # A call that the stream did not tell of, piece by piece, is told of now.
        missing = [
            Piece(index, "call", part.args_as_json_str(), part.tool_name)
            for index, part in enumerate(response.parts)
            if isinstance(part, ToolCallPart) and not writer.was_told_of(index)
        ]
        if missing:
            self._show(writer, missing)
        return response

    def _keep(self, response: ModelResponse, writer: BlockWriter) -> None:
        """Durable point (a): the last stop, the whole response, and what can be said at once of calls that can't be
        made, in one transaction."""
        call_parts = {i: part for i, part in enumerate(response.parts) if isinstance(part, ToolCallPart)}
        events = writer.finish({i: part.args for i, part in call_parts.items()})
        calls: list[Call] = []
        for index, part in call_parts.items():
            told = writer.calls[index]
            # A provider refuses a history in which an input is no object.
            part.args = "{}" if told.value is None else encode_json(clean_value(told.value)).decode()
            calls.append(Call(told.id, part, told.value))
        entry = response_entry(response, [call.id for call in calls])
        usage = self._recorder.usage + usage_of(response.usage, len(calls))
        self._history.add(entry)
        entries = [entry]
        refusals = {call.id: refusal for call in calls if (refusal := self._runner.refusal(call)) is not None}
        asked, requests = self._requests([call for call in calls if call.id not in refusals])
        events += asked
        for call in calls:
            if call.id in refusals:
                events.append(ToolResult(call.id, refusals[call.id].content, is_error=True))
                entries.append(self._answer(call, refusals[call.id]))
        self._recorder.record(events, history=entries, usage=usage, requests=requests)

    # Tool calls.

    async def _run_calls(self, calls: list[Call]) -> None:
        asked, requests = self._requests(calls)
        if asked:  # none but after a recovery: they were asked with the response
            self._recorder.record(asked, requests=requests)
        await self._recorder.durable()
        if in_turn(calls, self._parts.tools):
            for call in calls:
                await self._run_call(call)
        else:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._run_call(call))

    def _requests(self, calls: list[Call]) -> tuple[list[Event], list[CallRequest]]:
        """What asks the caller about those calls that are its to run or to allow, and that it was not asked yet."""
        grammar = self._recorder.grammar
        deadline = self._parts.asking.deadline()
        events: list[Event] = []
        requests: list[CallRequest] = []
        for call in calls:
            kind = self._runner.asks(call)
            if kind is not None and call.id not in grammar.requested and call.id not in grammar.answered:
                events.append(ToolCallRequested(call.id, call.part.tool_name, call.input or {}, kind, deadline))
                requests.append(CallRequest(call.id, kind, deadline))
        return events, requests

    async def _run_call(self, call: Call) -> None:
        """Durable point (b): the result and the return that the model is given, in one transaction."""
        events: list[Event] = []
        result = await (self._runner.run(call) if self._runner.asks(call) is None else self._ask(call, events))
        entry = self._answer(call, result)
        events.append(ToolResult(call.id, result.content, result.is_error))
        self._recorder.record(events, history=[entry])

    async def _ask(self, call: Call, events: list[Event]) -> Result:
        """The result of a call that its caller runs, or allows. What is to be recorded with it goes into `events`."""
        requested = self._recorder.grammar.requested.get(call.id)
        answer = await self._parts.asking.answer(call.id, 0.0 if requested is None else requested.deadline)
        match answer:
            case None:
                return Result(UNANSWERED if self._runner.asks(call) == "tool" else NOT_APPROVED, is_error=True)
            case ToolAnswer(is_error=is_error):
                events.append(ToolCallAnswered(call.id, "tool"))
                return Result(answer.text, is_error=is_error)
            case Approval(approve=False, message=message):
                if requested is not None:
                    events.append(ToolCallAnswered(call.id, "approval", approved=False))
                return Result(message or REFUSED, is_error=True)
            case Approval(input=changed):
                if requested is not None:
                    answered = ToolCallAnswered(call.id, "approval", approved=True, input=changed)
                    self._recorder.record([answered])
                    # That it was allowed is durable before it runs: after a crash it may have taken effect.
                    await self._recorder.durable()
                return await self._run_approved(call, changed)

    async def _run_approved(self, call: Call, changed: dict[str, Any] | None) -> Result:
        if changed is None:
            return await self._runner.run(call)
        misfit = self._runner.misfit(call, changed)
        if misfit is not None:
            return misfit
        result = await self._runner.run(msgspec.structs.replace(call, input=changed))
        note = f"(The user changed the input of this call to {encode_json(changed).decode()}.)"
        return Result(f"{note}\n{result.content}", is_error=result.is_error, images=result.images)

    def _answer(self, call: Call, result: Result) -> HistoryEntry:
        entry = return_entry(call, result.content, is_error=result.is_error, images=result.images)
        self._history.add(entry)
        return entry


def _says_that_it_is_whole(response: ModelResponse) -> bool:
    """Whether the provider said why its answer ends there, in the library's words or in its own."""
    return response.finish_reason is not None or bool((response.provider_details or {}).get("finish_reason"))


def tool_run_context(deps: ToolContext, model: Any) -> RunContext[ToolContext]:
    """What the agent library hands to a tool."""
    return RunContext(deps=deps, model=model, usage=RunUsage())
