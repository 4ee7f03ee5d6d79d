"""The agent's own tools, over the wire."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from e2e.harness import Api, Server, Turn


@pytest.fixture
def session(api: Api) -> str:
    return api.create(workspace="private")["id"]


def call(tool: str, **arguments: Any) -> str:
    return f"/call {tool} {json.dumps(arguments)}"


def run(api: Api, session: str, *calls: str) -> list[tuple[str, bool]]:
    """The results of these calls, one a step."""
    turn = api.send(session, "\n/then\n".join([*calls, "end"]))
    assert turn.ending == "message.completed"
    assert turn.text.endswith("end")
    return [(data["content"], data["is_error"]) for data in turn.data("tool_result")]


def folder(server: Server, api: Api, session: str) -> Path:
    """The session's workspace on the disk."""
    run(api, session, call("write_file", path="mark-of-" + session, content="x"))
    [found] = server.data_dir.rglob("mark-of-" + session)
    return found.parent


def test_the_five_tools_do_what_they_say(api: Api, session: str) -> None:
    results = run(
        api,
        session,
        call("write_file", path="src/a.txt", content="one\ntwo\nthree\n"),
        call("edit_file", path="src/a.txt", old="two", new="zwei"),
        call("read_file", path="src/a.txt"),
        call("list_files", recursive=True),
        call("search_files", pattern="zw.i"),
    )

    assert [is_error for _, is_error in results] == [False] * 5
    assert results[2][0] == "one\nzwei\nthree\n"
    assert "src/a.txt" in results[3][0]
    assert "src/a.txt:2" in results[4][0]


def test_what_they_refuse_is_an_error_and_the_turn_goes_on(api: Api, session: str) -> None:
    run(api, session, call("write_file", path="a", content="x x"))

    results = run(
        api,
        session,
        call("read_file", path="none"),
        call("edit_file", path="a", old="y", new="z"),
        call("edit_file", path="a", old="x", new="z"),
        call("search_files", pattern="("),
        call("list_files", path="none"),
        call("write_file", path="a/b", content="x"),
    )

    assert [is_error for _, is_error in results] == [True] * 6
    for content, _ in results:
        assert content.strip()
        assert "Traceback" not in content
        assert "/tmp" not in content, "a path of the host"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "/", "..", "a/../..", "\u0000", "x" * 5000])
def test_no_path_leads_out(demo: Server, api: Api, session: str, path: str) -> None:
    results = run(
        api,
        session,
        call("read_file", path=path),
        call("write_file", path=path, content="mine"),
        call("edit_file", path=path, old="root", new="x"),
        call("search_files", pattern="root", path=path),
    )

    assert [is_error for _, is_error in results] == [True] * 4
    assert "root:" not in str(results)
    assert not list(demo.data_dir.glob("x"))


