"""update_plan and set_status, in a turn."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.world import TENANT, a_world
from fakes import Answer, FakeOpenAIChat, ToolCall
from turnwire.tools.progress import ProgressTools


async def run(tmp_path: Path, name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result's block, and the session's metadata, after a turn with one call."""
    async with FakeOpenAIChat([Answer.of(ToolCall(name, (json.dumps(arguments),))), Answer.of("Done")]) as fake:
        env = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}
        async with a_world(tmp_path, "openai-chat:m", env, toolsets=[ProgressTools()]) as world:
            session = await world.session(metadata={"mine": 1, "status": "old"})
            turn = await world.turn(session, "go")
            blocks = json.loads(turn.content or b"[]")
            [result] = [block for block in blocks if block["type"] == "tool_result"]
            return result, (await world.store.get_session(TENANT, session.id)).metadata


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("reading 12 of 40", {"mine": 1, "status": "reading 12 of 40"}),
        ("two\nlines ", {"mine": 1, "status": "two lines"}),
        ("", {"mine": 1}),
    ],
)
async def test_a_status_is_in_the_session_s_metadata(tmp_path: Path, status: str, expected: dict[str, Any]) -> None:
    result, metadata = await run(tmp_path, "set_status", {"status": status})

    assert not result["is_error"]
    assert metadata == expected


async def test_a_status_that_is_too_long_is_refused(tmp_path: Path) -> None:
    result, metadata = await run(tmp_path, "set_status", {"status": "x" * 201})

    assert result["is_error"] and "200" in result["content"]
    assert metadata["status"] == "old"


async def test_a_plan_is_shown(tmp_path: Path) -> None:
    steps = [{"step": "read", "state": "done"}, {"step": "write", "state": "in_progress"}]
    result, _ = await run(tmp_path, "update_plan", {"steps": [*steps, {"step": "check", "state": "pending"}]})

    assert result["content"] == "[x] read\n[>] write\n[ ] check"


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [{"step": "", "state": "done"}],
        [{"step": "a", "state": "never"}],
        [{"step": "a", "state": "pending"}] * 51,
        [{"step": "a", "state": "in_progress"}] * 2,
    ],
)
async def test_what_is_no_plan_is_refused(tmp_path: Path, steps: list[dict[str, str]]) -> None:
    result, _ = await run(tmp_path, "update_plan", {"steps": steps})

    assert result["is_error"]
