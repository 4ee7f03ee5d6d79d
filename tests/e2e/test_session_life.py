"""How sessions, their rows, their files and their events go: by time, by DELETE, and never under a running turn."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from clients import strict
from e2e import wire
from e2e.harness import Api, Server, eventually, stalled_reader

pytestmark = pytest.mark.slow

IDLE_TTL_S = 0.5
SWEPT_S = 12.0
"""By then a sweep has gone by, every 5 s or more often, on a busy machine too."""


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose idle sessions go soon."""
    with Server(tmp_path_factory.mktemp("brief"), IDLE_TTL_S=IDLE_TTL_S) as server:
        yield server


@pytest.fixture
def caller(brief: Server) -> Api:
    return brief.api()


def is_gone(api: Api, session: str) -> bool:
    return api.request("GET", f"/v1/sessions/{session}").status_code == 404


def when_gone(api: Api, session: str) -> None:
    eventually(lambda: is_gone(api, session), SWEPT_S, 0.05)


def rows_of(server: Server, session: str, response_ids: list[str]) -> dict[str, int]:
    """How many rows the database has of a session and its turns, by table; those without any left out."""
    marks = ",".join("?" * len(response_ids))
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)) as db:
        turns = [n for (n,) in db.execute(f"SELECT n FROM turns WHERE id IN ({marks})", response_ids)]
        turns += [-n for n in _turn_numbers(db) if n not in turns]  # what belongs to no turn that there is
        counts = {
            "sessions": db.execute("SELECT count(*) FROM sessions WHERE id = ?", (session,)).fetchone()[0],
            "turns": len([n for n in turns if n > 0]),
        }
        for table in ("turn_bodies", "segments", "history", "calls"):
            counts[table] = sum(
                db.execute(f"SELECT count(*) FROM {table} WHERE turn = ?", (abs(n),)).fetchone()[0] for n in turns
            )
    return {table: count for table, count in counts.items() if count}


def _turn_numbers(db: sqlite3.Connection) -> set[int]:
    """Numbers of turns that rows speak of, but that are not there."""
    tables = ("turn_bodies", "segments", "history", "calls")
    selects = " UNION ".join(f"SELECT turn FROM {table}" for table in tables)
    return {n for (n,) in db.execute(f"SELECT turn FROM ({selects}) WHERE turn NOT IN (SELECT n FROM turns)")}


def private_folders(server: Server) -> list[Path]:
    return list(server.data_dir.glob("workspaces/*/private/*"))


def test_a_session_that_is_not_persistent_outlives_its_last_turn_by_the_idle_time(brief: Server, caller: Api) -> None:
    never_used = caller.create()["id"]
    used = caller.create()["id"]

    # The turn takes longer than the idle time and several sweeps: it is not cut off.
    turn = caller.send(used, "/text a\n/stall 1.5\n/text b")
    ended = time.monotonic()
    assert turn.text == "ab"
    assert is_gone(caller, never_used), "it never had a turn"
    assert caller.session(used)["busy"] is False
    when_gone(caller, used)

    assert time.monotonic() - ended > IDLE_TTL_S * 0.9
    caller.refused("GET", f"/v1/sessions/{used}/responses/{turn.id}/events", 404, "not_found")
    assert used not in [record["id"] for record in caller.get("/v1/sessions")]
    eventually(lambda: rows_of(brief, used, [turn.id]) == {}, SWEPT_S)


def test_a_persistent_session_lives_until_its_ttl_and_a_running_turn_ends_first(caller: Api) -> None:
    ages = caller.create(persistent=True)["id"]
    passing = caller.create(persistent=True, ttl=1)["id"]
    extended = caller.create(persistent=True, ttl=1)["id"]
    caller.request("PATCH", f"/v1/sessions/{extended}", status=200, json={"ttl": 3600})

    turn = caller.send(passing, "/text a\n/stall 2.5\n/text b")

    assert turn.ending == "message.completed"
    assert turn.text == "ab"
    when_gone(caller, passing)
    assert caller.session(extended)["ttl"] == 3600
    assert caller.session(ages)["ttl"] == 14400


def test_a_delete_during_a_turn_ends_it_and_takes_rows_and_private_files(brief: Server, caller: Api) -> None:
    session = caller.create(persistent=True, workspace="private")["id"]
    other = caller.create(persistent=True, workspace="private")["id"]
    shared = caller.create(persistent=True)["id"]
    for owner in (session, other, shared):
        caller.request("PUT", f"/v1/sessions/{owner}/files/b.txt", status=201, content=b"mine")
    first = caller.send(session, '/call write_file {"path": "c.txt", "content": "more"}')
    kept = caller.send(other, "hello")
    assert len(private_folders(brief)) == 2

    with caller.sending(session, "/text a\n/stall 30") as live:
        live.until("text.delta")
        with caller.following(session, live.id) as second:
            caller.request("DELETE", f"/v1/sessions/{session}", status=204)
            for path in ("", "/messages", "/responses", f"/responses/{live.id}", "/files"):
                caller.refused("GET", f"/v1/sessions/{session}{path}", 404, "not_found")
            caller.refused("POST", f"/v1/sessions/{session}/messages", 404, "not_found", json={"message": "x"})
            caller.refused("DELETE", f"/v1/sessions/{session}", 404, "not_found")
            events, seconds = live.rest(), second.rest()

    wire.check_turn(events)
    assert events[-1][0] == "message.cancelled"
    assert seconds == events
    eventually(lambda: rows_of(brief, session, [first.id, live.id]) == {}, SWEPT_S)
    eventually(lambda: [folder.name for folder in private_folders(brief)] == [other], SWEPT_S)
    assert caller.follow(other, kept.id).events == kept.events
    assert caller.http.get(f"/v1/sessions/{other}/files/b.txt").content == b"mine"
    assert caller.http.get(f"/v1/sessions/{shared}/files/b.txt").content == b"mine"


