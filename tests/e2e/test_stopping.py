"""The server's beginning and end: refusals to start, draining, kills, and what becomes of turns."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e import wire
from e2e.harness import Server, eventually

pytestmark = pytest.mark.slow

Serve = Callable[..., Server]


def refusal(server: Server, code: int) -> str:
    """The one sentence of a start that fails."""
    exit_code, said = server.refused()
    lines = [line for line in said.splitlines() if line.strip()]
    assert exit_code == code, said
    assert len(lines) == 1, said
    assert lines[0].startswith("turnwire: ")
    assert lines[0].endswith("."), said
    assert "Traceback" not in said
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_at_once_and_leaves_nobody_behind(serve: Serve, number: int) -> None:
    server = serve()
    group = os.getpgid(server.pid)
    keep_alive = server.api()
    keep_alive.get("/health")
    began = time.monotonic()

    assert server.stop(number) == 0

    assert time.monotonic() - began < 6
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_stop_lets_a_turn_end_and_refuses_new_ones_meanwhile(serve: Serve) -> None:
    server = serve()
    api = server.api()
    session, other = api.create()["id"], api.create()["id"]

    with api.sending(session, "/stream 30 20") as live:
        live.until("text.delta")
        server.send_signal(signal.SIGTERM)
        eventually(lambda: api.request("GET", "/health/ready").status_code == 503)
        refused = api.refused("POST", f"/v1/sessions/{other}/messages", 503, "unavailable", json={"message": "x"})
        events = live.rest()

    assert int(refused.headers["retry-after"]) >= 1
    wire.check_turn(events)
    assert events[-1][0] == "message.completed"
    assert server.wait(6) == 0
    server.restart()
    assert len(server.api().responses(other)) == 0
    assert server.api().follow(session, live.id).events == events


def test_a_turn_that_outlasts_the_grace_is_cut_off_without_an_ending_and_goes_on_at_the_next_start(
    serve: Serve,
) -> None:
    server = serve(SHUTDOWN_GRACE_S=0.5)
    api = server.api()
    session = api.create(persistent=True)["id"]

    with api.sending(session, "/stream 60 20", event_ids=True) as live:
        live.until("text.delta")
        server.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            live.rest()
    assert server.wait(6) == 0
    assert b"message.completed" not in live.content
    assert b"message.error" not in live.content
    server.restart()

    turn = server.api().follow(session, live.id)
    assert turn.content.startswith(live.content[: live.content.rindex(b"\n\n") + 2])
    [resumed] = turn.data("message.resumed")
    assert (resumed["reason"], resumed["superseded_from"]) == ("server_restarted", 1)
    assert turn.ending == "message.completed"
    assert turn.text == "".join(f"{n} " for n in range(1, 61))
    assert server.api().messages(session)[1]["content"] == [{"type": "text", "text": turn.text}]


def test_a_second_signal_goes_at_once(serve: Serve) -> None:
    server = serve(SHUTDOWN_GRACE_S=60)
    api = server.api()
    session = api.create(persistent=True)["id"]

    with api.sending(session, "/text a\n/stall 50") as live:
        live.until("text.delta")
        server.send_signal(signal.SIGINT)
        eventually(lambda: api.request("GET", "/health/ready").status_code == 503)
        began = time.monotonic()
        server.send_signal(signal.SIGINT)
        assert server.wait(10) in (0, 130)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("recovery", ["continue", "fail"])
def test_a_kill_during_a_turn_never_leaves_its_session_busy(serve: Serve, recovery: str) -> None:
    server = serve(RECOVERY=recovery)
    api = server.api()
    session = api.create(persistent=True)["id"]
    with api.sending(session, "/text before\n/stall 0.5\n/text after") as live:
        live.until("text.delta")
        server.kill()
    server.restart()

    api = server.api()
    api.when_idle(session)

    turn = api.follow(session, live.id)
    assert turn.ending == ("message.completed" if recovery == "continue" else "message.error")
    if recovery == "continue":
        assert turn.text == "beforeafter"
    assert "before" in api.send(session, "/history").text


def test_a_kill_between_a_call_and_its_result_leaves_a_conversation_that_goes_on(serve: Serve) -> None:
    server = serve()
    api = server.api()
    session = api.create(persistent=True, workspace="private")["id"]
    write = '/call write_file {"path": "x", "content": "1"}'
    with api.sending(session, f"{write}\n/call list_files {{}}\n/then\n/stall 0.6\nend") as live:
        live.until("tool_result")
        server.kill()
    server.restart()

    api = server.api()
    api.when_idle(session)
    turn = api.follow(session, live.id)

    assert turn.ending == "message.completed"
    assert len(turn.data("tool_use.start")) == len(turn.data("tool_result")) == 2
    assert "assistant" in api.send(session, "/history").text


def test_a_turn_that_kills_its_server_each_time_is_given_up(serve: Serve) -> None:
    server = serve(RECOVERIES_MAX=1)
    session = server.api().create(persistent=True)["id"]
    with server.api().sending(session, "/text a\n/stall 30") as live:
        live.until("text.delta")
        server.kill()
    server.restart()
    server.kill()
    server.restart()

    turn = server.api().follow(session, live.id)

    assert turn.ending == "message.error"
    assert "given up" in turn.error


def test_a_cancel_holds_over_a_kill(serve: Serve) -> None:
    server = serve()
    api = server.api()
    session = api.create(persistent=True)["id"]
    with api.sending(session, "/text a\n/stall 30") as live:
        live.until("text.delta")
        api.request("POST", f"/v1/sessions/{session}/responses/{live.id}/cancel", status=202)
        server.kill()
    server.restart()

    assert server.api().follow(session, live.id).ending == "message.cancelled"


def test_a_second_start_finds_what_the_first_one_left(serve: Serve) -> None:
    server = serve(key=None)
    key = (server.data_dir / "key").read_text().strip()
    session = server.api(key).create(persistent=True, metadata={"a": "ü"})["id"]
    server.api(key).send(session, "hello")
    messages = server.api(key).messages(session)
    assert server.stop() == 0

    server.restart()

    assert server.api(key).messages(session) == messages
    assert server.api(key).session(session)["metadata"] == {"a": "ü"}
    assert (server.data_dir / "key").stat().st_mode & 0o777 == 0o600
    assert key not in server.log
    assert key not in "\n".join(server.start_lines), "the output is no terminal"


# Starts that fail


def unstarted(folder: Path, **options: Any) -> Server:
    folder.mkdir(exist_ok=True)
    return Server(folder, **options)


def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = refusal(unstarted(tmp_path / "a", port=port), 1)

    assert str(port) in sentence


def test_a_data_folder_in_use_is_said_in_a_sentence(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    second = unstarted(tmp_path / "b")
    second.data_dir = server.data_dir

    sentence = refusal(second, 1)

    assert str(server.pid) in sentence
    assert server.api().get("/health")["status"] == "ok"


def test_a_data_folder_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    server = unstarted(tmp_path / "c")
    server.data_dir = Path("/proc/turnwire-data")

    assert "/proc/turnwire-data" in refusal(server, 1)


def test_a_data_folder_that_is_a_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    server = unstarted(tmp_path / "d")
    server.data_dir.write_text("x")

    assert str(server.data_dir) in refusal(server, 1)


def test_a_database_that_is_none_is_said_in_a_sentence(tmp_path: Path) -> None:
    server = unstarted(tmp_path / "e")
    server.data_dir.mkdir()
    server.database.write_bytes(b"no database at all" * 100)

    assert "database" in refusal(server, 1)


@pytest.mark.parametrize(
    ("settings", "model", "named"),
    [
        ({"PORT": "70000", "HEARTBEAT_INTERVAL_S": "x"}, "demo", "HEARTBEAT_INTERVAL_S"),
        ({"EVENT_IDS": "perhaps"}, "demo", "TURNWIRE_EVENT_IDS"),
        ({"HEARTBEAT_INTERVALL_S": "1"}, "demo", "HEARTBEAT_INTERVAL_S"),
        ({"STEP_RETRIES": "-1"}, "demo", "STEP_RETRIES"),
        ({"RECOVERY": "maybe"}, "demo", "RECOVERY"),
        ({}, "nope:model", "nope:model"),
        ({}, "anthropic:claude-sonnet-5-5", "ANTHROPIC_API_KEY"),
        ({}, "scripted:/no/such/file.yaml", "/no/such/file.yaml"),
    ],
)
def test_a_bad_setting_is_said_in_a_sentence_that_names_it(
    tmp_path: Path, settings: dict[str, str], model: str, named: str
) -> None:
    server = unstarted(tmp_path / "f", model=model, **settings)

    exit_code, said = server.refused()

    assert exit_code in (1, 2), said
    assert named in said
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said


def test_a_wrong_option_is_a_usage_error(tmp_path: Path) -> None:
    server = unstarted(tmp_path / "g", args=("--no-such-option",))

    exit_code, said = server.refused()

    assert exit_code == 2
    assert "--no-such-option" in said


def test_nobody_hangs_on_a_server_that_was_stopped_before_it_was_up(tmp_path: Path) -> None:
    server = unstarted(tmp_path / "h")
    process = server.launch()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode in (0, -signal.SIGTERM, 130, 143)
