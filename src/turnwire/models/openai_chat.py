"""OpenAI Chat Completions with a streaming reader of our own: OpenAI, Ollama, vLLM, llama.cpp, gateways.

The theory: the vendor's class (`pydantic_ai.models.openai`) is right about what a stream means, and slow;
and nearly all of a stream is *plain* chunks, which continue the part before them and say nothing else
(openai_chat_wire.py). Because the vendor's class only appends such a piece to its part, appending a run of
them one by one or all at once comes to the same. So a plain chunk becomes a `Piece` and joins the run; any
other chunk first hands the run to the vendor's class, as one delta, and then itself, as it came. Nothing is
interpreted here: the parts, the usage, the finish reason and the errors are the vendor's, whatever a stream
contains.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx2
import msgspec
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
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
from pydantic_ai.tools import ToolDefinition

from turnwire.models.aiohttp_transport import AiohttpTransport
from turnwire.models.openai_chat_source import MARK, MARK_EVENT, ChunkSource
from turnwire.models.openai_chat_wire import PlainDelta, decode_plain
from turnwire.models.tool_schemas import ToolSchemas
from turnwire.seams.model import Piece, PieceKind, PiecewiseStream

NO_KEY = "api-key-not-set"
"""What is sent where no key is needed: the SDK insists on one."""

ProviderFactory = Callable[[AsyncOpenAI], Provider[AsyncOpenAI]]

_PROVIDERS: dict[str, ProviderFactory] = {
    "openai": lambda client: OpenAIProvider(openai_client=client),
    "ollama": lambda client: OllamaProvider(openai_client=client),
    "vllm": lambda client: VLLMProvider(openai_client=client),
}


def _provider(named: str | ProviderFactory, client: AsyncOpenAI) -> Provider[AsyncOpenAI]:
    if not isinstance(named, str):
        return named(client)
    make = _PROVIDERS.get(named)
    return make(client) if make else OpenAICompatibleProvider(named, openai_client=client)


class OpenAIChatFast(OpenAIChatModel):
    """A pydantic-ai model whose `request_stream()` gives a `PiecewiseStream`.

    `provider` is a name: `openai`, `ollama` and `vllm` choose the vendor's profile for the model; any other
    is a server of that name that speaks the format. It may also be a function from the SDK's client to a
    pydantic-ai provider (`lambda client: DeepSeekProvider(openai_client=client)`). `api_key` None: the server
    needs none; no environment is read for it. It makes no retries, and its only time limit is that of
    connecting, and one that the settings ask for. Close it by `aclose()`.
    """

    def __init__(
        self,
        model_name: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        provider: str | ProviderFactory = "openai",
        profile: ModelProfileSpec | None = None,
        settings: ModelSettings | None = None,
    ) -> None:
        self.transport = AiohttpTransport(secrets=[api_key] if api_key else [])
        client = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or NO_KEY,
            # trust_env off: httpx2 would send to a proxy past our transport, which knows the proxies too.
            http_client=httpx2.AsyncClient(transport=self.transport, trust_env=False, follow_redirects=True),
            max_retries=0,
            timeout=None,
        )
        super().__init__(model_name, provider=_provider(provider, client), profile=profile, settings=settings)
        self._schemas = ToolSchemas()

    async def aclose(self) -> None:
        """Closes all connections. The model can be used again afterwards."""
        await self.transport.aclose()

    def customize_request_parameters(self, model_request_parameters: ModelRequestParameters) -> ModelRequestParameters:
        """As the vendor's class does it, but a tool's schema is rewritten for this model once, not for each request."""
        result = super().customize_request_parameters(replace(model_request_parameters, function_tools=[]))

        def rewrite(tools: list[ToolDefinition]) -> list[ToolDefinition]:
            parameters = ModelRequestParameters(function_tools=tools)
            return super(OpenAIChatFast, self).customize_request_parameters(parameters).function_tools

        tools = self._schemas.rewrite(model_request_parameters.function_tools, rewrite)
        return replace(result, function_tools=tools)

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


@dataclass
class FastStreamedResponse(OpenAIStreamedResponse):
    """The vendor's streamed response, with `pieces()` as the fast way to read it.

    Iterated as any `StreamedResponse`, it is the vendor's own, chunk by chunk.
    """

    source: ChunkSource = field(init=False)

    # The run: plain pieces that the vendor's class has not been given yet. Its key says which chunks join it:
    # the field that carries them ("content", "reasoning", "reasoning_content"), or the index of their call.
    _run: list[str] = field(default_factory=list[str], init=False)
    _key: str | int | None = field(default=None, init=False)
    _part: int = field(default=0, init=False)
    _kind: PieceKind = field(default="text", init=False)
    _last: tuple[object, object, object] = field(default=(None, None, None), init=False)
    """Id, model and service tier of the last chunk handed over: the vendor's class keeps the latest."""
    _parts_begun: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._tags: tuple[str, str] = self._model_profile.get("thinking_tags", DEFAULT_THINKING_TAGS)
        custom = self._model_profile.get("openai_chat_thinking_field", None)
        self._thinking_fields = tuple(dict.fromkeys(f for f in (custom, "reasoning", "reasoning_content") if f))

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
            # The vendor's class drops such a call, and the numbers of the parts after it would be wrong.
            raise ModelAPIError(self.model_name, "The provider sent a tool call without a name.")

    def get(self) -> ModelResponse:
        self._end_run()
        return super().get()

    def _must_be_read_by_event(self) -> bool:
        """Whether a setting asks for something of each chunk, or for a time limit on each event."""
        settings = self._model_settings or {}
        return bool(settings.get("openai_include_unmapped_response_data")) or self._request_deadline is not None

    def _join(self, payload: bytes, batch: list[Piece]) -> bool:
        """Adds a plain chunk to the run and its piece to the batch; False if it doesn't belong there."""
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
        """The key of what a plain delta continues, and by what. An empty key fits no run: it has several."""
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
        """Gives the run and then a chunk to the vendor's class, and its events' pieces to the batch."""
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
        """After a chunk that began or continued one part, plain chunks of the same key continue that part."""
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
