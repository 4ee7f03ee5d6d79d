"""Our reader of Chat Completions gives what the vendor's gives on the same bytes, and fails in one clear way."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelServerError,
)
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers import Provider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.providers.vllm import VLLMProvider

from tests.fakes import (
    Answer,
    Comment,
    Cut,
    ErrorEvent,
    FakeOpenAIChat,
    Fault,
    Finish,
    Raw,
    Stall,
    Text,
    Thinking,
    ToolCall,
    ToolCalls,
    Usage,
)
from tests.fakes.base import Script
from turnwire.models.openai_chat import OpenAIChatFast
from turnwire.seams.model import Piece, PiecewiseStream

HELLO: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart("hello")])]
KEY = "sk-secret-0123456789"
PARAMETERS = ModelRequestParameters()


# --- Reading by both paths ------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a path gave: per part its kind, name and joined content; the response; or the error."""

    parts: dict[int, tuple[str, str, str]]
    response: ModelResponse | None = None
    error: Exception | None = None

    def comparable(self) -> Any:
        error = self.error and (type(self.error), str(self.error))
        return self.parts, self.response and without_chance(self.response), error


def without_chance(response: ModelResponse) -> ModelResponse:
    """The response without the clock, and without the ids that pydantic-ai draws for calls that came without."""
    parts = [
        replace(p, tool_call_id=re.sub(r"^pyd_ai_.*", "drawn", p.tool_call_id)) if isinstance(p, ToolCallPart) else p
        for p in response.parts
    ]
    return replace(response, parts=parts, timestamp=None)  # type: ignore[arg-type]


def add(parts: dict[int, tuple[str, str, str]], piece: Piece) -> None:
    kind, name, content = parts.get(piece.part, (piece.kind, piece.name, ""))
    assert kind == piece.kind
    parts[piece.part] = (kind, name, content + piece.content)


def piece_of(event: PartStartEvent | PartDeltaEvent) -> Piece:
    """An event of the vendor's as a piece, written independently of the code under test."""
    if isinstance(event, PartStartEvent):
        part: Any = event.part
        kind = {"text": "text", "thinking": "thinking", "tool-call": "call"}[part.part_kind]
        if kind == "call":
            return Piece(event.index, "call", part.args or "", part.tool_name)
        return Piece(event.index, kind, part.content)  # type: ignore[arg-type]
    delta: Any = event.delta
    if delta.part_delta_kind == "tool_call":
        return Piece(event.index, "call", delta.args_delta or "")
    return Piece(event.index, delta.part_delta_kind, delta.content_delta or "")


async def by_pieces(model: OpenAIChatFast, setting: OpenAIChatModelSettings | None = None) -> Outcome:
    outcome = Outcome({})
    try:
        async with model.request_stream(HELLO, setting, PARAMETERS) as stream:
            assert isinstance(stream, PiecewiseStream)
            async for batch in stream.pieces():
                assert batch, "an empty batch"
                for piece in batch:
                    add(outcome.parts, piece)
            outcome.response = stream.get()
    except Exception as exc:
        outcome.error = exc
    return outcome


async def by_events(model: OpenAIChatModel, setting: OpenAIChatModelSettings | None = None) -> Outcome:
    outcome = Outcome({})
    try:
        async with model.request_stream(HELLO, setting, PARAMETERS) as stream:
            async for event in stream:
                if isinstance(event, PartStartEvent | PartDeltaEvent):
                    add(outcome.parts, piece_of(event))
            outcome.response = stream.get()
    except Exception as exc:
        outcome.error = exc
    return outcome


def vendor_model(base_url: str, name: str = "m", provider: str = "fake") -> OpenAIChatModel:
    """pydantic-ai's own, with its own connection."""
    made: Provider[Any] = {
        "openai": lambda: OpenAIProvider(base_url, KEY),
        "ollama": lambda: OllamaProvider(base_url, KEY),
        "vllm": lambda: VLLMProvider(base_url=base_url, api_key=KEY),
        "fake": lambda: OpenAICompatibleProvider("fake", base_url=base_url, api_key=KEY),
    }[provider]()
    return OpenAIChatModel(name, provider=made)


def fast_model(base_url: str, name: str = "m", provider: str = "fake") -> OpenAIChatFast:
    return OpenAIChatFast(name, base_url=base_url, api_key=KEY, provider=provider)


@asynccontextmanager
async def serving(script: Script, **more: str) -> AsyncIterator[tuple[FakeOpenAIChat, OpenAIChatFast]]:
    async with FakeOpenAIChat(script) as fake:
        model = fast_model(fake.base_url, **more)
        try:
            yield fake, model
        finally:
            await model.aclose()


async def read(*answers: Answer | Fault, **more: str) -> Outcome:
    async with serving(answers, **more) as (_, model):
        return await by_pieces(model)


async def failed(*answers: Answer | Fault) -> ModelAPIError:
    """The error of a request that must fail, without the key in it."""
    outcome = await read(*answers)
    assert isinstance(outcome.error, ModelAPIError), outcome
    assert KEY not in f"{outcome.error!r} {outcome.error} {outcome.error.body}"
    return outcome.error


