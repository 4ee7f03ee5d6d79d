"""OpenAI Chat Completions with a streaming reader of our own: OpenAI, Ollama, vLLM, llama.cpp, gateways.

The theory: the vendor's class (`pydantic_ai.models.openai`) is right about what a stream means, and slow;
and nearly all of a stream is *plain* chunks, which continue the part before them and say nothing else
(openai_chat_wire.py). Because the vendor's class only appends such a piece to its part, appending a run of
them one by one or all at once comes to the same. So a plain chunk becomes a `Piece` and joins the run; any
other chunk first hands the run to the vendor's class, as one delta, and then itself, as it came. Nothing is
interpreted here: the parts, the usage, the finish reason and the errors are the vendor's, whatever a stream
contains.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from json import loads as json_loads
from typing import Any, Final, cast

import httpx2
import msgspec
from openai import APIError, AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta
from pydantic_ai.exceptions import ModelAPIError, ModelConnectionError, ModelTimeoutError
from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings, OpenAIStreamedResponse
from pydantic_ai.profiles import DEFAULT_THINKING_TAGS, ModelProfileSpec
from pydantic_ai.providers import Provider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.providers.vllm import VLLMProvider
from pydantic_ai.settings import ModelSettings

from turnwire.models.aiohttp_transport import BODY_EXTENSION, AiohttpTransport, ResponseBody
from turnwire.models.openai_chat_wire import (
    ErrorPayload,
    EventSplitter,
    PlainDelta,
    TooLongError,
    decode_plain,
)
from turnwire.seams.model import Piece, PieceKind, PiecewiseStream

NO_KEY = "api-key-not-set"
"""What is sent where no key is needed: the SDK insists on one."""

_PROVIDERS: dict[str, Callable[[AsyncOpenAI], Provider[AsyncOpenAI]]] = {
    "openai": lambda client: OpenAIProvider(openai_client=client),
    "ollama": lambda client: OllamaProvider(openai_client=client),
    "vllm": lambda client: VLLMProvider(openai_client=client),
}


class OpenAIChatFast(OpenAIChatModel):
    """A pydantic-ai model whose `request_stream()` gives a `PiecewiseStream`.

    `provider` is a name: `openai`, `ollama` and `vllm` choose the vendor's profile for the model; any other
    is a server of that name that speaks the format. `api_key` None: the server needs none; no environment
    is read for it. It makes no retries and sets no time limit but that of connecting. Close it by
    `aclose()`.
    """

    def __init__(
        self,
        model_name: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        provider: str = "openai",
        profile: ModelProfileSpec | None = None,
        settings: ModelSettings | None = None,
    ) -> None:
        self.transport = AiohttpTransport(secrets=[api_key] if api_key else [])
        client = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or NO_KEY,
            # trust_env off: httpx2 would send by a proxy's own transport, past ours, which knows the proxies too.
            http_client=httpx2.AsyncClient(transport=self.transport, trust_env=False, follow_redirects=True),
            max_retries=0,
        )
        # Given to the constructor, None would mean the SDK's 600 seconds.
        client.timeout = None
        make = _PROVIDERS.get(provider, lambda c: OpenAICompatibleProvider(provider, openai_client=c))
        super().__init__(model_name, provider=make(client), profile=profile, settings=settings)

    async def aclose(self) -> None:
        """Closes all connections. The model can be used again afterwards."""
        await self.transport.aclose()

    @property
    def _streamed_response_cls(self) -> type[OpenAIStreamedResponse]:
        return FastStreamedResponse

    async def _process_streamed_response(
        self,
        response: AsyncStream[ChatCompletionChunk],
        model_request_parameters: ModelRequestParameters,
        model_settings: OpenAIChatModelSettings | None = None,
    ) -> OpenAIStreamedResponse:
        source = ChunkSource(response, self.model_name, self.transport.scrub)
        await source.check_content_type()
        # To the vendor's code a source is an AsyncStream: it is iterated, and closed.
        stream = await super()._process_streamed_response(
            cast("AsyncStream[ChatCompletionChunk]", source), model_request_parameters, model_settings
        )
        cast("FastStreamedResponse", stream).source = source
        return stream


class ChunkSource:
    """What the vendor's class reads instead of the SDK's `AsyncStream`: chunks from the socket, or from the inbox.

    Iterated, it reads the socket and gives chunk after chunk. When `FastStreamedResponse.pieces()` does the
    reading, it puts what is not plain into the inbox, followed by a `MARK`, before it asks the vendor's
    class for events.
    """

    def __init__(
        self, stream: AsyncStream[ChatCompletionChunk], model_name: str, scrub: Callable[[bytes], bytes]
    ) -> None:
        self.inbox: deque[bytes | ChatCompletionChunk] = deque()
        self.last: ChatCompletionChunk | None = None
        """The chunk that was handed over last."""
        self._stream = stream
        self._body: ResponseBody = stream.response.extensions[BODY_EXTENSION]
        self._model_name = model_name
        self._scrub = scrub
        self._splitter = EventSplitter()
        self._unread: list[bytes] = []
        self._over = False
        self._has_finish_reason = False

    async def check_content_type(self) -> None:
        """A page or a JSON object with status 200 is not an answer."""
        came = self._stream.response.headers.get("content-type", "")
        if came and came.split(";")[0].strip().lower() != "text/event-stream":
            raise self._error(f"The provider answered with {came[:80]!r} instead of an event stream.")

    async def read(self) -> list[bytes]:
        """The data of the events that came with one read; empty when the stream is over."""
        if self._unread:
            unread, self._unread = self._unread, []
            return unread
        while not self._over:
            try:
                block = await self._body.read()
                payloads = self._splitter.feed(block)
            except httpx2.TimeoutException as exc:
                raise ModelTimeoutError(self._model_name, str(exc), phase="read") from exc
            except httpx2.TransportError as exc:
                raise ModelConnectionError(self._model_name, str(exc), phase="read") from exc
            except TooLongError as exc:
                raise self._error("The provider sent an event of more than 16 MiB.") from exc
            self._over = not block or self._splitter.done
            if payloads:
                return payloads
        if not self._splitter.done and not self._has_finish_reason:
            raise self._error("The provider's stream broke off before it was complete.")
        return []

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        if not self.inbox:
            self._unread = await self.read()
            if not self._unread:
                raise StopAsyncIteration
            self.inbox.append(self._unread.pop(0))
        item = self.inbox.popleft()
        if not isinstance(item, bytes):
            return item
        self.last = chunk = self._chunk(item)
        if chunk.choices and chunk.choices[0].finish_reason:
            self._has_finish_reason = True
        return chunk

    async def close(self) -> None:
        await self._stream.close()

    def _chunk(self, payload: bytes) -> ChatCompletionChunk:
        """As the SDK's `AsyncStream` decodes it."""
        try:
            data: object = json_loads(payload.decode())
        except (ValueError, RecursionError) as exc:
            raise self._error("The provider sent a data line that is not JSON.") from exc
        if not isinstance(data, dict):
            raise self._error("The provider sent a data line that is not a JSON object.")
        fields = cast("dict[str, Any]", data)
        if fields.get("error") or isinstance(payload, ErrorPayload):
            raise self._provider_error(fields)
        return ChatCompletionChunk.model_construct(**fields)

    def _provider_error(self, fields: dict[str, Any]) -> APIError:
        clean = cast("dict[str, Any]", json_loads(self._scrub(msgspec.json.encode(fields))))
        error = clean.get("error") or clean
        message = cast("dict[str, Any]", error).get("message") if isinstance(error, dict) else error
        if not message or not isinstance(message, str):
            message = "An error occurred during streaming"
        return APIError(message, self._stream.response.request, body=cast("object", error))

    def _error(self, message: str) -> ModelAPIError:
        return ModelAPIError(self._model_name, message)


