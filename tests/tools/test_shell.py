"""The shell tools, called as the engine calls them: in the real sandbox, and what they make of output."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_ai import RunContext
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.sandboxes.host import NoSandbox
from turnwire.seams.sandbox import Sandbox
from turnwire.seams.tool import REPEATABLE, TIME_LIMIT_S, ToolContext, ToolFailed
from turnwire.seams.workspace import FileAccess
from turnwire.tools import limits
from turnwire.tools.output import Output
from turnwire.tools.shell import ShellTools
from turnwire.workspaces.directory import DirectoryWorkspace

HANG_S = 20.0


class Session:
    """A session with a shell."""

    def __init__(self, sandbox: Sandbox, directory: Path, lists: dict[str, list[str]] | None = None) -> None:
        self.sandbox = sandbox
        self.tools = ShellTools(sandbox)
        self.id = "sess_000000000001"
        workspace = DirectoryWorkspace(directory, FileAccess.parse(lists))
        deps = ToolContext(tenant="default", session_id=self.id, workspace=workspace)
        self.context = RunContext(deps=deps, model=TestModel(), usage=RunUsage())

    async def call(self, name: str, **arguments: Any) -> str:
        tools = await self.tools.get_tools(self.context)
        valid = tools[name].args_validator.validate_python(arguments)
        async with asyncio.timeout(HANG_S):
            result = await self.tools.call_tool(name, valid, self.context, tools[name])
        assert isinstance(result, str)
        return result

    async def bash(self, command: str, **arguments: Any) -> str:
        return await self.call("bash", command=command, **arguments)

    async def failure(self, name: str, **arguments: Any) -> str:
        with pytest.raises(ToolFailed) as caught:
            await self.call(name, **arguments)
        return caught.value.message


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    return root


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.tool("bwrap")), "none"])
async def session(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Session]:
    sandbox = Bubblewrap() if request.param == "bubblewrap" else NoSandbox()
    yield Session(sandbox, root)
    await sandbox.aclose()


# ── What the model and the engine are told ─────────────────────────────────────────────────────────────────────────


async def test_bash_requires_only_a_command_and_is_never_made_again(root: Path) -> None:
    session = Session(NoSandbox(), root)
    tools = await session.tools.get_tools(session.context)

    assert {name: tool.tool_def.parameters_json_schema["required"] for name, tool in tools.items()} == {
        "bash": ["command"],
        "bash_task": ["task"],
    }
    for tool in tools.values():
        metadata = tool.tool_def.metadata or {}
        assert metadata[REPEATABLE] is False
        assert metadata[TIME_LIMIT_S] > limits.TASK_WAIT_MAX_S
        assert 20 < len(tool.tool_def.description or "") < 160
        for parameter in tool.tool_def.parameters_json_schema["properties"].values():
            assert 10 < len(parameter["description"]) < 100
    assert tools["bash"].tool_def.metadata is not None
    assert tools["bash"].tool_def.metadata[TIME_LIMIT_S] > limits.BASH_TIME_MAX_S


# ── Running ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_result_holds_stdout_and_stderr_as_they_were_written(session: Session) -> None:
    assert await session.bash("echo one; echo two >&2; echo three") == "one\ntwo\nthree\n"


async def test_a_command_without_output_says_so(session: Session, root: Path) -> None:
    assert await session.bash("touch made") == "[No output.]"
    assert (root / "made").exists()


async def test_an_exit_status_that_is_not_zero_is_named(session: Session) -> None:
    assert await session.bash("echo no; exit 3") == "no\n[Exit status 3.]"
    assert (
        await session.bash("no-such-program") == "bash: line 1: no-such-program: command not found\n[Exit status 127.]"
    )
    assert (await session.bash("kill -SEGV $$")).endswith("[Exit status 139.]")


async def test_a_script_of_several_lines_runs_whole(session: Session) -> None:
    assert await session.bash("cd /\nfor i in 1 2\ndo echo $i\ndone\ncat <<'END'\n$HOME\nEND") == "1\n2\n$HOME\n"


async def test_nothing_waits_for_input(session: Session) -> None:
    assert await session.bash("read -r line; cat; echo end") == "end\n"


async def test_a_command_that_takes_too_long_is_ended_and_its_output_kept(session: Session) -> None:
    begun = time.monotonic()
    said = await session.failure("bash", command="echo begun; sleep 30; echo done", timeout_s=0.5)

    assert said.startswith("begun\n[The command was ended: it took longer than 0.5 seconds.")
    assert time.monotonic() - begun < 5


async def test_a_call_that_is_cancelled_ends_its_command(session: Session, root: Path) -> None:
    task = asyncio.create_task(session.bash("touch begun; sleep 1.5; touch left"))
    while not (root / "begun").exists():
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(1.7)

    assert not (root / "left").exists()


async def test_a_call_that_is_cancelled_while_it_starts_leaves_nothing(session: Session, root: Path) -> None:
    for delay_s in (0.0, 0.001, 0.003, 0.006, 0.01):
        task = asyncio.create_task(session.bash(f"sleep 2; touch left-{delay_s}"))
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.sleep(3)

    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("echo a\0b", "NUL character"),
        ("#" * 100_001, "100001 bytes long; 100000 is the most. Write a script with write_file"),
    ],
)
async def test_a_command_that_is_none_is_told(command: str, says: str, session: Session) -> None:
    assert says in await session.failure("bash", command=command)


async def test_the_longest_command_runs(session: Session) -> None:
    command = "echo ran #"

    assert await session.bash(command + "x" * (limits.COMMAND_BYTES_MAX - len(command))) == "ran\n"


@pytest.mark.parametrize(
    "arguments", [{}, {"command": ""}, {"command": "x", "timeout_s": 0}, {"command": "x", "timeout_s": 3601}]
)
async def test_bad_input_fits_no_schema(arguments: dict[str, Any], root: Path) -> None:
    with pytest.raises(ValidationError):
        await Session(NoSandbox(), root).call("bash", **arguments)


async def test_calls_run_side_by_side(session: Session) -> None:
    begun = time.monotonic()
    await asyncio.gather(*(session.bash("sleep 0.7") for _ in range(4)))

    assert time.monotonic() - begun < 2.4


# ── Background tasks ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_background_task_runs_on_is_looked_at_and_stopped(session: Session) -> None:
    started = await session.bash("echo one; sleep 1.6; echo two; sleep 60", background=True)
    assert started == "one\n[Background task 1 runs; it ends with the session at the latest.]"
    assert (await session.call("bash_task", task=1)).startswith("[Background task 1 runs")

    later = await session.call("bash_task", task=1, wait_s=1.5)
    assert later.startswith("two\n[Background task 1 runs")

    assert await session.call("bash_task", task=1, stop=True) == "[Background task 1 was stopped.]"
    assert await session.failure("bash_task", task=1) == "There is no background task 1. There are: none."


async def test_a_background_task_that_ends_at_once_is_told_at_once(session: Session) -> None:
    said = await session.bash("echo oops; exit 2", background=True)

    assert said == "oops\n[Background task 1 ended with exit status 2.]"


async def test_ending_a_session_ends_its_tasks(session: Session, root: Path) -> None:
    await session.bash("while :; do date +%N > alive; sleep 0.05; done", background=True)
    await session.tools.end_session(session.id)
    await asyncio.sleep(0.2)
    before = (root / "alive").read_bytes()
    await asyncio.sleep(0.4)

    assert (root / "alive").read_bytes() == before
    assert "There are: none" in await session.failure("bash_task", task=1)


async def test_a_session_has_only_so_many_tasks(session: Session) -> None:
    await asyncio.gather(*(session.bash("sleep 60", background=True) for _ in range(limits.TASKS_MAX)))

    assert "stop one of them first" in await session.failure("bash", command="sleep 60", background=True)


# ── Without a sandbox ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_sandbox_a_session_with_scopes_runs_nothing(root: Path) -> None:
    session = Session(NoSandbox(), root, {"read": [""], "write": ["out"]})

    assert "file_access can't be kept without a sandbox" in await session.failure("bash", command="true")


async def test_without_a_sandbox_commands_start_in_the_workspace_without_the_server_s_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    session = Session(NoSandbox(), root)

    assert await session.bash("pwd; env | grep -c secret") == f"{root}\n0\n[Exit status 1.]"


async def test_where_no_sandbox_works_the_tools_say_that_they_are_not_available(root: Path) -> None:
    session = Session(Bubblewrap(programs=[]), root)

    assert not session.tools.available
    assert await session.failure("bash", command="true") == "There is no bwrap."


# ── Output ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_long_output_keeps_beginning_and_end_and_says_what_was_left_out(session: Session) -> None:
    said = await session.bash("seq 100000")

    assert said.startswith("1\n2\n3\n")
    assert said.endswith("\n99999\n100000\n")
    found = re.search(r"\n\[… (\d+) bytes left out here …\]\n", said)
    assert found
    assert 0 <= len("".join(f"{n}\n" for n in range(1, 100001))) - int(found[1]) - (48 * 1024) < 3


async def test_binary_output_is_told_not_dumped(session: Session) -> None:
    assert (await session.bash("head -c 5000 /dev/urandom")).startswith("[5000 bytes of binary output, not shown.")
    assert (await session.bash("printf 'a\\0b'")).startswith("[3 bytes of binary output")


def shown(data: bytes, size: int = 7) -> str:
    output = Output()
    for begin in range(0, len(data), size):
        output.add(data[begin : begin + size])
    return output.text()


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b"\x1b[1;31mred\x1b[0m\n", "red\n"),
        (b"\x1b]0;title\x07plain \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "plain link\n"),
        (b"\x1b[2J\x1b[H\x1b(Bcleared\x1bc\n", "cleared\n"),
        (b"10%\r50%\r100%\ndone\r\nend", "100%\ndone\nend"),
        (b"bell\x07 back\x08 tab\t.\n", "bell back tab\t.\n"),
        ("naïve 漢字 👋\n".encode(), "naïve 漢字 👋\n"),
        ("caf\xe9 ol\xe9".encode("latin-1"), "caf\ufffd ol\ufffd"),
        (b"\x1b]52;c;unterminated", ""),
        (b"", ""),
    ],
)
def test_what_only_a_terminal_understands_is_left_out(written: bytes, text: str) -> None:
    assert shown(written) == text


def test_a_cut_never_shows_half_a_character() -> None:
    said = shown("漢".encode() * 40_000, 1000)

    assert "\ufffd" not in said
    assert "bytes left out here" in said


@pytest.mark.parametrize(
    "hostile", [b"\x1b[" * 30_000, b"\x1b]" * 30_000, b"x" * 60_000, b"\r" * 60_000, b"\x1b" * 60_000]
)
def test_hostile_output_takes_no_time(hostile: bytes) -> None:
    begun = time.process_time()
    shown(hostile, 4096)

    assert time.process_time() - begun < 0.5


def test_what_was_taken_is_not_given_again() -> None:
    output = Output()
    output.add(b"one\n")
    assert output.take().text() == "one\n"
    output.add(b"two\n")

    assert output.text() == "two\n"


def test_endless_output_takes_bounded_memory() -> None:
    output = Output()
    for _ in range(1000):
        output.add(b"y\n" * 32 * 1024)

    assert output.size == 64 * 1024 * 1000
    assert len(output._head) + len(output._tail) < 200 * 1024  # pyright: ignore[reportPrivateUsage]