def test_no_link_leads_out(demo: Server, api: Api, session: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("the secret")
    inside = folder(demo, api, session)
    (inside / "dir").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret.txt")
    os.mkfifo(inside / "fifo")

    results = run(
        api,
        session,
        call("read_file", path="file"),
        call("read_file", path="dir/secret.txt"),
        call("write_file", path="dir/new.txt", content="x"),
        call("write_file", path="file", content="x"),
        call("read_file", path="fifo"),
        call("search_files", pattern="secret"),
        call("list_files", recursive=True),
    )

    assert [is_error for _, is_error in results[:3]] == [True] * 3
    assert results[4][1] is True
    assert "the secret" not in str(results)
    assert (outside / "secret.txt").read_text() == "the secret"
    assert [entry.name for entry in outside.iterdir()] == ["secret.txt"]


def test_a_scope_narrows_the_tools(api: Api) -> None:
    wide = api.create()["id"]
    run(
        api, wide, call("write_file", path="pub/a.txt", content="1"), call("write_file", path="pub2/a.txt", content="2")
    )
    narrow = api.create(file_access={"read": ["pub"], "write": ["pub/in"]})["id"]

    results = run(
        api,
        narrow,
        call("read_file", path="pub/a.txt"),
        call("read_file", path="pub2/a.txt"),
        call("write_file", path="pub/a.txt", content="x"),
        call("write_file", path="pub/in/b.txt", content="x"),
        call("list_files", recursive=True),
    )

    assert [is_error for _, is_error in results] == [False, True, True, False, False]
    assert "pub2" not in results[4][0]


def test_tenants_and_private_sessions_have_workspaces_of_their_own(demo: Server, api: Api, session: str) -> None:
    other = demo.api(demo.run("keys", "create", "of tools", "--tenant", "tools").split()[-1])
    shared = api.create()["id"]
    run(api, shared, call("write_file", path="shared.txt", content="ours"))

    assert run(api, api.create()["id"], call("read_file", path="shared.txt")) == [("ours", False)]
    assert run(api, session, call("read_file", path="shared.txt"))[0][1] is True
    assert run(other, other.create()["id"], call("read_file", path="shared.txt"))[0][1] is True


def kinds_of_call(turn: Turn) -> list[str]:
    return [kind for kind in turn.kinds if kind.startswith("tool")]


def test_an_unknown_tool_never_runs(api: Api, session: str) -> None:
    turn = api.send(session, "/unknown\n/then\nend")

    assert kinds_of_call(turn) == ["tool_use.start", "tool_use.input_delta", "tool_use.stop", "tool_result"]
    [result] = turn.data("tool_result")
    assert result["is_error"] is True
    assert "read_file" in result["content"], "it names those that there are"
    assert turn.text == "end"


@pytest.mark.parametrize("command", ["/badjson write_file", "/cutcall write_file"])
def test_an_input_that_is_no_json_never_runs(api: Api, session: str, command: str) -> None:
    turn = api.send(session, f"{command}\n/then\nend")

    assert kinds_of_call(turn) == ["tool_use.start", "tool_use.input_delta", "tool_use.stop", "tool_result"]
    assert turn.data("tool_result")[0]["is_error"] is True
    assert turn.text == "end"


@pytest.mark.parametrize(
    "arguments", ['{"path": 7, "content": "x"}', '{"path": "x"}', "{}", '{"path": "x", "content": null}']
)
def test_an_input_that_does_not_fit_the_schema_is_shown_and_answered(api: Api, session: str, arguments: str) -> None:
    turn = api.send(session, f"/call write_file {arguments}\n/then\nend")

    assert turn.data("tool_use.executing")[0]["input"] == json.loads(arguments)
    [result] = turn.data("tool_result")
    assert result["is_error"] is True
    assert "schema" in result["content"]
    assert turn.text == "end"


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "null", "7", "true"])
def test_an_input_that_is_no_object_never_runs(api: Api, session: str, arguments: str) -> None:
    turn = api.send(session, f"/call list_files {arguments}\n/then\nend")

    assert turn.data("tool_use.executing") == []
    assert turn.data("tool_result")[0]["is_error"] is True
    assert turn.text == "end"


def test_parallel_calls_of_one_step_each_have_a_result(api: Api, session: str) -> None:
    calls = [call("write_file", path=f"{n}.txt", content=str(n)) for n in range(20)]

    turn = api.send(session, "\n".join(["/interleave", *calls, "/then", "end"]))

    started = [data["id"] for data in turn.data("tool_use.start")]
    assert len(set(started)) == 20
    assert {data["id"] for data in turn.data("tool_result")} == set(started)
    assert [data["input"]["path"] for data in turn.data("tool_use.executing")] == [f"{n}.txt" for n in range(20)]
    assert turn.usage["tool_calls"] == 20


@pytest.mark.slow
def test_a_hostile_pattern_hangs_nobody(api: Api, session: str) -> None:
    run(api, session, call("write_file", path="a.txt", content="a" * 200_000 + "!"))
    with api.sending(session, call("search_files", pattern="(a*)*(a|a)*(b|a+)*$") + "\n/then\nend") as live:
        assert api.ask("hi").ending == "message.completed"
        events = live.rest()

    assert events[-1][0] == "message.completed"


def test_tools_can_be_turned_off(demo: Server, serve: Any) -> None:
    api = serve(TOOLS_ENABLED=False).api()

    turn = api.ask("/call list_files {}\n/then\n/tools")

    assert turn.data("tool_result")[0]["is_error"] is True
    assert turn.text == "Tools on offer: none."
