"""More than the server takes, a disk without room, a damaged database: what is told, and what is kept."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from clients import strict
from e2e.harness import Api, Live, Server, eventually, stalled_reader

STALL = "/text a\n/stall 30"


def messages(session: str) -> str:
    return f"/v1/sessions/{session}/messages"


def sessions(api: Api, count: int) -> list[str]:
    return [api.create()["id"] for _ in range(count)]


def refused(api: Api, session: str, status: int, error: str) -> None:
    """A message is refused, with a Retry-After (which every answer is checked for), and begins nothing."""
    api.refused("POST", messages(session), status, error, json={"message": "hello"})
    assert api.responses(session) == []
    assert api.session(session)["busy"] is False


def cancel(api: Api, session: str, live: Live) -> None:
    api.request("POST", f"/v1/sessions/{session}/responses/{live.id}/cancel", status=202)
    assert live.rest()[-1][0] == "message.cancelled"
    api.when_idle(session)


def test_the_limit_of_turns_is_told_and_places_are_given_back(serve: Callable[..., Server]) -> None:
    api = serve(TURNS_MAX=2, TURNS_PER_TENANT_MAX=5).api()
    one, two, three = sessions(api, 3)

    with api.sending(one, STALL) as first, api.sending(two, STALL) as second:
        refused(api, three, 503, "unavailable")
        # What begins no turn goes on.
        assert api.session(one)["busy"] is True
        assert api.create()["busy"] is False
        cancel(api, one, first)
        assert api.send(three, "/text works").text == "works"
        cancel(api, two, second)

    # However a turn ends, or a message is refused, the place is free again.
    for _ in range(3):
        assert api.send(one, "/fail before 400").ending == "message.error"
        api.refused("POST", messages(one), 400, "invalid_request", json={"message": ""})
        api.refused("POST", messages(one), 400, "invalid_request", json={"message": "x", "model": "none"})
        api.refused("POST", messages("sess_000000000000"), 404, "not_found", json={"message": "x"})
        with api.sending(one, "/stall 0.1"):
            api.refused("POST", messages(one), 409, "session_busy", json={"message": "x"})
        api.when_idle(one)
    with api.sending(one, STALL) as first, api.sending(two, STALL) as second:
        refused(api, api.create()["id"], 503, "unavailable")
        cancel(api, one, first)
        cancel(api, two, second)


def test_the_limit_of_a_tenants_turns_is_its_own(serve: Callable[..., Server]) -> None:
    server = serve(TURNS_PER_TENANT_MAX=1)
    api = server.api()
    other = server.api(server.run("keys", "create", "other", "--tenant", "other").split()[-1])
    one, two = sessions(api, 2)

    with api.sending(one, STALL) as live:
        refused(api, two, 429, "rate_limited")
        assert other.ask("/text mine").text == "mine"
        cancel(api, one, live)
    assert api.send(two, "/text now").text == "now"


def test_of_a_storm_no_more_turns_begin_than_may(serve: Callable[..., Server]) -> None:
    api = serve(TURNS_MAX=5, TURNS_PER_TENANT_MAX=100).api()
    many = sessions(api, 40)
    barrier = threading.Barrier(len(many))

    def post(session: str) -> httpx.Response:
        barrier.wait()
        return api.request("POST", messages(session), json={"message": "/text a\n/stall 1.5"})

    with ThreadPoolExecutor(len(many)) as pool:
        answers = list(pool.map(post, many))

    assert sorted({answer.status_code for answer in answers}) == [200, 503]
    assert sum(answer.status_code == 200 for answer in answers) == 5
    assert len(api.get("/v1/sessions", params={"status": "idle"})) == 40


def test_the_limit_of_streams_is_told_and_places_are_given_back(serve: Callable[..., Server]) -> None:
    server = serve(STREAMS_MAX=3)
    api = server.api()
    one, two = sessions(api, 2)

    with ExitStack() as stack:
        live = stack.enter_context(api.sending(one, STALL))
        followers = [stack.enter_context(api.following(one, live.id)) for _ in range(2)]
        api.refused("GET", f"/v1/sessions/{one}/responses/{live.id}/events", 503, "unavailable")
        refused(api, two, 503, "unavailable")
        followers[0].close()
        assert eventually(lambda: api.request("POST", messages(two), json={"message": "/text b"}).status_code == 200)
        api.request("POST", f"/v1/sessions/{one}/responses/{live.id}/cancel", status=202)
        assert live.rest()[-1][0] == followers[1].rest()[-1][0] == "message.cancelled"

    # Neither a finished stream nor one that was refused, nothing to follow, or a 204 keeps a place.
    turn = api.send(two, "/text c")
    path = f"/v1/sessions/{two}/responses/{turn.id}/events"
    for _ in range(5):
        assert api.follow(two, turn.id).text == "c"
        api.request("GET", path, status=204, headers={"Last-Event-ID": str(len(turn.events) - 1)})
        api.refused("GET", path, 400, "invalid_request", headers={"Last-Event-ID": "1000"})
        api.refused("GET", f"/v1/sessions/{one}/responses/{turn.id}/events", 404, "not_found")
        api.refused("POST", messages(two), 400, "invalid_request", json={"message": ""})


def test_of_a_storm_no_more_streams_open_than_may(serve: Callable[..., Server]) -> None:
    server = serve(STREAMS_MAX=6)
    api = server.api()
    session = api.create()["id"]
    barrier = threading.Barrier(40)

    with api.sending(session, "/text a\n/stall 2") as live:

        def follow(_: int) -> int:
            barrier.wait()
            path = f"/v1/sessions/{session}/responses/{live.id}/events"
            return api.request("GET", path).status_code

        with ThreadPoolExecutor(40) as pool:
            statuses = list(pool.map(follow, range(40)))

    assert statuses.count(200) == 5, "the sixth is the turn's own"
    assert statuses.count(503) == 35


# A disk without room


@pytest.mark.slow
@pytest.mark.tool("unshare")
def test_a_full_disk_loses_nothing_and_the_server_works_again_when_there_is_room(tmp_path: Path) -> None:
    """In a mount namespace of its own, on a file system of 24 MiB: see full_disk.py."""
    script = 'mount -t tmpfs -o size=24m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
    disk, logs = tmp_path / "disk", tmp_path / "logs"
    disk.mkdir()
    logs.mkdir()
    program = Path(__file__).with_name("full_disk.py")
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", str(disk), sys.executable, str(program), str(logs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


# A damaged database


@pytest.fixture
def used(serve: Callable[..., Server]) -> Server:
    """A server that was used, and has stopped."""
    server = serve()
    api = server.api()
    for text in ("first", "second"):
        api.ask(f"/text {text}", session={"persistent": True})
    assert server.stop() == 0
    return server


def check_refusal(server: Server, *needles: str) -> None:
    code, said = server.refused()
    assert code == 1
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1, said
    for needle in (str(server.database), *needles):
        assert needle in said, said
    assert "Traceback" not in said


def test_a_database_that_is_cut_off_is_refused(used: Server) -> None:
    os.truncate(used.database, used.database.stat().st_size - 4096)

    check_refusal(used, "cut off", "restore a backup")


def test_a_database_of_a_newer_version_is_refused(used: Server) -> None:
    with closing(sqlite3.connect(used.database)) as db:
        db.execute("PRAGMA user_version = 999")

    check_refusal(used, "999", "newer turnwire")


def test_a_database_of_another_program_or_none_is_refused(used: Server) -> None:
    with closing(sqlite3.connect(used.database)) as db:
        db.execute("PRAGMA application_id = 1")
    check_refusal(used, "another program")

    used.database.write_bytes(b"This is a letter to my landlord.\n" * 400)
    check_refusal(used, "no SQLite database")


def test_a_database_whose_newest_events_are_damaged_is_refused(used: Server) -> None:
    flip(used.database, b'"content":"second"')

    check_refusal(used, "damaged", "restore a backup")


def test_a_database_whose_pages_are_damaged_is_refused(used: Server) -> None:
    content = bytearray(used.database.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    used.database.write_bytes(content)

    check_refusal(used, "damaged")


def flip(path: Path, needle: bytes) -> None:
    """Flip a bit in every place of the file that holds these bytes."""
    content = bytearray(path.read_bytes())
    found = [match.start() for match in re.finditer(re.escape(needle), bytes(content))]
    assert found
    for at in found:
        content[at + len(needle) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_segment_in_an_old_turn_ends_its_stream_without_a_wrong_event(serve: Callable[..., Server]) -> None:
    server = serve()
    api = server.api()
    session = api.create(persistent=True)["id"]
    old = api.send(session, "/stream 30000\n/stall 0.1\n/text the needle\n/stall 0.1\n/stream 30000", event_ids=True)
    for _ in range(300):  # at the start the newest segments are checked: this one is to be older
        api.send(session, "/text a")
    newest = api.send(session, "/text b")
    server.stop()
    flip(server.database, b'"content":"needle"')
    server.restart()

    path = f"/v1/sessions/{session}/responses/{old.id}/events"
    head, body = read_raw(server, path)
    assert head.startswith(b"HTTP/1.1 200 ")
    with pytest.raises(strict.WireError):
        strict.unchunk(body)
    received = b"".join(chunks(body))
    assert 0 < len(received) < len(old.content)
    assert old.content.startswith(received), "a wrong byte"
    assert b"needle" not in received
    assert old.id in server.log and "not what was written" in server.log
    # Behind the damage there is nothing wrong.
    last = len(old.events) - 1
    assert api.follow(session, old.id, after=last - 1).ending == "message.completed"
    # And the others are whole.
    assert api.follow(session, newest.id).events == newest.events
    assert api.send(session, "/text on").text == "on"


def read_raw(server: Server, path: str) -> tuple[bytes, bytes]:
    """Head and body of an answer, as far as they came."""
    with stalled_reader(server, path) as reader:
        reader.settimeout(20)
        head, _, body = b"".join(iter(lambda: reader.recv(1 << 20), b"")).partition(b"\r\n\r\n")
    return head, body


def chunks(body: bytes) -> Iterator[bytes]:
    """What the chunks of a body hold, the one that is cut off included."""
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
