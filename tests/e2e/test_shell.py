"""The agent's shell, over the wire, on a server as people run it: its data folder is closed to others."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.harness import Api, Server, eventually
from e2e.test_tools import call, run

pytestmark = pytest.mark.tool("bwrap")


def test_files_go_from_the_api_into_the_sandbox_and_back(api: Api) -> None:
    session = api.create(workspace="private")["id"]

    results = run(
        api,
        session,
        call("write_file", path="in/a.csv", content="3\n1\n2\n"),
        call("bash", command="sort in/a.csv > out.txt; pwd; stat -c %U out.txt"),
        call("edit_file", path="out.txt", old="1\n2", new="one\ntwo"),
        call("bash", command="cat out.txt; exit 4"),
    )

    assert results[1] == ("/workspace\nagent\n", False)
    assert results[3] == ("one\ntwo\n3\n[Exit status 4.]", False)


def test_nothing_of_the_server_is_in_the_sandbox(demo: Server, api: Api) -> None:
    session = api.create(workspace="private")["id"]
    secret = demo.key[-12:]
    probe = (
        f"cat {demo.database} {demo.data_dir}/* /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c {secret[:4]}; "
        f"ls {demo.data_dir}; kill -9 {demo.pid}; echo > /dev/tcp/127.0.0.1/{demo.port}"
    )

    [(said, _)] = run(api, session, call("bash", command=probe))

    assert said.startswith("0\n")
    assert "No such file or directory" in said
    assert "No such process" in said
    assert "Connection refused" in said
    assert (demo.data_dir.stat().st_mode & 0o077) == 0


def test_a_session_s_scopes_hold_in_the_shell(api: Api) -> None:
    whole = api.create()["id"]
    run(api, whole, call("bash", command="mkdir -p pub private; echo p > pub/f; echo s > private/f"))
    narrow = api.create(file_access={"read": ["pub"], "write": ["out"]})["id"]

    [(said, _)] = run(api, narrow, call("bash", command="ls; cat pub/f private/f; touch pub/x; echo x > out/x; ls out"))

    assert said.startswith("out\npub\np\n")
    assert "private/f: No such file" in said
    assert "Read-only file system" in said
    assert said.endswith("\nx\n")


def test_a_cancel_ends_the_command(demo: Server, api: Api) -> None:
    session = api.create(workspace="private")["id"]
    with api.sending(session, call("bash", command="touch begun; sleep 2; touch left")) as live:
        response_id = live.until("message.created")["id"]
        begun = eventually(lambda: list(demo.data_dir.rglob("begun")))[0]
        api.request("POST", f"/v1/sessions/{session}/responses/{response_id}/cancel", status=202)
        live.rest()
    time.sleep(2.2)

    assert not (begun.parent / "left").exists()


def test_a_background_task_ends_with_its_session(demo: Server, api: Api) -> None:
    session = api.create(persistent=True)["id"]
    loop = "while :; do date +%N > ticking; sleep 0.05; done"
    run(api, session, call("bash", command=loop, background=True))
    [ticking] = demo.data_dir.rglob("ticking")
    assert changes(ticking)

    api.request("DELETE", f"/v1/sessions/{session}", status=204)

    eventually(lambda: not changes(ticking))


def test_a_killed_server_takes_its_commands_with_it(serve: Callable[..., Server]) -> None:
    server = serve()
    api = server.api()
    session = api.create(persistent=True)["id"]
    run(api, session, call("bash", command="while :; do date +%N > ticking; sleep 0.05; done", background=True))
    [ticking] = server.data_dir.rglob("ticking")
    assert changes(ticking)

    server.kill()
    time.sleep(0.2)

    assert not changes(ticking)
    server.restart()


def changes(path: Path) -> bool:
    """Whether somebody writes to the file."""
    before = path.stat().st_mtime_ns
    deadline = time.monotonic() + 0.8
    while time.monotonic() < deadline:
        if path.stat().st_mtime_ns != before:
            return True
        time.sleep(0.02)
    return False


def test_where_no_sandbox_works_there_is_no_bash_and_the_start_up_lines_say_why(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(env={"PATH": f"{fake_bwrap(tmp_path)}:{os.environ['PATH']}"}, sandbox_paths="/no/such/folder")
    [line] = [line for line in server.start_lines if line.startswith("  sandbox ")]
    session = server.api().create()["id"]

    [(said, is_error)] = run(server.api(), session, call("bash", command="true"))

    assert "agents have no bash" in line
    assert "/no/such/folder" in line
    assert is_error
    assert "There is no tool 'bash'" in said


def fake_bwrap(folder: Path) -> Path:
    programs = folder / "programs"
    programs.mkdir()
    (programs / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (programs / "bwrap").chmod(0o755)
    return programs


def test_a_server_that_insists_on_bubblewrap_does_not_start_without(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = Server(tmp_path, sandbox="bubblewrap", sandbox_paths="/no/such/folder")

    code, said = server.refused()

    assert code == 1
    assert "TURNWIRE_SANDBOX=bubblewrap" in said
    assert "/no/such/folder" in said


def test_none_runs_commands_and_its_start_up_lines_warn(serve: Callable[..., Server]) -> None:
    server = serve(sandbox="none")
    session = server.api().create(workspace="private")["id"]

    [(said, _)] = run(server.api(), session, call("bash", command="echo ran; ls /proc | grep -c '^[0-9]' | wc -l"))

    assert said.startswith("ran\n")
    assert any(line.startswith("  warning ") and "TURNWIRE_SANDBOX=none" in line for line in server.start_lines)
