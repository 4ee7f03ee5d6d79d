"""Models that play a written answer: the machinery of `demo` and `scripted`.

An `Answer` is a list of acts: parts (text, thinking, calls) with their deltas, waits, failures. A
`PlayedModel` says which answer comes next, and looks at nothing but the messages for it, so that a restart
changes nothing. The stream is a pydantic-ai `StreamedResponse` and gives itself in batches too
(`turnwire.seams.model.PiecewiseStream`).
"""

import asyncio
import re
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import (
    FinishReason,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from turnwire.seams.model import Piece, PieceKind, PiecewiseStream

# Deltas in a batch when no rate is asked for: about what one read of a fast provider's socket brings.
BATCH_DELTAS = 64
# Whose failures "only the first n times" are counted for; an older request starts counting anew.
ATTEMPTS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """Text, thinking or a call, with its deltas; `rate` in deltas per second, None as fast as possible."""

    kind: PieceKind
    deltas: Iterable[str]
    name: str = ""
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fail:
    """A provider's failure: `before` any output (with an HTTP status) or `after` what came before it.

    With `times` only that many attempts at the request fail, counted in this process.
    """

    when: Literal["before", "after"]
    message: str
    status: int = 503
    times: int | None = None


Act = Part | Wait | Fail


@dataclass(frozen=True, slots=True)
class Answer:
    """One response of a model. `interleave`: the deltas of neighbouring calls come in turns."""

    acts: Sequence[Act] = ()
    usage: RequestUsage | None = None
    finish: FinishReason = "stop"
    interleave: bool = False


def words(text: str) -> tuple[str, ...]:
    """Text as deltas: a word each, with the space behind it; they concatenate to the text."""
    return tuple(re.findall(r"\s*\S+\s?|\s+", text))


def slices(text: str, size: int = 12) -> tuple[str, ...]:
    """JSON text as deltas of `size` characters."""
    return tuple(text[i : i + size] for i in range(0, len(text), size))


class PlayedModel(Model):
    """A model whose answers are written beforehand or made by rule."""

    def __init__(self, name: str) -> None:
        super().__init__(
            profile=ModelProfile(
                supports_image_input=False,
                supports_document_input=False,
                supports_audio_file_input=False,
                supports_video_input=False,
            )
        )
        self._name = name
        self._attempts: OrderedDict[tuple[int, str], int] = OrderedDict()

    @abstractmethod
    def answer(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> Answer:
        """The answer to these messages, and always the same to the same."""

    @property
    def model_name(self) -> str:
        return self._name

    @property
    def system(self) -> str:
        return "turnwire"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async with self.request_stream(messages, model_settings, model_request_parameters) as stream:
            async for _ in stream:
                pass
            return stream.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        attempt = self._count_attempt(messages)
        answer = self.answer(messages, model_request_parameters)
        acts = [act for act in answer.acts if not isinstance(act, Fail) or _is_due(act, attempt)]
        for act in acts:
            if isinstance(act, Fail) and act.when == "before":
                headers = {"retry-after": "1"} if act.status == 429 else None
                raise ModelHTTPError(act.status, self._name, {"message": act.message}, headers=headers)
        stream = PlayedStream(
            model_request_parameters=model_request_parameters,
            acts=acts,
            answer=answer,
            name=self._name,
            call_prefix=f"call_{sum(isinstance(m, ModelResponse) for m in messages)}",
        )
        stream.count(input_tokens=_words_in(messages))
        yield stream

    def _count_attempt(self, messages: list[ModelMessage]) -> int:
        found = last_prompt(messages)
        key = (len(messages), found[1].timestamp.isoformat() if found else "")
        attempt = self._attempts.pop(key, 0) + 1
        self._attempts[key] = attempt
        if len(self._attempts) > ATTEMPTS_KEPT:
            self._attempts.popitem(last=False)
        return attempt


def _is_due(fail: Fail, attempt: int) -> bool:
    return fail.times is None or attempt <= fail.times


@dataclass
class PlayedStream(StreamedResponse):
    """An answer, as it is played."""

    acts: Sequence[Act]
    answer: Answer
    name: str
    call_prefix: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """The answer in batches. What was given is in `get()` afterwards, whole or cut off."""
        parts: list[tuple[PieceKind, str, list[str]]] = []
        try:
            async for batch in self._batches():
                for piece in batch:
                    if piece.part == len(parts):
                        parts.append((piece.kind, piece.name, []))
                    parts[piece.part][2].append(piece.content)
                yield batch
            self._finished = True
        finally:
            for index, (kind, name, contents) in enumerate(parts):
                for _ in self._handle(Piece(index, kind, "".join(contents), name)):
                    pass

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        async for batch in self._batches():
            for piece in batch:
                for event in self._handle(piece):
                    yield event

    def _handle(self, piece: Piece) -> Iterator[ModelResponseStreamEvent]:
        manager = self._parts_manager
        if piece.kind == "text":
            return manager.handle_text_delta(vendor_part_id=piece.part, content=piece.content)
        if piece.kind == "thinking":
            return manager.handle_thinking_delta(vendor_part_id=piece.part, content=piece.content)
        return manager.handle_tool_call_delta_events(
            vendor_part_id=piece.part,
            tool_name=piece.name or None,
            args=piece.content,
            tool_call_id=f"{self.call_prefix}_{piece.part}" if piece.name else None,
        )

    async def _batches(self) -> AsyncIterator[list[Piece]]:
        given = 0
        async for batch in self._play():
            given += len(batch)
            self.count(output_tokens=given)
            yield batch
        self.finish_reason = self.answer.finish
        if self.answer.usage is not None:
            self._usage = self.answer.usage

    async def _play(self) -> AsyncIterator[list[Piece]]:
        part = 0
        for act in _interleaved(self.acts) if self.answer.interleave else self.acts:
            match act:
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Fail(message=message):
                    raise ModelAPIError(self.name, message)
                case Part():
                    async for batch in _paced(_pieces(part, act), act.rate):
                        yield batch
                    part += 1
                case list():
                    async for batch in _paced(_in_turns(part, act), None):
                        yield batch
                    part += len(act)

    def count(self, input_tokens: int | None = None, output_tokens: int | None = None) -> None:
        """Set what is known of the usage so far."""
        if input_tokens is not None:
            self._usage.input_tokens = input_tokens
        if output_tokens is not None:
            self._usage.output_tokens = output_tokens

    async def close_stream(self) -> None:
        """Nothing is open: whoever cancels stops iterating."""

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def provider_name(self) -> str:
        return "turnwire"

    @property
    def provider_url(self) -> None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self.started_at


def _pieces(index: int, part: Part) -> Iterator[Piece]:
    """The pieces of a part; a call's first carries its name, and a call without input has one empty piece."""
    name = part.name
    for delta in part.deltas:
        yield Piece(index, part.kind, delta, name)
        name = ""
    if name:
        yield Piece(index, part.kind, "", name)


def _interleaved(acts: Sequence[Act]) -> Iterator[Act | list[Part]]:
    """The acts, each run of neighbouring calls as one list."""
    run: list[Part] = []
    for act in acts:
        if isinstance(act, Part) and act.kind == "call":
            run.append(act)
            continue
        if run:
            yield run
            run = []
        yield act
    if run:
        yield run


def _in_turns(first: int, parts: list[Part]) -> Iterator[Piece]:
    """A piece of each part in turn, until all are through."""
    streams = [_pieces(first + i, part) for i, part in enumerate(parts)]
    while streams:
        still: list[Iterator[Piece]] = []
        for stream in streams:
            piece = next(stream, None)
            if piece is not None:
                yield piece
                still.append(stream)
        streams = still


async def _paced(pieces: Iterator[Piece], rate: float | None) -> AsyncIterator[list[Piece]]:
    """The pieces in batches: all that is due by now, or `BATCH_DELTAS` at a time without a rate."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    batch: list[Piece] = []
    for given, piece in enumerate(pieces):
        if rate is not None:
            due = begun + given / rate
            if due > clock():
                if batch:
                    yield batch
                    batch = []
                await asyncio.sleep(max(0.0, due - clock()))
        elif len(batch) == BATCH_DELTAS:
            yield batch
            batch = []
            await asyncio.sleep(0)
        batch.append(piece)
    if batch:
        yield batch


def _words_in(messages: list[ModelMessage]) -> int:
    """A plausible and exact count of input tokens: the words of all messages."""
    return sum(len(text.split()) for message in messages for text in texts(message))


def texts(message: ModelMessage) -> Iterator[str]:
    if isinstance(message, ModelRequest) and message.instructions:
        yield message.instructions
    for part in message.parts:
        match part:
            case UserPromptPart():
                yield prompt_text(part)
            case TextPart() | ThinkingPart():
                yield part.content
            case ToolCallPart():
                yield part.args_as_json_str()
            case ToolReturnPart():
                yield part.model_response_str()
            case _:
                content = getattr(part, "content", None)
                if isinstance(content, str):
                    yield content


def last_prompt(messages: Sequence[ModelMessage]) -> tuple[int, UserPromptPart] | None:
    """The user's last message, and the index in `messages` where it stands."""
    for index in range(len(messages) - 1, -1, -1):
        for part in reversed(messages[index].parts):
            if isinstance(part, UserPromptPart):
                return index, part
    return None


def prompt_text(part: UserPromptPart) -> str:
    """The text of a user's message; its other parts are named in brackets."""
    if isinstance(part.content, str):
        return part.content
    return "\n".join(_content_text(item) for item in part.content)


def _content_text(item: object) -> str:
    if isinstance(item, str):
        return item
    content = getattr(item, "content", None)
    return content if isinstance(content, str) else f"[{getattr(item, 'kind', type(item).__name__)}]"


_fits_the_seam: type[PiecewiseStream] = PlayedStream
