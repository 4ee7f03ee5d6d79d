"""The bytes of a stream, and the readers of others."""

import json

import pytest

from clients import strict
from clients.run import client_params, run_client
from e2e import wire
from e2e.harness import Api, Server

EVERYTHING = """/think Let me see.
First some text.
/call write_file {"path": "notes/a.txt", "content": "one\\ntwo"}
/call list_files {}
/usage 100 20 30 40
/then
/unicode
/call read_file {"path": "notes/a.txt"}
/unknown
/badjson read_file
/cutcall read_file
/then
That is all.
"""


def test_a_turn_of_everything_is_exact_to_the_byte(demo: Server, api: Api) -> None:
    session = api.create()["id"]
    body = {"message": EVERYTHING}

    answer = strict.read(demo.url, f"/v1/sessions/{session}/messages", demo.key, body)

    events = strict.frames(answer.body)
    wire.check_turn(events)
    assert {event for event, _ in events} == set(wire.KEYS) - {
        "message.resumed",
        "message.error",
        "message.cancelled",
    }
    assert events[-1][0] == "message.completed"


@pytest.mark.parametrize("name", client_params())
def test_a_client_that_others_wrote_reads_what_was_logged(name: str, demo: Server, api: Api) -> None:
    events = run_client(name, demo.url, demo.key, EVERYTHING)

    wire.check_turn(events)
    created = events[0][1]
    assert api.follow(created["session_id"], created["id"]).events == events


def test_the_json_is_compact_and_escapes_what_tears_lines(demo: Server, api: Api) -> None:
    turn = api.ask("/unicode")

    for raw in ("\u2028", "\u2029", "\u0085"):
        assert raw.encode() not in turn.content
    assert b"\\ud83d" in turn.content
    assert b"\r" not in turn.content
    assert "\ud83d" in turn.text
    assert "👩‍👩‍👧" in turn.text
    assert json.loads(json.dumps(turn.text)) == turn.text
