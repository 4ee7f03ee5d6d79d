"""A call has one result, whatever its tool does."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic_ai import ModelRetry, ToolFailed
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.toolsets import FunctionToolset

from turnwire.engine.agent import tool_run_context
from turnwire.engine.calls import CallRunner, Result, Tools, in_turn, is_repeatable
from turnwire.engine.context import Call
from turnwire.engine.limits import PARALLEL_CALLS_MAX, TOOL_RESULT_CHARS_MAX
from turnwire.seams.tool import REPEATABLE, TIME_LIMIT_S, ToolContext
from turnwire.testing.virtual_time import run

CONTEXT: Any = tool_run_context(ToolContext("acme", "sess_1", None), None)  # type: ignore[arg-type]
running: Counter[str] = Counter()


class Answer(Exception):
    """A class name that must not reach the model."""


def toolset() -> FunctionToolset[ToolContext]:
    tools: FunctionToolset[ToolContext] = FunctionToolset(max_retries=0)

    @tools.tool_plain(metadata={REPEATABLE: True})
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @tools.tool_plain
    async def say(what: str, times: int = 1) -> Any:
        match what:
            case "text":
                return "x" * times
            case "object":
                return {"a": [1, "ü"]}
            case "nothing":
                return None
            case "surrogate":
                return "a\ud83d"
            case "retry":
                raise ModelRetry("Try it otherwise.")
            case "failed":
                raise ToolFailed("There is no such file.")
            case "raise":
                raise Answer("secret" if times == 1 else "")
            case "timeout":
                raise TimeoutError
            case _:
                raise AssertionError

    @tools.tool_plain(metadata={TIME_LIMIT_S: 5})
    async def sleep(seconds: float) -> str:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        await asyncio.sleep(seconds)
        running["now"] -= 1
        return "awake"

    @tools.tool_plain(sequential=True)
    async def alone() -> str:
        return "alone"

    return tools


async def tools_of(tools: FunctionToolset[ToolContext]) -> Tools:
    return await tools.get_tools(CONTEXT)


def call(name: str, value: dict[str, Any] | None) -> Call:
    return Call("call_1", ToolCallPart(name, "{}", "p1"), value)


async def result_of(name: str, value: dict[str, Any] | None) -> Result:
    tools = toolset()
    runner = CallRunner(tools, await tools_of(tools), CONTEXT)
    made = call(name, value)
    return runner.refusal(made) or await runner.run(made)


@pytest.mark.parametrize(
    ("name", "value", "content", "is_error"),
    [
        ("add", {"a": 2}, "3", False),
        ("add", {"a": "2", "b": 3}, "5", False),
        ("say", {"what": "object"}, '{"a":[1,"ü"]}', False),
        ("say", {"what": "nothing"}, "null", False),
        ("say", {"what": "text", "times": 0}, "", False),
        ("say", {"what": "surrogate"}, "a\ufffd", False),
        ("say", {"what": "retry"}, "Try it otherwise.", True),
        ("say", {"what": "failed"}, "There is no such file.", True),
        ("say", {"what": "raise"}, "The tool failed: secret", True),
        ("say", {"what": "raise", "times": 2}, "The tool failed.", True),
        ("say", {"what": "timeout"}, "The tool failed: it ran into a time limit of its own.", True),
        ("sleep", {"seconds": 4}, "awake", False),
        ("sleep", {"seconds": 6}, "The tool was stopped: it took longer than 5 seconds.", True),
        ("nope", {}, "There is no tool 'nope'. The tools are: add, alone, say, sleep.", True),
    ],
)
def test_results(name: str, value: dict[str, Any], content: str, is_error: bool) -> None:
    result = run(result_of(name, value))

    assert (result.content, result.is_error) == (content, is_error)


def test_an_input_that_does_not_fit_is_answered_with_where_and_why() -> None:
    result = run(result_of("add", {"a": "many", "c": 1}))

    assert result.is_error
    assert "a: " in result.content and "integer" in result.content


def test_an_input_that_is_no_object_is_not_run() -> None:
    result = run(result_of("add", None))

    assert result.is_error and "is no JSON object" in result.content


def test_a_long_result_is_cut_in_its_middle_and_says_so() -> None:
    result = run(result_of("say", {"what": "text", "times": TOOL_RESULT_CHARS_MAX + 7}))

    assert "… 7 characters left out …" in result.content
    assert len(result.content) < TOOL_RESULT_CHARS_MAX + 60


def test_only_so_many_calls_run_at_once_and_waiting_for_a_place_is_no_time_of_the_tool() -> None:
    async def story() -> list[Result]:
        running.clear()
        tools = toolset()
        runner = CallRunner(tools, await tools_of(tools), CONTEXT)
        return await asyncio.gather(*[runner.run(call("sleep", {"seconds": 4})) for _ in range(PARALLEL_CALLS_MAX + 5)])

    results = run(story())
    assert running["most"] == PARALLEL_CALLS_MAX
    assert [result.content for result in results] == ["awake"] * len(results)


def test_what_tools_say_of_themselves() -> None:
    async def story() -> None:
        tools = await tools_of(toolset())
        assert is_repeatable("add", tools)
        assert not is_repeatable("say", tools) and not is_repeatable("nope", tools)
        assert in_turn([call("say", {}), call("alone", {})], tools)
        assert not in_turn([call("say", {}), call("nope", {})], tools)

    run(story())
