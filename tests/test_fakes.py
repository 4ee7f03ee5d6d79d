"""The fake providers are read by the vendors' own SDKs, so that we know that they speak the true formats."""

import asyncio
import json
import sys
import time
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from fakes import (
    Answer,
    Comment,
    Cut,
    ErrorEvent,
    FakeAnthropic,
    FakeOpenAIChat,
    FakeOpenAIResponses,
    Fault,
    Finish,
    Ping,
    Raw,
    Stall,
    Text,
    Thinking,
    ToolCall,
    ToolCalls,
    Usage,
)
from fakes.base import sign

pytestmark = pytest.mark.slow

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
TWO_CALLS = ToolCalls([ToolCall("add", ['{"a":', "1}"]), ToolCall("sub", ['{"b"', ":", "2}"])])
CUTS = [None, 0, 1, 7]


def chat_client(fake: FakeOpenAIChat | FakeOpenAIResponses) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=fake.base_url, api_key="sk-test", max_retries=0)


def anthropic_client(fake: FakeAnthropic) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=fake.base_url, api_key="sk-test", max_retries=0)


async def read_chat(fake: FakeOpenAIChat, messages: Any = HELLO) -> list[Any]:
    async with chat_client(fake) as client:
        stream = await client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        return [chunk async for chunk in stream]


async def read_anthropic(fake: FakeAnthropic, messages: Any = HELLO, **more: Any) -> Any:
    async with anthropic_client(fake) as client:
        async with client.messages.stream(model="m", max_tokens=99, messages=messages, **more) as stream:
            return await stream.get_final_message()


async def read_responses(fake: FakeOpenAIResponses, items: Any = HELLO) -> list[Any]:
    async with chat_client(fake) as client:
        stream = await client.responses.create(model="m", input=items, stream=True)
        return [event async for event in stream]