def _mark_chunk() -> ChatCompletionChunk:
    return ChatCompletionChunk.model_construct(
        id="", created=0, model="", object="chat.completion.chunk", choices=[{"index": 0, "delta": {}}]
    )


MARK: Final = _mark_chunk()
"""A chunk that says nothing. The vendor's class has handled all before it when it comes to its choice …"""
MARK_EVENT: Final = PartEndEvent(index=-1, part=TextPart(""))
"""… and this event, which passes all of pydantic-ai's stages unchanged, comes out at their end."""


@dataclass
class FastStreamedResponse(OpenAIStreamedResponse):
    """The vendor's streamed response, with `pieces()` as the fast way to read it.

    Iterated as any `StreamedResponse`, it is the vendor's own, chunk by chunk.
    """

    source: ChunkSource = field(init=False)

    # The run: plain pieces that the vendor's class has not been given yet. Its key says which chunks join it:
    # the field that carries them ("content", "reasoning", "reasoning_content"), or the index of their tool call.
    _run: list[str] = field(default_factory=list[str], init=False)
    _key: str | int | None = field(default=None, init=False)
    _part: int = field(default=0, init=False)
    _kind: PieceKind = field(default="text", init=False)
    _last: tuple[object, object, object] = field(default=(None, None, None), init=False)
    """The id, model and service tier of the last chunk that was handed over: the vendor's class keeps the latest."""
    _parts_begun: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._tags: tuple[str, str] = self._model_profile.get("thinking_tags", DEFAULT_THINKING_TAGS)
        custom = self._model_profile.get("openai_chat_thinking_field", None)
        self._thinking_fields = tuple(
            dict.fromkeys(f for f in (custom, "reasoning", "reasoning_content") if f)
        )

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """See `PiecewiseStream`."""
        events = aiter(self)
        if self._must_be_read_by_event():
            async for event in events:
                if piece := _piece(event):
                    yield [piece]
            return
        payloads: list[bytes | None] = [None]  # the first chunk was read before this began
        while payloads:
            batch: list[Piece] = []
            try:
                for payload in payloads:
                    if payload is None or not self._join(payload, batch):
                        await self._hand_over(payload, events, batch)
            except Exception:
                if batch:
                    yield batch  # what came before the trouble, with the same read
                raise
            if batch:
                yield batch
            payloads = [*await self.source.read()]
        self._end_run()
        if batch := [piece async for event in events if (piece := _piece(event))]:
            yield batch
        if self._parts_begun > len(self.get().parts):
            # The vendor's class drops a call without a name, and the numbers of the parts after it would be wrong.
            raise ModelAPIError(self.model_name, "The provider sent a tool call without a name.")

    def get(self) -> ModelResponse:
        self._end_run()
        return super().get()

    def _must_be_read_by_event(self) -> bool:
        """Whether a setting asks for something of each chunk, or for a time limit on each event."""
        settings = self._model_settings or {}
        return (
            bool(settings.get("openai_include_unmapped_response_data")) or self._request_deadline is not None
        )

    def _join(self, payload: bytes, batch: list[Piece]) -> bool:
        """Adds a plain chunk to the run, and its piece to the batch. False: it is not plain, or not of the run."""
        try:
            chunk = decode_plain(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        last = self._last
        if chunk.id != last[0] or chunk.model != last[1] or chunk.service_tier != last[2]:
            return False
        if self._provider_timestamp is None and chunk.created:
            return False
        key, content = self._continued(chunk.choices[0].delta)
        if not content:
            if content is not None and key is not None and key == self._key:
                self._run.append(content)  # no piece, but it makes arguments that were null an empty text
            return key is None or key == self._key
        if key != self._key or content in self._tags or self._may_hide_a_token(content):
            return False
        self._run.append(content)
        batch.append(Piece(self._part, self._kind, content))
        return True

    def _continued(self, delta: PlainDelta) -> tuple[str | int | None, str | None]:
        """The key of what a plain delta continues, and by what. An empty key fits no run: the delta has several."""
        content, calls = delta.content, delta.tool_calls
        if delta.reasoning or delta.reasoning_content:
            if content or calls:
                return "", "several"
            name = next(f for f in self._thinking_fields if getattr(delta, f, None))
            return name, cast("str", getattr(delta, name))
        if calls:
            if content or len(calls) > 1:
                return "", "several"
            return calls[0].index, calls[0].function.arguments
        return ("content", content) if content else (None, None)

    def _may_hide_a_token(self, content: str) -> bool:
        """Whether pydantic-ai's restoring of special tokens may change a piece, or hold a part of it back.

        It undoes a zero-width character after the first character of a chat template's token, in text and
        in the strings of JSON, where it may be escaped.
        """
        if self._parts_manager.special_token_restorer is None or self._kind == "thinking":
            return False
        if self._kind == "call" and "\\" in content and ("\\u" in content or content.endswith("\\")):
            return True
        return not content.isascii() and not _ZERO_WIDTH.isdisjoint(content)

    async def _hand_over(
        self, payload: bytes | None, events: AsyncIterator[ModelResponseStreamEvent], batch: list[Piece]
    ) -> None:
        """Gives the run and then a chunk to the vendor's class, and the pieces of the chunk's events to the batch."""
        self._end_run()
        if payload is not None:
            self.source.inbox.append(payload)
        self.source.inbox.append(MARK)
        came: list[PartStartEvent | PartDeltaEvent] = []
        async for event in events:
            if event is MARK_EVENT:
                break
            if isinstance(event, PartStartEvent | PartDeltaEvent):
                came.append(event)
                if piece := _piece(event):
                    batch.append(piece)
            if isinstance(event, PartStartEvent):
                self._parts_begun = max(self._parts_begun, event.index + 1)
        self._begin_run(came)

    def _begin_run(self, events: list[PartStartEvent | PartDeltaEvent]) -> None:
        """After a chunk that began or continued just one part, plain chunks of the same key continue that part."""
        self._key = None
        chunk = self.source.last
        assert chunk is not None
        self._last = (chunk.id, chunk.model, chunk.service_tier)
        if len(events) != 1 or not chunk.choices:
            return
        event = events[0]
        restorer = self._parts_manager.special_token_restorer
        if restorer and (held := restorer.restorers.get(event.index)) and held.held:
            return
        keys = self._keys(chunk.choices[0].delta)
        if len(keys) == 1 and (kind := _kind(event)):
            self._key, self._part, self._kind = keys[0], event.index, kind

    def _keys(self, delta: ChoiceDelta) -> list[str | int]:
        keys: list[str | int] = []
        if delta.content:
            keys.append("content")
        keys += [f for f in self._thinking_fields if getattr(delta, f, None)][:1]
        keys += [call.index for call in delta.tool_calls or []]
        return keys

    def _end_run(self) -> None:
        """Gives the run to the vendor's class, as one delta."""
        if not self._run:
            return
        run, self._run = self._run, []
        joined = "".join(run)
        restorer = self._parts_manager.special_token_restorer
        # Pieces that join to a tag were none: the vendor's class only knows a tag that is a delta of its own.
        for content in run if joined in self._tags else [joined]:
            for event in self._map_part_delta(_choice(self._key, content)):
                assert isinstance(event, PartDeltaEvent) and event.index == self._part
                if restorer is not None:
                    restorer.restore(event)

    def _map_part_delta(self, choice: Choice) -> Any:
        return (MARK_EVENT,) if choice is MARK.choices[0] else super()._map_part_delta(choice)


_ZERO_WIDTH = frozenset("\u200b\u200c\u200d\u2060\ufeff")


def _choice(key: str | int | None, content: str) -> Choice:
    if isinstance(key, str):
        delta: dict[str, Any] = {key: content}
    else:
        delta = {"tool_calls": [{"index": key, "function": {"arguments": content}}]}
    return Choice.model_construct(index=0, finish_reason=None, delta=delta)


def _kind(event: PartStartEvent | PartDeltaEvent) -> PieceKind | None:
    match event.part if isinstance(event, PartStartEvent) else event.delta:
        case TextPart() | TextPartDelta():
            return "text"
        case ThinkingPart() | ThinkingPartDelta():
            return "thinking"
        case ToolCallPart() | ToolCallPartDelta():
            return "call"
        case _:
            return None


def _piece(event: object) -> Piece | None:
    """An event of pydantic-ai's as a piece; None for one that says nothing new about a part's content."""
    if isinstance(event, PartStartEvent):
        match event.part:
            case TextPart() as part:
                return Piece(event.index, "text", part.content)
            case ThinkingPart() as part:
                return Piece(event.index, "thinking", part.content)
            case ToolCallPart() as part:
                return Piece(event.index, "call", _arguments(part.args), part.tool_name)
            case _:
                return None
    if isinstance(event, PartDeltaEvent):
        match event.delta:
            case TextPartDelta() as delta if delta.content_delta:
                return Piece(event.index, "text", delta.content_delta)
            case ThinkingPartDelta() as delta if delta.content_delta:
                return Piece(event.index, "thinking", delta.content_delta)
            case ToolCallPartDelta() as delta if delta.args_delta:
                return Piece(event.index, "call", _arguments(delta.args_delta))
            case _:
                return None
    return None


def _arguments(args: object) -> str:
    return args if isinstance(args, str) else msgspec.json.encode(args).decode() if args else ""


_fits: type[PiecewiseStream] = FastStreamedResponse
