"""MCP servers' tools in a turn: a published server, in the sandbox and without, beside ones that are down."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic_ai.messages import ToolCallPart

from engine.world import World, a_world
from fakes import Answer, FakeOpenAIChat, ToolCall
from fakes.mcp_tools import TIME, mcp, program
from turnwire.engine.calls import CallRunner
from turnwire.engine.context import Call
from turnwire.sandboxes.host import NoSandbox
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer

OPEN = msgspec.structs.replace(TIME, sandbox=False, paths=())
CONVERT = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
DOWN = McpServer(name="down", command="/nonexistent/program", sandbox=False)
UNREACHABLE = McpServer(name="away", url="http://127.0.0.1:9/mcp")


async def result_of(
    tmp_path: Path, servers: Sequence[McpServer], call: ToolCall, **more: Any
) -> tuple[dict[str, Any], list[str]]:
    """The result of the call in a turn, and the names of the tools that the model was offered."""
    async with (
        mcp(tmp_path, *servers, **more) as made,
        FakeOpenAIChat([Answer.of(call), Answer.of("Done")]) as fake,
    ):
        env = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}
        async with a_world(tmp_path, "openai-chat:m", env, toolsets=[made.tools]) as world:
            turn = await World.turn(world, await world.session(), "go")
            assert turn.status == "completed"
            [result] = [b for b in json.loads(turn.content or b"") if b["type"] == "tool_result"]
            return result, [tool["function"]["name"] for tool in fake.requests[0].body["tools"]]


@pytest.mark.slow
@pytest.mark.parametrize("server", [pytest.param(TIME, marks=pytest.mark.tool("bwrap"), id="sandboxed"), OPEN])
async def test_a_published_server_s_tools_stand_beside_our_own(tmp_path: Path, server: McpServer) -> None:
    call = ToolCall("convert_time", (json.dumps(CONVERT),))
    result, offered = await result_of(tmp_path, [server], call)

    assert not result["is_error"] and "21:00" in result["content"]
    assert "read_file" in offered and "get_current_time" in offered


@pytest.mark.slow
@pytest.mark.tool("bwrap")
async def test_what_the_server_refuses_is_the_tool_s_failure(tmp_path: Path) -> None:
    call = ToolCall("convert_time", (json.dumps(CONVERT | {"target_timezone": "Nowhere"}),))
    result, _ = await result_of(tmp_path, [TIME], call)

    assert result["is_error"] and "timezone" in result["content"].lower()


async def test_servers_that_are_down_are_told_and_stop_no_turn(tmp_path: Path) -> None:
    async with mcp(tmp_path, DOWN, UNREACHABLE, sandbox=NoSandbox()) as made:
        states = made.tools.states()
    result, offered = await result_of(tmp_path, [DOWN, UNREACHABLE], ToolCall("list_files"), sandbox=NoSandbox())

    assert all(state.startswith("down: ") for state in states.values()), states
    assert not result["is_error"] and "list_files" in offered


async def test_a_name_that_is_taken_gets_the_server_s_before_it(tmp_path: Path) -> None:
    async with mcp(tmp_path, program(), program(name="again"), sandbox=NoSandbox()) as made:
        names = await made.names()

        assert names.count("count") == 1 and names.count("again_count") == 1
        assert json.loads(await made.call("again_count"))[0] == 1


async def test_a_server_s_names_stay_its_own_while_it_is_down(tmp_path: Path) -> None:
    async with mcp(tmp_path, program(), program(name="again"), sandbox=NoSandbox()) as made:
        before = await made.names()
        first: Any = made.tools._servers[0]
        first.up = False

        assert await made.names() == [name for name in before if name.startswith("again_")]


async def test_an_approval_means_a_tool_by_either_of_its_names(tmp_path: Path) -> None:
    async with mcp(tmp_path, program(), program(name="again"), sandbox=NoSandbox()) as made:
        context = made.context()
        tools = await made.tools.get_tools(context)

        def asks(name: str, approvals: set[str]) -> str | None:
            runner = CallRunner(made.tools, tools, context, frozenset(approvals))
            return runner.asks(Call("call_1", ToolCallPart(name, {}), {}))

        assert asks("count", {"own_count"}) == asks("count", {"count"}) == "approval"
        assert asks("again_count", {"again_count"}) == asks("again_count", {"count"}) == "approval"
        assert asks("count", {"again_count"}) is None
        assert asks("read_file", {"count"}) is None


async def test_there_are_no_more_tools_than_providers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_TOOLS_IN_ALL_MAX", 20)
    async with mcp(tmp_path, program(), program(name="again"), sandbox=NoSandbox()) as made:
        assert len(await made.tools.get_tools(made.context())) == 20


async def test_definitions_are_made_once_for_all_turns(tmp_path: Path) -> None:
    async with mcp(tmp_path, program(), sandbox=NoSandbox()) as made:
        one, two = [(await made.tools.get_tools(made.context(name)))["count"] for name in ("one", "two")]

        assert one.tool_def is two.tool_def


async def test_a_program_without_a_sandbox_that_dies_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_RETRY_S", 0.1)
    open_one = msgspec.structs.replace(program(), sandbox=False, paths=())
    async with mcp(tmp_path, open_one, sandbox=NoSandbox()) as made:
        first = await made.counted("one")
        shared = await made.counted("two")
        said = await made.failure("die")
        await made.until(lambda: made.tools.states()["own"].startswith("down: "))
        await made.until(lambda: made.tools.states()["own"].startswith("up, "))
        anew = await made.counted()

        assert made.tools.states()["own"] == "up, 14 tools, without a sandbox (sandbox = false)"

    assert (first[1], shared[0]) == (shared[1], 2)
    assert "broke off in the middle of this call, which may have taken effect" in said
    assert anew[0] == 1 and anew[1] != first[1]