def calls_of(chunks: list[Any]) -> dict[int, tuple[str, str, str]]:
    """Index → id, name, arguments, put together as a client does."""
    calls: dict[int, tuple[str, str, str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                call_id, name, arguments = calls.get(call.index, ("", "", ""))
                function = call.function
                calls[call.index] = (
                    call_id + (call.id or ""),
                    name + (function.name or ""),
                    arguments + (function.arguments or ""),
                )
    return calls


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


class TestOpenAIChat:
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    @pytest.mark.parametrize("chunk_size", CUTS)
    async def test_text_finish_and_usage_are_read(self, chunk_size: int | None, newline: str) -> None:
        answer = Answer.of("Hél", Comment(), "lo", Usage(9, 2, cached=4), chunk_size=chunk_size, newline=newline)
        async with FakeOpenAIChat([answer]) as fake:
            chunks = await read_chat(fake)

        assert text_of(chunks) == "Héllo"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4
        assert fake.requests[0].body["messages"] == HELLO
        assert fake.requests[0].headers["authorization"] == "Bearer sk-test"

    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    async def test_thinking_comes_in_the_field_that_was_asked_for(self, field: str) -> None:
        answer = Answer.of(Thinking("Hm"), Thinking("m."), "Yes.", options={"reasoning": field})
        async with FakeOpenAIChat([answer]) as fake:
            chunks = await read_chat(fake)

        thought = "".join(getattr(c.choices[0].delta, field, "") for c in chunks if c.choices)
        assert (thought, text_of(chunks)) == ("Hmm.", "Yes.")

    async def test_thinking_can_come_in_tags(self) -> None:
        answer = Answer.of(Thinking("Hm"), Thinking("m."), "Yes.", options={"reasoning": None})
        async with FakeOpenAIChat([answer]) as fake:
            assert text_of(await read_chat(fake)) == "<think>Hmm.</think>Yes."

    @pytest.mark.parametrize("interleaved", [False, True])
    async def test_parallel_calls_are_put_together(self, interleaved: bool) -> None:
        calls = ToolCalls(TWO_CALLS.calls, interleaved=interleaved)
        async with FakeOpenAIChat([Answer.of(calls)]) as fake:
            chunks = await read_chat(fake)

        assert {i: c[1:] for i, c in calls_of(chunks).items()} == {
            0: ("add", '{"a":1}'),
            1: ("sub", '{"b":2}'),
        }
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        indexes = [c.choices[0].delta.tool_calls[0].index for c in chunks if c.choices[0].delta.tool_calls]
        assert (indexes == sorted(indexes)) is not interleaved

    async def test_models_are_listed(self) -> None:
        async with FakeOpenAIChat() as fake, chat_client(fake) as client:
            assert [m.id async for m in client.models.list()] == ["fake-model"]

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, openai.AuthenticationError),
            (404, openai.NotFoundError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
            (529, openai.InternalServerError),
        ],
    )
    async def test_a_status_is_the_sdks_own_error(self, status: int, error: type[Exception]) -> None:
        async with FakeOpenAIChat([Fault(status, headers={"Retry-After": "7"})]) as fake:
            with pytest.raises(error) as raised:
                await read_chat(fake)

        assert isinstance(raised.value, openai.APIStatusError)
        assert raised.value.response.headers["retry-after"] == "7"

    async def test_an_error_event_is_the_sdks_own_error(self) -> None:
        async with FakeOpenAIChat([Answer.of("a", ErrorEvent("It broke."))]) as fake:
            with pytest.raises(openai.APIError, match="It broke"):
                await read_chat(fake)

    @pytest.mark.parametrize("in_chunk", [False, True])
    async def test_a_cut_breaks_the_connection(self, in_chunk: bool) -> None:
        async with FakeOpenAIChat([Answer.of("a", Cut(in_chunk))]) as fake:
            with pytest.raises(openai.APIConnectionError):
                await read_chat(fake)

    @pytest.mark.parametrize("answer", [Answer.of("a", Raw(b"data: {not json\n\n")), Answer.of(Raw(b"data: \n\n"))])
    async def test_garbage_can_be_sent(self, answer: Answer) -> None:
        async with FakeOpenAIChat([answer]) as fake:
            with pytest.raises(json.JSONDecodeError):
                await read_chat(fake)

    async def test_a_page_can_be_sent(self) -> None:
        async with FakeOpenAIChat([Fault.html()]) as fake:
            assert await read_chat(fake) == []

    async def test_a_stall_takes_its_time(self) -> None:
        began = time.monotonic()
        async with FakeOpenAIChat([Answer.of("a", Stall(0.2), "b")]) as fake:
            assert text_of(await read_chat(fake)) == "ab"

        assert time.monotonic() - began >= 0.2

    async def test_a_client_that_leaves_is_noticed_at_once(self) -> None:
        async with FakeOpenAIChat([Answer.of("a", Stall(60))]) as fake, chat_client(fake) as client:
            stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[arg-type]
            await anext(aiter(stream))
            await stream.close()
            await asyncio.wait_for(fake.requests[0].ended.wait(), 2)

        assert fake.requests[0].client_left

    async def test_answers_follow_each_other_on_one_connection_until_the_script_is_used_up(self) -> None:
        async with FakeOpenAIChat([Answer.of("1"), Answer.of("2")]) as fake, chat_client(fake) as client:
            texts: list[str] = []
            for _ in range(2):
                stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[arg-type]
                texts.append(text_of([chunk async for chunk in stream]))
            with pytest.raises(openai.BadRequestError, match="used up"):
                await client.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[arg-type]

        assert texts == ["1", "2"]
        assert fake.connections_made == 1

    @pytest.mark.parametrize(
        ("messages", "message"),
        [
            ([*HELLO, {"role": "tool", "tool_call_id": "c1", "content": "x"}], "must be a response to"),
            (
                [
                    *HELLO,
                    {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function"}]},
                    {"role": "tool", "tool_call_id": "c2", "content": "x"},
                ],
                "must be a response to",
            ),
            ([*HELLO, {"role": "assistant", "tool_calls": [{"id": "c1"}, {"id": "c2"}]}], "c1, c2"),
            ([*HELLO, {"role": "assistant", "tool_calls": [{"id": "c1"}]}, *HELLO], "did not have response"),
        ],
    )
    async def test_calls_and_results_that_do_not_belong_together_are_refused(self, messages: Any, message: str) -> None:
        async with FakeOpenAIChat([Answer.of("a")]) as fake:
            with pytest.raises(openai.BadRequestError, match=message):
                await read_chat(fake, messages)

    async def test_answered_calls_are_taken(self) -> None:
        messages = [
            *HELLO,
            {"role": "assistant", "tool_calls": [{"id": "c1"}, {"id": "c2"}]},
            {"role": "tool", "tool_call_id": "c2", "content": "x"},
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
            *HELLO,
        ]
        async with FakeOpenAIChat([Answer.of("a")]) as fake:
            assert text_of(await read_chat(fake, messages)) == "a"


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": sign("Hm.")}
CALL = {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "3"}
THINKING_ON = {"type": "enabled", "budget_tokens": 1024}


def turn(*assistant: dict[str, Any], result: Any = (RESULT,)) -> list[Any]:
    return [
        *HELLO,
        {"role": "assistant", "content": list(assistant)},
        {"role": "user", "content": list(result)},
    ]


class TestAnthropic:
    @pytest.mark.parametrize("chunk_size", CUTS)
    async def test_thinking_text_calls_and_usage_are_read(self, chunk_size: int | None) -> None:
        answer = Answer.of(
            Ping(),
            Thinking("H"),
            Thinking("m."),
            "Yes",
            Comment(),
            "!",
            TWO_CALLS,
            Usage(20, 7, cached=8, cache_write=2),
            chunk_size=chunk_size,
        )
        async with FakeAnthropic([answer]) as fake:
            message = await read_anthropic(fake)

        thinking, text, first, second = message.content
        assert (thinking.thinking, thinking.signature) == ("Hm.", sign("Hm."))
        assert text.text == "Yes!"
        assert (first.name, first.input, second.name, second.input) == ("add", {"a": 1}, "sub", {"b": 2})
        assert message.stop_reason == "tool_use"
        usage = message.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
            10,
            8,
            2,
        )
        assert usage.output_tokens == 7

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, anthropic.AuthenticationError),
            (404, anthropic.NotFoundError),
            (429, anthropic.RateLimitError),
            (500, anthropic.InternalServerError),
            (529, anthropic.APIStatusError),
        ],
    )
    async def test_a_status_is_the_sdks_own_error(self, status: int, error: type[Exception]) -> None:
        async with FakeAnthropic([Fault(status)]) as fake:
            with pytest.raises(error):
                await read_anthropic(fake)

    async def test_an_error_event_is_the_sdks_own_error(self) -> None:
        async with FakeAnthropic([Answer.of("a", ErrorEvent())]) as fake:
            with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
                await read_anthropic(fake)

    async def test_a_cut_breaks_the_connection(self) -> None:
        async with FakeAnthropic([Answer.of("a", Cut(in_chunk=True))]) as fake:
            with pytest.raises((anthropic.APIConnectionError, httpx2.TransportError)):
                await read_anthropic(fake)

    @pytest.mark.parametrize(
        ("messages", "thinking", "message"),
        [
            ([{"role": "user", "content": [{"type": "text", "text": ""}]}], False, "must be non-empty"),
            (
                turn(CALL, result=[{"type": "text", "text": "x"}]),
                False,
                "t1. Each `tool_use` block must have",
            ),
            (turn({"type": "text", "text": "x"}), False, "unexpected `tool_use_id`"),
            (turn(CALL), True, "Expected `thinking` or `redacted_thinking`, but found `tool_use`"),
            (turn({"type": "thinking", "thinking": "Hm."}, CALL), True, "signature: Field required"),
            (turn({**THOUGHT, "signature": "x"}, CALL), True, "Invalid `signature`"),
            (turn({**THOUGHT, "thinking": "Other."}, CALL), True, "Invalid `signature`"),
        ],
    )
    async def test_what_the_real_one_refuses_is_refused(self, messages: Any, thinking: bool, message: str) -> None:
        more = {"thinking": THINKING_ON} if thinking else {}
        async with FakeAnthropic([Answer.of("a")]) as fake:
            with pytest.raises(anthropic.BadRequestError, match=message):
                await read_anthropic(fake, messages, **more)

    @pytest.mark.parametrize(
        ("messages", "thinking"),
        [(turn(THOUGHT, CALL), True), (turn(CALL), False), ([*HELLO, *HELLO], True)],
    )
    async def test_what_the_real_one_takes_is_taken(self, messages: Any, thinking: bool) -> None:
        more = {"thinking": THINKING_ON} if thinking else {}
        async with FakeAnthropic([Answer.of("a")]) as fake:
            assert (await read_anthropic(fake, messages, **more)).content[0].text == "a"