def test_a_session_that_was_deleted_before_a_crash_goes_after_it(serve: Any) -> None:
    server = serve(SHUTDOWN_GRACE_S=0)
    api = server.api()
    session = api.create(workspace="private")["id"]
    api.request("PUT", f"/v1/sessions/{session}/files/a.txt", status=201, content=b"mine")
    with api.sending(session, "/text a\n/stall 30") as live:
        live.until("text.delta")
        api.request("DELETE", f"/v1/sessions/{session}", status=204)
        server.kill()

    server.restart(IDLE_TTL_S=IDLE_TTL_S)

    assert is_gone(api, session)
    eventually(lambda: rows_of(server, session, [live.id]) == {}, SWEPT_S)
    eventually(lambda: private_folders(server) == [], SWEPT_S)


def test_a_bulk_delete_takes_all_that_are_idle_and_holds_up_no_running_turn(brief: Server, caller: Api) -> None:
    """700 sessions: more than one transaction marks, and more than many bites of the sweeper take."""
    for record in caller.get("/v1/sessions", params={"limit": 1000}):
        caller.request("DELETE", f"/v1/sessions/{record['id']}", status=204)
    idle = [caller.create(persistent=True, workspace="private")["id"] for _ in range(700)]
    turns = [caller.send(session, "/stream 20").id for session in idle[:30]]
    busy = caller.create(persistent=True)["id"]
    gaps: list[float] = []

    with caller.sending(busy, "/stream 90 30") as live:
        live.until("text.delta")
        assert caller.request("DELETE", "/v1/sessions?status=idle", status=200).json() == {"deleted": 700}
        assert [record["id"] for record in caller.get("/v1/sessions")] == [busy]
        last = time.monotonic()
        while live.next()[0] == "text.delta":
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    assert len(gaps) > 30
    assert max(gaps) < 1.5, "deltas come every 33 ms; the sweeper may not hold them up"
    assert caller.request("DELETE", "/v1/sessions?older_than=1h", status=200).json() == {"deleted": 0}
    eventually(lambda: sum(rows_of(brief, session, turns).get("sessions", 0) for session in idle[:5]) == 0, SWEPT_S)
    eventually(lambda: rows_of(brief, idle[0], turns) == {}, SWEPT_S)
    assert private_folders(brief) == []


def test_events_past_their_retention_are_gone_and_the_conversation_stays(serve: Any) -> None:
    server = serve(REPLAY_RETENTION_S=1)
    api = server.api()
    session, running = (api.create(persistent=True)["id"] for _ in range(2))

    with api.sending(running, "/text a\n/stall 6\n/text b") as live:
        live.until("text.delta")
        turn = api.send(session, "/think hm\n/call list_files {}\n/then\n/text bye")
        path = f"/v1/sessions/{session}/responses/{turn.id}"
        assert api.follow(session, turn.id).events == turn.events, "until then they are there"
        conversation = api.messages(session)
        eventually(lambda: "segments" not in rows_of(server, session, [turn.id]), SWEPT_S)
        api.refused("GET", f"{path}/events", 404, "not_found")
        api.refused("GET", f"{path}/events", 404, "not_found", headers={"Last-Event-ID": "1"})
        assert api.follow(running, live.id).text == "ab", "a running turn keeps its events, however old"
        live.rest()

    assert api.messages(session) == conversation
    record = api.get(path)
    assert (record["status"], record["last_sequence_number"]) == ("completed", len(turn.events) - 1)
    # The last event was the last, whether or not the others are kept: EventSource must stop.
    api.request("GET", f"{path}/events", status=204, headers={"Last-Event-ID": str(len(turn.events) - 1)})
    assert "bye" in api.send(session, "/history").text


@pytest.mark.parametrize("way", ["retention", "delete"])
def test_a_reader_whose_events_go_meanwhile_is_cut_off_and_gets_no_clean_end(serve: Any, way: str) -> None:
    server = serve(REPLAY_RETENTION_S=0.3 if way == "retention" else None, IDLE_TTL_S=1)
    api = server.api()
    session = api.create(persistent=True)["id"]
    with api.sending(session, "/text a\n/stall 0.2\n" + "/big 1000000\n" * 12) as live:
        pass
    with stalled_reader(server, f"/v1/sessions/{session}/responses/{live.id}/events") as reader:
        api.when_idle(session)
        if way == "delete":
            api.request("DELETE", f"/v1/sessions/{session}", status=204)
        eventually(lambda: "segments" not in rows_of(server, session, [live.id]), SWEPT_S)
        reader.settimeout(20)
        received = b"".join(iter(lambda: reader.recv(1 << 20), b""))

    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    with pytest.raises(strict.WireError):
        strict.unchunk(body)
    assert b"event: message.created" in body
    assert b"event: message.completed" not in body
    assert "stream_cut" in server.log
