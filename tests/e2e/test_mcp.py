"""MCP servers over the wire: one in the sandbox, one over HTTP, a published one, and one that is down."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.harness import PROGRAM, Api, Server, eventually
from e2e.test_shell import changes, fake_bwrap
from e2e.test_tools import call, run
from fakes.mcp_http import McpHttp
from fakes.mcp_tools import TIME, program

pytestmark = [pytest.mark.slow, pytest.mark.tool("bwrap")]


@pytest.fixture(scope="module")
def http() -> Iterator[McpHttp]:
    with McpHttp() as server:
        yield server


@pytest.fixture(scope="module")
def config(http: McpHttp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "turnwire.toml"
    own = program()
    tables = {
        "own": {"command": own.command, "args": own.args, "paths": own.paths, "env": {"TOKEN": "given"}},
        "time": {"command": TIME.command, "args": TIME.args, "paths": TIME.paths},
        "there": {"url": http.url, "headers": {"Authorization": f"Bearer {http.key}"}},
        "gone": {"url": "http://127.0.0.1:9/mcp"},
        "missing": {"command": "no-such-program"},
    }
    lines: list[str] = []
    for name, table in tables.items():
        lines.append(f"[mcp.{name}]")
        for key, value in table.items():
            inline = (
                "{" + ", ".join(f"{one} = {json.dumps(two)}" for one, two in value.items()) + "}"
                if isinstance(value, dict)
                else json.dumps(value)
            )
            lines.append(f"{key} = {inline}")
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def demo(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("demo"), args=("--config", str(config))) as server:
        yield server


def test_the_start_up_lines_say_the_states(demo: Server) -> None:
    states = dict(line.removeprefix("  mcp      ").split(": ", 1) for line in demo.start_lines if "  mcp  " in line)

    assert states["own"] == "up, 14 tools, in the sandbox, a process for each session"
    assert states["time"] == "up, 2 tools, in the sandbox, a process for each session"
    assert states["there"].startswith("up, ")
    assert states["gone"].startswith("down: ")
    assert states["missing"].startswith("down: there is no such program in the sandbox: name the folder")


def test_a_turn_calls_a_tool_of_each_and_is_completed(api: Api) -> None:
    session = api.create(workspace="private")["id"]

    results = run(
        api,
        session,
        call("write_file", path="ours.txt", content="ours"),
        call("where"),
        call("write", path="theirs.txt", text="theirs"),
        call("read_file", path="theirs.txt"),
        call("convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo"),
        call("add", a=20, b=22),
        call("refuse"),
    )

    folder, files, environment = json.loads(results[1][0])
    assert (folder, files, environment["TOKEN"]) == ("/workspace", ["ours.txt"], "given")
    assert not any(name.startswith(("TURNWIRE", "POKEE")) for name in environment)
    assert results[3][0] == "theirs"
    assert "21:00" in results[4][0]
    assert results[5] == ("42", False)
    assert results[6] == ("no, not that", True)


def test_two_sessions_have_two_processes_and_two_workspaces(api: Api) -> None:
    one, two = [api.create(workspace="private")["id"] for _ in range(2)]

    [(_, _), (seen, _)] = run(api, one, call("write", path="of-one", text="x"), call("where"))
    [(other, _), (count, _)] = run(api, two, call("where"), call("count"))

    assert json.loads(seen)[1] == ["of-one"]
    assert json.loads(other)[1] == []
    assert json.loads(count)[0] == 2


def test_a_tenant_s_process_sees_nothing_of_another_s(demo: Server, api: Api) -> None:
    stranger = demo.api(demo.run("keys", "create", "other", "--tenant", "other").split()[-1])
    mine, theirs = api.create()["id"], stranger.create()["id"]

    run(api, mine, call("write", path="of-mine", text="x"), call("count"))
    [(seen, _), (count, _)] = run(stranger, theirs, call("where"), call("count"))

    assert json.loads(seen)[1] == []
    assert json.loads(count)[0] == 2


def test_a_session_s_process_ends_with_it(demo: Server, api: Api) -> None:
    session = api.create(persistent=True)["id"]
    run(api, session, call("count"))
    api.request("DELETE", f"/v1/sessions/{session}", status=204)

    eventually(lambda: any("mcp_process_ended" in line and session in line for line in demo.log.splitlines()))


def test_a_cancel_ends_the_turn_while_a_tool_hangs(demo: Server, api: Api) -> None:
    session = api.create(workspace="private")["id"]
    with api.sending(session, call("block", seconds=600)) as live:
        response_id = live.until("message.created")["id"]
        eventually(lambda: list(demo.data_dir.rglob("blocks")))
        began = time.monotonic()
        api.request("POST", f"/v1/sessions/{session}/responses/{response_id}/cancel", status=202)
        live.rest()

    assert time.monotonic() - began < 3
    assert api.request("GET", f"/v1/sessions/{session}/responses/{response_id}").json()["status"] == "cancelled"


def test_a_server_that_goes_in_the_middle_is_told_and_stops_no_turn(demo: Server, api: Api, http: McpHttp) -> None:
    session = api.create()["id"]
    http.stop()
    try:
        results = run(api, session, call("add", a=1, b=2), call("add", a=1, b=2), call("count"))
    finally:
        http.start()

    assert results[0][1] and "there" in results[0][0]
    assert results[1][1]
    assert not results[2][1]
    eventually(lambda: run(api, session, call("add", a=1, b=2))[0] == ("3", False), interval_s=1)


def test_an_approval_can_be_asked_for_a_tool_of_theirs(api: Api) -> None:
    session = api.create(approvals=["add"])["id"]
    with api.sending(session, call("add", a=1, b=2)) as live:
        asked = live.until("tool_call.requested")
        answer = {"results": [{"id": asked["id"], "approve": False, "message": "not now"}]}
        api.request("POST", f"/v1/sessions/{session}/tool_results", json=answer, status=202)
        rest = live.rest()

    assert asked["kind"] == "approval"
    assert "not now" in next(data for name, data in rest if name == "tool_result")["content"]


def test_the_doctor_says_the_states(config: Path, tmp_path: Path) -> None:
    command = [PROGRAM, "doctor", "--config", config, "--data-dir", tmp_path, "--port", "0"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in said.stdout.splitlines() if " mcp  " in line]

    assert said.returncode == 0, said.stdout + said.stderr
    assert [line.split()[0] for line in lines] == ["ok", "ok", "ok", "note", "note"]
    assert "own: up, 14 tools, in the sandbox" in lines[0]
    assert "no such program in the sandbox" in lines[4]


def test_where_no_sandbox_works_it_is_not_started_and_says_what_to_do(
    serve: Callable[..., Server], config: Path, tmp_path: Path
) -> None:
    server = serve(
        env={"PATH": f"{fake_bwrap(tmp_path)}:/usr/bin:/bin"},
        args=("--config", str(config)),
        sandbox_paths="/no/such/folder",
    )
    [line] = [line for line in server.start_lines if line.startswith("  mcp      own: ")]
    session = server.api().create()["id"]
    [(said, is_error), (sum_, _)] = run(server.api(), session, call("count"), call("add", a=1, b=2))

    assert "not started: it is to run in the sandbox, and none works here." in line
    assert "/no/such/folder" in line and "sandbox = false" in line
    assert is_error and "There is no tool 'count'" in said
    assert sum_ == "3"


def test_a_killed_server_takes_the_programs_with_it(serve: Callable[..., Server], config: Path) -> None:
    server = serve(args=("--config", str(config)))
    session = server.api().create(persistent=True, workspace="private")["id"]
    run(server.api(), session, call("tick"))
    [ticking] = server.data_dir.rglob("ticking")
    assert changes(ticking)

    server.kill()
    time.sleep(0.2)

    assert not changes(ticking)
    server.restart()