# --- Both paths give the same -----------------------------------------------------------------------------------------

TEXTS = [
    *("a", "Hello", " ", "\n", "", "é", "\u2028", "👩\u200d💻", "日本", '"', "\\", "\\u", "\\u200d", "\\n"),
    *("<think>", "</think>", "<th", "ink>", "</thi", "nk>", "<", "[", "\u200d", "\u200d|im_", "|im_start|>"),
    *("<\u200d|im_start|>", "start|>", "<|im_end|>", "\ufeffINST]"),
]
texts = st.sampled_from(TEXTS)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


functions = optional(arguments=st.none() | texts, name=st.none() | st.just(""))
call_starts = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "function": st.fixed_dictionaries({"name": st.just("f")}, optional={"arguments": texts})},
    optional={"id": st.sampled_from(["c1", "c2"]), "type": st.just("function")},
)
call_pieces = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "function": functions}, optional={"id": st.none(), "extra_content": st.just({"g": 1})}
)
plain_deltas = st.one_of(
    st.fixed_dictionaries({"content": texts}),
    st.fixed_dictionaries({"reasoning_content": texts}),
    st.fixed_dictionaries({"reasoning": texts}),
    st.fixed_dictionaries({"tool_calls": st.lists(call_pieces, min_size=1, max_size=1)}),
)
odd_deltas = optional(
    role=st.just("assistant"),
    content=st.none() | texts | st.just([{"type": "text", "text": "listed"}]),
    reasoning_content=st.none() | texts,
    reasoning=st.none() | texts,
    tool_calls=st.none() | st.lists(call_starts | call_pieces, max_size=2),
    refusal=st.none() | st.just("I won't."),
    annotations=st.just([{"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}]),
    reasoning_details=st.just([{"type": "reasoning.text"}]),
    audio=st.none(),
)
tops = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["i1", "i2"]),
        "model": st.sampled_from(["m1", "m2", ""]),
        "created": st.sampled_from([0, 1_790_000_000]),
        "service_tier": st.sampled_from([None, "default"]),
        "usage": st.none() | st.just({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
        "obfuscation": st.just("x"),
        "x_gateway": st.just(1),
    },
)
FINISHES = st.sampled_from([None, "", "stop", "length", "tool_calls", "odd"])


@st.composite
def chunk_runs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Runs of chunks with one kind of delta, as models send, with odd ones between them."""
    chunks: list[dict[str, Any]] = []
    steady = draw(tops)
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            choice = {"index": 0, "delta": draw(odd_deltas), "finish_reason": draw(FINISHES)}
            chunks.append({**draw(tops), "choices": draw(st.sampled_from([[], [choice], [choice, choice]]))})
            continue
        shape = draw(plain_deltas)
        name = next(iter(shape))
        for text in draw(st.lists(texts, max_size=6)):
            delta = {**shape, name: text}
            if name == "tool_calls":
                call = {**shape["tool_calls"][0], "function": {"arguments": text}}
                if draw(st.integers(0, 4)) == 0:
                    call = {**call, "function": {"name": "g", "arguments": text}}
                delta = {"tool_calls": [call]}
            choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
            chunks.append({**steady, "choices": [choice]})
    return chunks


answers = st.builds(
    lambda chunks, **more: Answer(
        [Raw(b"data: " + json.dumps(c).encode() + b"\n\n") for c in chunks] + [Raw(b"data: [DONE]\n\n")],
        ending=False,
        options={"id": "i0"},
        **more,
    ),
    chunk_runs(),
    chunk_size=st.sampled_from([None, 0, 1, 17, 300]),
    newline=st.sampled_from(["\n", "\r\n"]),
)


class Both:
    """A fake and a model of each kind, on one event loop, for many examples."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.fake = FakeOpenAIChat(lambda _: self.answer)
        self.answer = Answer()
        self.runner.run(self.fake.__aenter__())
        kinds = [("openai", "gpt-4o"), ("ollama", "qwen3"), ("vllm", "deepseek-r1"), ("fake", "qwen/qwq")]
        self.pairs = [
            (fast_model(self.fake.base_url, name, kind), vendor_model(self.fake.base_url, name, kind))
            for kind, name in kinds
        ]

    def compare(self, answer: Answer, pair: int) -> None:
        self.answer = answer
        fast, vendor = self.pairs[pair]
        ours = self.runner.run(by_pieces(fast))
        events = self.runner.run(by_events(fast))
        theirs = self.runner.run(by_events(vendor))
        if isinstance(ours.error, ModelAPIError) and "without a name" in str(ours.error):
            return  # the vendor's class drops the call
        assert ours.comparable() == theirs.comparable()
        assert events.comparable() == theirs.comparable()
        if ours.response is not None:
            assert len(ours.parts) == len(ours.response.parts)

    def close(self) -> None:
        for fast, vendor in self.pairs:
            self.runner.run(fast.aclose())
            self.runner.run(vendor.client.close())
        self.runner.run(self.fake.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    pair = Both()
    yield pair
    pair.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answer=answers, pair=st.integers(0, 3))
def test_both_paths_give_the_same_on_the_same_bytes(both: Both, answer: Answer, pair: int) -> None:
    both.compare(answer, pair)
