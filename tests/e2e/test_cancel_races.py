"""Cancel as a race, on a real server: against the turn's own end, against itself, against a death; one right answer
each, within a second."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e import wire
from e2e.harness import Api, Server

SILENT = {
    "before its first word": "/stall 60",
    "in a text": "/text w\n/stall 60",
    "in its thinking": "/think w\n/stall 60",
    "behind a call": "/call list_files {}\n/stall 60",
    "in a second step": "/call list_files {}\n/then\n/stall 60",
}


def path_of(session: str, response_id: str) -> str:
    return f"/v1/sessions/{session}/responses/{response_id}/cancel"


@pytest.mark.parametrize("where", SILENT)
def test_a_silent_provider_is_no_reason_to_wait(api: Api, where: str) -> None:
    session = api.create()["id"]

    with api.sending(session, SILENT[where]) as live:
        time.sleep(0.2)
        begun = time.monotonic()
        api.request("POST", path_of(session, live.id), status=202)
        events = live.rest()
    took_s = time.monotonic() - begun

    wire.check_turn(events)
    assert events[-1][0] == "message.cancelled"
    assert took_s < 1.0
    assert api.session(session)["busy"] is False


@pytest.mark.parametrize("delay_ms", range(0, 60, 3))
def test_a_cancel_beside_the_turns_own_end_says_what_became_of_it(api: Api, delay_ms: int) -> None:
    session = api.create()["id"]

    with api.sending(session, "/stream 10 300") as live:
        time.sleep(delay_ms / 1000)
        answer = api.request("POST", path_of(session, live.id))
        events = live.rest()

    wire.check_turn(events)
    expected = {202: ("cancelling", "message.cancelled"), 200: ("already_complete", "message.completed")}
    assert (answer.json()["status"], events[-1][0]) == expected[answer.status_code]
    assert api.send(session, "/text on").ending == "message.completed"


def test_many_cancels_at_once_are_one(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/text w\n/stall 60") as live, ThreadPoolExecutor(8) as pool:
        path = path_of(session, live.id)
        answers = list(pool.map(lambda _: api.request("POST", path), range(16)))
        events = live.rest()

    assert {(answer.status_code, answer.json()["status"]) for answer in answers} <= {
        (202, "cancelling"),
        (200, "already_complete"),
    }
    assert [kind for kind, _ in events].count("message.cancelled") == 1
    assert api.request("POST", path, status=200).json()["status"] == "already_complete"


@pytest.mark.slow
def test_a_turn_is_cancelled_while_it_is_taken_up(serve: Callable[..., Server]) -> None:
    server = serve()
    sessions = []
    with server.api() as api:
        for _ in range(5):
            session = api.create()["id"]
            with api.sending(session, "/text w\n/stall 60") as live:
                live.until("text.delta")
                sessions.append((session, live.id))
    server.kill()
    server.restart()

    with server.api() as api:
        for session, response_id in sessions:
            begun = time.monotonic()
            api.request("POST", path_of(session, response_id), status=202)
            turn = api.follow(session, response_id)
            assert time.monotonic() - begun < 1.0
            assert turn.ending == "message.cancelled"
            assert api.session(session)["busy"] is False
