"""What an agent is told before the conversation, as its provider is told it."""

from pathlib import Path
from typing import Any

import pytest

from engine.world import a_world
from fakes import Answer, FakeOpenAIChat, ToolCall
from turnwire.engine.instructions import PROMPT, instructions_for
from turnwire.engine.limits import AGENTS_FILE_BYTES_MAX
from turnwire.seams.workspace import FileAccess
from turnwire.workspaces.directory import DirectoryWorkspace


def system_of(body: dict[str, Any]) -> str:
    return "\n".join(m["content"] for m in body["messages"] if m["role"] in ("system", "developer"))


async def test_the_order_is_prompt_server_session_workspace(tmp_path: Path) -> None:
    async with FakeOpenAIChat([Answer.of("Yes")]) as fake:
        env = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}
        async with a_world(tmp_path, "openai-chat:m", env, instructions="Server says.") as world:
            world.write("AGENTS.md", b"Use tabs.\n")
            await world.turn(await world.session(instructions="Session says."), "hi")
            told = system_of(fake.requests[0].body)

    places = [told.index(text) for text in (PROMPT[:40], "Server says.", "Session says.", "Use tabs.")]
    assert places == sorted(places)


async def test_they_stay_the_same_through_a_turn_and_are_read_anew_for_the_next(tmp_path: Path) -> None:
    changed = ToolCall("write_file", ('{"path": "AGENTS.md", "content": "Use spaces."}',))
    async with FakeOpenAIChat([Answer.of(changed), Answer.of("Done"), Answer.of("Yes")]) as fake:
        env = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}
        async with a_world(tmp_path, "openai-chat:m", env) as world:
            world.write("AGENTS.md", b"Use tabs.")
            session = await world.session()
            await world.turn(session, "change it")
            await world.turn(session, "again")
            first, second, third = (system_of(request.body) for request in fake.requests)

    assert first == second and "Use tabs." in first
    assert "Use spaces." in third


async def test_a_session_that_may_not_read_it_is_not_told(tmp_path: Path) -> None:
    async with FakeOpenAIChat([Answer.of("Yes")]) as fake:
        env = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "k"}
        async with a_world(tmp_path, "openai-chat:m", env) as world:
            world.write("AGENTS.md", b"Use tabs.")
            await world.turn(await world.session(file_access={"read": ["pub"], "write": []}), "hi")
            assert "Use tabs." not in system_of(fake.requests[0].body)


def test_a_model_without_tools_is_told_what_people_wrote_and_no_more() -> None:
    assert instructions_for([None, None], None) is None
    assert instructions_for([" ", "Be brief."], None) == "Be brief."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", False),
        (b" \n", False),
        (b"\xff\xfe caf\xc3\xa9", True),
        (b"x" * (AGENTS_FILE_BYTES_MAX + 1), True),
    ],
)
def test_any_file_is_told_or_left_out(tmp_path: Path, content: bytes, expected: bool) -> None:
    (tmp_path / "AGENTS.md").write_bytes(content)
    told = instructions_for([], DirectoryWorkspace(tmp_path, FileAccess())) or ""

    assert ("<AGENTS.md>" in told) == expected
    assert len(told.encode()) < len(PROMPT.encode()) + AGENTS_FILE_BYTES_MAX + 300
    assert ("The rest is left out" in told) == (len(content) > AGENTS_FILE_BYTES_MAX)


@pytest.mark.parametrize("kind", ["folder", "link out", "missing"])
def test_what_is_no_file_of_the_workspace_is_left_out(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "workspace"
    root.mkdir()
    if kind == "folder":
        (root / "AGENTS.md").mkdir()
    if kind == "link out":
        (tmp_path / "secret").write_text("secret")
        (root / "AGENTS.md").symlink_to(tmp_path / "secret")

    assert instructions_for([], DirectoryWorkspace(root, FileAccess())) == PROMPT


def test_the_prompt_is_small() -> None:
    assert len(PROMPT) < 2500
