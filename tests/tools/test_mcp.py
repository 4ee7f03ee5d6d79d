"""MCP servers: a published one, as a program and over HTTP; and ones that are down."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.world import World, a_world
from fakes import Answer, FakeOpenAIChat, ToolCall
from turnwire.tools.files import FileTools
from turnwire.tools.mcp import McpServer, McpTools

TIME = McpServer(name="time", command=sys.executable, args=["-m", "mcp_server_time", "--local-timezone=UTC"])
CONVERT = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
DOWN = McpServer(name="down", command="/nonexistent/program")
UNREACHABLE = McpServer(name="away", url="http://127.0.0.1:9/mcp")


async def result_of(tmp_path: Path, servers: Sequence[McpServer], call: ToolCall) -> tuple[dict[str, Any], list[str]]:
    """The result of the call in a turn, and the names of the tools that the model was offered."""
    tools = McpTools(FileTools(), servers)
    await tools.start()
    try:
        async with FakeOpenAIChat([Answer.of(call), Answer.of("Done")]) as fake:
            env = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}
            async with a_world(tmp_path, "openai-chat:m", env, toolsets=[tools]) as world:
                turn = await World.turn(world, await world.session(), "go")
                assert turn.status == "completed"
                [result] = [b for b in json.loads(turn.content or b"") if b["type"] == "tool_result"]
                return result, [tool["function"]["name"] for tool in fake.requests[0].body["tools"]]
    finally:
        await tools.aclose()


@pytest.mark.slow
async def test_a_published_server_s_tools_stand_beside_our_own(tmp_path: Path) -> None:
    call = ToolCall("convert_time", (json.dumps(CONVERT),))
    result, offered = await result_of(tmp_path, [TIME], call)

    assert not result["is_error"] and "21:00" in result["content"]
    assert "read_file" in offered and "get_current_time" in offered


@pytest.mark.slow
async def test_a_name_that_is_taken_gets_the_server_s_before_it(tmp_path: Path) -> None:
    again = McpServer(name="again", command=TIME.command, args=TIME.args)
    result, offered = await result_of(tmp_path, [TIME, again], ToolCall("again_convert_time", (json.dumps(CONVERT),)))

    assert not result["is_error"] and "21:00" in result["content"]
    assert offered.count("convert_time") == 1 and "again_convert_time" in offered


@pytest.mark.slow
async def test_what_the_server_refuses_is_the_tool_s_failure(tmp_path: Path) -> None:
    call = ToolCall("convert_time", (json.dumps(CONVERT | {"target_timezone": "Nowhere"}),))
    result, _ = await result_of(tmp_path, [TIME], call)

    assert result["is_error"] and "timezone" in result["content"].lower()


@pytest.mark.slow
async def test_servers_that_are_down_are_told_and_stop_no_turn(tmp_path: Path) -> None:
    tools = McpTools(FileTools(), [DOWN, UNREACHABLE])
    await tools.start()
    states = tools.states()
    await tools.aclose()
    result, offered = await result_of(tmp_path, [DOWN, UNREACHABLE], ToolCall("list_files"))

    assert all(state.startswith("down: ") for state in states.values()), states
    assert not result["is_error"] and "list_files" in offered