class TestOpenAIResponses:
    @pytest.mark.parametrize("chunk_size", CUTS)
    async def test_thinking_text_calls_and_usage_are_read(self, chunk_size: int | None) -> None:
        answer = Answer.of(Thinking("Hm."), "Ye", "s", TWO_CALLS, Usage(9, 2, cached=4), chunk_size=chunk_size)
        async with FakeOpenAIResponses([answer]) as fake:
            events = await read_responses(fake)

        assert [e.sequence_number for e in events] == list(range(len(events)))
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Yes"
        response = events[-1].response
        assert response.output_text == "Yes"
        assert response.output[0].summary[0].text == "Hm."
        assert [(c.name, c.arguments) for c in response.output[2:]] == [
            ("add", '{"a":1}'),
            ("sub", '{"b":2}'),
        ]
        assert response.usage.input_tokens_details.cached_tokens == 4

    async def test_an_answer_can_be_cut_short_by_its_limit(self) -> None:
        async with FakeOpenAIResponses([Answer.of("a", Finish("max_output_tokens"))]) as fake:
            events = await read_responses(fake)

        assert events[-1].response.incomplete_details.reason == "max_output_tokens"

    async def test_a_status_is_the_sdks_own_error(self) -> None:
        async with FakeOpenAIResponses([Fault(429)]) as fake:
            with pytest.raises(openai.RateLimitError):
                await read_responses(fake)

    async def test_an_error_event_is_seen(self) -> None:
        async with FakeOpenAIResponses([Answer.of("a", ErrorEvent("It broke."), ending=False)]) as fake:
            events = await read_responses(fake)

        assert (events[-1].type, events[-1].message) == ("error", "It broke.")

    async def test_an_unanswered_call_is_refused(self) -> None:
        items = [*HELLO, {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}]
        async with FakeOpenAIResponses([Answer.of("a")]) as fake:
            with pytest.raises(openai.BadRequestError, match="No tool output found for function call c1"):
                await read_responses(fake, items)


