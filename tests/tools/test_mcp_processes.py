"""MCP servers that are programs in the sandbox: a process for each session, and what goes wrong with them."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any, get_args

import pytest

from fakes.mcp_tools import Mcp, mcp, program
from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.sandboxes.host import NoSandbox
from turnwire.sandboxes.limits import Limits
from turnwire.seams.sandbox import Stopped
from turnwire.tools import limits
from turnwire.tools.images import Image, read_image
from turnwire.tools.mcp import results
from turnwire.tools.mcp.config import McpServer

pytestmark = [pytest.mark.tool("bwrap"), pytest.mark.slow]


def processes(made: Mcp) -> int:
    sandbox: Any = made.sandbox
    return len(sandbox._conversations.running)


async def test_its_tools_are_known_before_any_session_and_no_process_waits_for_one(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        assert made.tools.states() == {"own": "up, 14 tools, in the sandbox, a process for each session"}
        assert "where" in await made.names()
        await made.until(lambda: processes(made) == 0)


async def test_each_session_s_process_sees_its_own_workspace(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        await made.call("write", "one", path="mine", text="of one")
        await made.call("write", "two", path="theirs", text="of two")
        one, two = json.loads(await made.call("where", "one")), json.loads(await made.call("where", "two"))

    assert (one[:2], two[:2]) == (["/workspace", ["mine"]], ["/workspace", ["theirs"]])
    assert (tmp_path / "one" / "mine").read_text() == "of one"


async def test_a_session_s_scopes_hold_for_it(tmp_path: Path) -> None:
    (tmp_path / "one" / "pub").mkdir(parents=True)
    (tmp_path / "one" / "secret").write_text("x")
    lists = {"read": ["pub"], "write": []}
    async with mcp(tmp_path, program()) as made:
        seen = json.loads(await made.call("where", lists=lists))[1]
        refused = await made.failure("write", lists=lists, path="pub/x", text="x")

    assert seen == ["pub"]
    assert "Read-only" in refused


async def test_its_environment_is_the_sandbox_s_and_what_the_operator_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of the server")
    async with mcp(tmp_path, program(env={"TOKEN": "given"})) as made:
        environment = json.loads(await made.call("where"))[2]

    assert environment["TOKEN"] == "given"
    assert environment["HOME"] == "/tmp"
    assert "OPENAI_API_KEY" not in environment


async def test_a_process_is_kept_for_its_session_and_ended_when_it_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mcp(tmp_path, program()) as made:
        first, again = await made.counted(), await made.counted()
        monkeypatch.setattr(limits, "MCP_IDLE_S", 0.1)
        assert (await made.counted())[0] == 3
        await made.until(lambda: processes(made) == 0)
        anew = await made.counted()

    assert (first[0], again[0], anew[0]) == (1, 2, 1)


async def test_calls_at_the_same_time_share_one_process(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        counts = await asyncio.gather(*(made.counted() for _ in range(8)))

        assert {pid for _, pid in counts} == {counts[0][1]}
        assert sorted(count for count, _ in counts) == list(range(1, 9))
        assert processes(made) == 1


async def test_it_is_ended_with_its_session_and_no_other_is(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        await made.counted("one")
        await made.counted("two")
        await made.tools.end_session("sess_one")

        assert processes(made) == 1
        assert (await made.counted("two"))[0] == 2


async def test_a_full_house_ends_the_one_that_was_not_used_for_the_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_PROCESSES_MAX", 2)
    async with mcp(tmp_path, program()) as made:
        for session in ("one", "two", "one", "three"):
            await made.counted(session)

        assert processes(made) == 2
        assert [(await made.counted(session))[0] for session in ("one", "two")] == [3, 1]


async def test_first_calls_at_the_same_time_start_no_more_than_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_PROCESSES_MAX", 2)
    async with mcp(tmp_path, program()) as made:
        sessions = [f"s{number}" for number in range(5)]
        calls = [asyncio.create_task(made.call("hang", session, seconds=5)) for session in sessions]
        await made.until(lambda: sum((tmp_path / session / "hangs").exists() for session in sessions) >= 2)
        done, running = await asyncio.wait(calls, timeout=0.5)
        for call in running:
            call.cancel()

        assert (processes(made), len(done)) == (2, 3)
        assert all("try again" in str(call.exception()) for call in done)


async def test_a_full_house_that_is_busy_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_PROCESSES_MAX", 1)
    async with mcp(tmp_path, program()) as made:
        busy = asyncio.create_task(made.call("hang", "one", seconds=5))
        await made.until((tmp_path / "one" / "hangs").exists)
        refused = await made.failure("count", "two")
        busy.cancel()

    assert "try again" in refused


async def test_one_that_dies_in_a_call_is_told_with_its_last_words_and_the_next_call_has_a_new_one(
    tmp_path: Path,
) -> None:
    async with mcp(tmp_path, program()) as made:
        said = await made.failure("die", words="out of luck")
        calls, _ = await made.counted()

    assert said == "The MCP server own broke off: the program ended with exit status 7: out of luck."
    assert calls == 1


async def test_one_that_was_killed_between_calls_is_not_noticed_by_the_next(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        await made.counted()
        sandbox: Any = made.sandbox
        [process] = sandbox._conversations.running
        process.kill()
        await process.wait()

        assert (await made.counted())[0] == 1


async def test_a_call_that_takes_too_long_is_given_up_and_the_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MCP_TIME_LIMIT_S", 1)
    async with mcp(tmp_path, program()) as made:
        said = await made.failure("hang")

        assert said == "The tool was given up: it took longer than 1 seconds."
        assert (await made.counted())[0] == 2


@pytest.mark.parametrize("tool", ["block", "spin"])
async def test_a_process_that_is_deaf_after_a_call_was_given_up_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setattr(limits, "MCP_ANSWER_S", 0.3)
    async with mcp(tmp_path, program()) as made:
        calling = asyncio.create_task(made.call(tool))
        await made.until((tmp_path / "one" / f"{tool}s").exists)
        calling.cancel()
        began = asyncio.get_running_loop().time()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert asyncio.get_running_loop().time() - began < 0.2
        await made.until(lambda: processes(made) == 0)

        assert (await made.counted())[0] == 1


@pytest.mark.parametrize("why", [why for why in get_args(Stopped) if why != "killed"])
async def test_a_process_that_was_stopped_says_why(tmp_path: Path, why: Stopped) -> None:
    async with mcp(tmp_path, program()) as made:
        calling = asyncio.create_task(made.failure("block"))
        await made.until((tmp_path / "one" / "blocks").exists)
        sandbox: Any = made.sandbox
        [process] = sandbox._conversations.running
        process.stop(why)

        assert (await calling).startswith("The MCP server own broke off: the program was ended")
        assert (await made.counted())[0] == 1


async def test_a_message_without_an_end_is_cut_off(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        said = await made.failure("flood", size=32 * 1024 * 1024)

        assert said == "The MCP server own broke off: it sent a message of more than 8388608 bytes."
        assert (await made.counted())[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["x", "", '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}']
)
async def test_one_that_writes_without_end_holds_up_nobody(tmp_path: Path, line: str) -> None:
    async with mcp(tmp_path, program()) as made:
        calling = asyncio.create_task(made.call("babble", line=line))
        late = 0.0
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.5
        while loop.time() < until:
            began = loop.time()
            await asyncio.sleep(0.01)
            late = max(late, loop.time() - began)
        calling.cancel()
        [ended], _ = await asyncio.wait([calling])

        assert late < 0.5
        assert ended.cancelled() or "lines that are no messages" in str(ended.exception())
        assert (await made.counted("two"))[0] == 1


async def test_images_are_not_looked_at_on_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def look(data: bytes) -> Image:
        threads.append(threading.current_thread())
        return read_image(data)

    monkeypatch.setattr(results, "read_image", look)
    async with mcp(tmp_path, program()) as made:
        await made.call("picture")

    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_large_results_pictures_refusals_and_lines_that_are_no_messages(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        assert await made.call("large", size=3_000_000) == "x" * 3_000_000
        text, image = await made.call("picture")
        assert (text, image.media_type, image.data[:4]) == ("Here it is:", "image/png", b"\x89PNG")
        torn = await made.call("picture", torn=True)
        assert torn.startswith("Here it is:\n[image/png, but it ") and torn.endswith(": not shown.]")
        assert await made.failure("refuse") == "no, not that"
        assert await made.call("junk") == "well"
        assert (await made.counted())[0] == 6


async def test_a_session_whose_workspace_is_gone_is_told(tmp_path: Path) -> None:
    async with mcp(tmp_path, program()) as made:
        context = made.context("gone")
        tools = await made.tools.get_tools(context)
        (tmp_path / "gone").rmdir()
        with pytest.raises(Exception, match="could not be started for this session") as failed:
            await made.tools.call_tool("count", {}, context, tools["count"])

    assert type(failed.value).__name__ == "ToolFailed"


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (McpServer(name="s", command="no-such-program"), "there is no such program in the sandbox: name the folder"),
        (McpServer(name="s", command="/opt/none/bin/x"), "there is no such program in the sandbox: name the folder"),
        (McpServer(name="s", command="cat", paths=["/no/such"]), "/no/such: No such file or directory"),
        (
            McpServer(name="s", command="bash", args=["-c", "echo; echo no luck >&2; exit 3"]),
            "the program ended with exit status 3: no luck",
        ),
        (McpServer(name="s", command="true"), "the program ended with exit status 0"),
    ],
)
async def test_one_that_can_t_be_started_says_why(tmp_path: Path, server: McpServer, why: str) -> None:
    async with mcp(tmp_path, server) as made:
        assert made.tools.states()["s"].startswith("down: ")
        assert why in made.tools.states()["s"]
        assert await made.names() == []


async def test_one_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_CONNECT_S", 0.5)
    async with mcp(tmp_path, McpServer(name="s", command="sleep", args=["60"])) as made:
        assert made.tools.states() == {"s": "down: it did not answer within 0.5 seconds"}


async def test_one_that_is_down_at_first_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MCP_RETRY_S", 0.1)
    programs = tmp_path / "programs"
    programs.mkdir()
    late = McpServer(
        name="s", command="bash", args=[str(programs / "late")], paths=[str(programs), str(program().paths[0])]
    )
    async with mcp(tmp_path, late) as made:
        assert made.tools.states()["s"].startswith("down: there is no such program")
        (programs / "late").write_text(f"exec python3 {program().args[0]}")
        await made.until(lambda: made.tools.states()["s"].startswith("up, "))
        assert (await made.counted())[0] == 1


async def test_where_no_sandbox_works_it_is_not_started_and_says_what_to_do(tmp_path: Path) -> None:
    without = Bubblewrap(Limits(), programs=[])
    async with mcp(tmp_path, program(), sandbox=without) as made:
        state = made.tools.states()["own"]

        assert state.startswith("not started: it is to run in the sandbox, and none works here. There is no bwrap.")
        assert "To do: install bubblewrap" in state
        assert "sandbox = false" in state
        assert await made.names() == []


async def test_with_the_setting_none_it_runs_in_its_session_s_folder(tmp_path: Path) -> None:
    async with mcp(tmp_path, program(), sandbox=NoSandbox()) as made:
        await made.call("write", "two", path="made", text="x")

        assert (tmp_path / "two" / "made").exists()
        assert json.loads(await made.call("where", "one"))[0] == str(tmp_path / "one")


async def test_its_end_is_asked_for_before_it_is_forced(tmp_path: Path) -> None:
    tidy = (
        "import sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "open('/workspace/tidied', 'w').close()"
    )
    server = McpServer(name="tidy", command="python3", args=["-c", tidy, str(program().args[0])], paths=program().paths)
    async with mcp(tmp_path, server) as made:
        await made.counted("one")

    assert (tmp_path / "one" / "tidied").exists()