async def test_a_fake_answers_another_process() -> None:
    program = "import sys, httpx2; print(httpx2.post(sys.argv[1], json={'model': 'm', 'stream': True}).text)"
    async with FakeOpenAIChat(lambda request: Answer.of(Text(request.body["model"]))) as fake:
        url = fake.base_url + "/chat/completions"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)

    assert b'"content":"m"' in out and b"data: [DONE]" in out


def adding_agent(model: Any) -> Agent:
    agent = Agent(model)

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        return a + b

    return agent


ADDING = [
    Answer.of(Thinking("I must add."), ToolCall("add", ['{"a":1,', '"b":2}']), ToolCall("add", ['{"a":3,"b":4}'])),
    Answer.of("3 and 7."),
]


async def run(agent: Agent, **settings: Any) -> str:
    async with agent.run_stream("Add.", model_settings=settings) as result:  # type: ignore[arg-type]
        return await result.get_output()


async def test_an_agent_with_thinking_gets_its_signed_thoughts_past_anthropics_fake() -> None:
    async with FakeAnthropic(ADDING) as fake, anthropic_client(fake) as client:
        model = AnthropicModel("claude-haiku-4-5", provider=AnthropicProvider(anthropic_client=client))
        output = await run(adding_agent(model), anthropic_thinking=THINKING_ON, max_tokens=2048)

    assert output == "3 and 7."
    assistant = fake.requests[1].body["messages"][1]["content"]
    assert assistant[0] == {"type": "thinking", "thinking": "I must add.", "signature": sign("I must add.")}


async def test_an_agent_gets_its_results_past_the_responses_fake() -> None:
    async with FakeOpenAIResponses(ADDING) as fake, chat_client(fake) as client:
        model = OpenAIResponsesModel("gpt-5", provider=OpenAIProvider(openai_client=client))
        output = await run(adding_agent(model))

    assert output == "3 and 7."
    outputs = [i["output"] for i in fake.requests[1].body["input"] if i.get("type") == "function_call_output"]
    assert outputs == ["3", "7"]
