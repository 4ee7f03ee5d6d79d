"""Idempotency keys: a retry is the same turn, whenever it comes and however often."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from e2e import wire
from e2e.harness import Api, Server, Turn, eventually


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def post(api: Api, session: str, key: str, message: Any = "hello", **body: Any) -> httpx.Response:
    """The answer to a keyed message, read whole, whatever it is."""
    path = f"/v1/sessions/{session}/messages"
    return api.request("POST", path, json={"message": message, **body}, headers=keyed(key))


def refused(api: Api, session: str, key: str, status: int, error: str, message: Any = "hello", **body: Any) -> None:
    path = f"/v1/sessions/{session}/messages"
    api.refused("POST", path, status, error, json={"message": message, **body}, headers=keyed(key))


def test_a_retry_while_the_turn_runs_follows_it_from_its_start(api: Api) -> None:
    session = api.create()["id"]
    message = "/stream 60 60"
    with api.stream(
        "POST", f"/v1/sessions/{session}/messages", json={"message": message}, headers=keyed("k")
    ) as response:
        first = next(response.iter_raw())  # and the caller's line breaks

    retried = api.send(session, message, headers=keyed("k"))

    assert retried.id == response.headers["x-response-id"]
    assert retried.content.startswith(first)
    assert retried.text == "".join(f"{n} " for n in range(1, 61))
    assert [record["id"] for record in api.responses(session)] == [retried.id]
    assert api.send(session, message, headers=keyed("k")).content == retried.content, "finished, it is the same"
    numbered = api.send(session, message, headers=keyed("k"), event_ids=True)
    assert numbered.events == retried.events, "how events are shown is no part of the message"


def test_twenty_simultaneous_retries_start_one_turn(api: Api) -> None:
    session = api.create()["id"]
    barrier = threading.Barrier(20)

    def send(_: int) -> Turn:
        barrier.wait()
        return api.send(session, "/stream 20 40", headers=keyed("storm"))

    with ThreadPoolExecutor(20) as pool:
        turns = list(pool.map(send, range(20)))

    assert len({turn.content for turn in turns}) == 1
    assert [record["id"] for record in api.responses(session)] == [turns[0].id]
    assert [message["role"] for message in api.messages(session)] == ["user", "assistant"]


def test_a_key_is_for_one_message_in_one_session(api: Api) -> None:
    session, other = api.create()["id"], api.create()["id"]
    first = api.send(session, "hello", headers=keyed("mine"))

    refused(api, session, "mine", 422, "idempotency_mismatch", message="hello!")
    refused(api, session, "mine", 422, "idempotency_mismatch", message=[{"type": "text", "text": "hello!"}])
    refused(api, session, "mine", 422, "idempotency_mismatch", model="demo")
    refused(api, other, "mine", 422, "idempotency_mismatch")

    assert api.responses(other) == []
    assert api.send(session, "hello", headers=keyed("mine")).content == first.content
    # Those are not what is compared.
    assert post(api, session, "mine", settings={"temperature": 0.5}).content == first.content
    assert len(api.responses(session)) == 1


def test_a_mismatch_comes_before_busy_and_busy_does_not_use_a_key_up(api: Api) -> None:
    session = api.create()["id"]
    api.send(session, "hello", headers=keyed("before"))

    with api.sending(session, "/stall 0.5") as live:
        live.next()
        refused(api, session, "before", 422, "idempotency_mismatch", message="other")
        assert api.send(session, "hello", headers=keyed("before")).ending == "message.completed", "a replay is not busy"
        refused(api, session, "new", 409, "session_busy", message="next")
        live.rest()
    api.when_idle(session)

    # The refused one may come with anything now, as if it had never been.
    assert api.send(session, "/text another message", headers=keyed("new")).text == "another message"


def test_a_refused_message_does_not_use_its_key_up(api: Api) -> None:
    session = api.create()["id"]
    nowhere = "sess_000000000000"

    for message in ("", "  ", [], 5, [{"type": "image", "path": "no.png"}]):
        refused(api, session, "again", 400, "invalid_request", message=message)
    refused(api, session, "again", 400, "invalid_request", model="no such model")
    refused(api, nowhere, "again", 404, "not_found")

    assert api.send(session, "/text now", headers=keyed("again")).text == "now"


def test_a_key_has_from_1_to_255_characters(api: Api) -> None:
    session = api.create()["id"]

    for key in ("", "k" * 256):
        refused(api, session, key, 400, "invalid_request")
    assert api.responses(session) == []
    assert api.send(session, "hello", headers=keyed("k" * 255)).ending == "message.completed"


def test_a_key_of_a_session_that_is_gone_is_not_found(api: Api) -> None:
    session = api.create()["id"]
    api.send(session, "hello", headers=keyed("gone"))
    api.request("DELETE", f"/v1/sessions/{session}", status=204)

    refused(api, session, "gone", 404, "not_found")


def test_a_key_is_its_tenants_own(api: Api) -> None:
    stranger = api.server.api(api.server.run("keys", "create", "other", "--tenant", "other").split()[-1])
    mine, theirs = api.create()["id"], stranger.create()["id"]

    first = api.send(mine, "/text hello", headers=keyed("shared"))
    second = stranger.send(theirs, "/text something else", headers=keyed("shared"))

    assert (first.text, second.text) == ("hello", "something else")
    refused(stranger, mine, "shared", 404, "not_found")


def test_a_turn_that_failed_is_replayed_and_not_tried_again(api: Api) -> None:
    session = api.create()["id"]
    first = api.send(session, "/fail before 400", headers=keyed("failed"))

    again = api.send(session, "/fail before 400", headers=keyed("failed"))

    assert first.ending == "message.error"
    assert again.content == first.content
    assert len(api.responses(session)) == 1


def test_a_running_turn_takes_its_retry_at_the_limit_of_turns(serve: Callable[..., Server]) -> None:
    """The retry begins nothing, so it needs no place; else a caller who lost its line could not come back."""
    api = serve(TURNS_MAX=1, TURNS_PER_TENANT_MAX=1).api()
    session, other = api.create()["id"], api.create()["id"]
    message = "/text a\n/stall 1"

    with api.stream("POST", f"/v1/sessions/{session}/messages", json={"message": message}, headers=keyed("k")):
        pass
    refused(api, other, "k2", 429, "rate_limited")
    retried = api.send(session, message, headers=keyed("k"))

    assert retried.text == "a"
    assert len(api.responses(session)) == 1


@pytest.mark.slow
def test_keys_are_kept_over_restarts_and_a_draining_server_uses_none_up(serve: Callable[..., Server]) -> None:
    server = serve(SHUTDOWN_GRACE_S=20)
    api = server.api()
    session, other = api.create()["id"], api.create()["id"]
    finished = api.send(session, "hello", headers=keyed("finished"))

    message = "/text a\n/stall 1\n/text b"
    with api.stream(
        "POST", f"/v1/sessions/{other}/messages", json={"message": message}, headers=keyed("k")
    ) as response:
        server.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in server.log)
        refused(api, session, "late", 503, "unavailable", message="late")
        content = response.read()
    assert wire.text_of(api.check_stream(response, content)) == "ab"
    assert server.wait() == 0

    server.restart()
    assert api.send(session, "hello", headers=keyed("finished")).content == finished.content
    assert api.send(other, message, headers=keyed("k")).content == content
    refused(api, session, "finished", 422, "idempotency_mismatch", message="other")
    assert api.send(session, "/text late", headers=keyed("late")).text == "late"
    assert len(api.responses(session)) == 2


@pytest.mark.slow
def test_a_retry_after_a_crash_follows_the_turn_that_goes_on(serve: Callable[..., Server]) -> None:
    server = serve()
    api = server.api()
    session = api.create()["id"]
    message = "/text a\n/stall 0.5\n/stream 20 20"
    with api.stream(
        "POST", f"/v1/sessions/{session}/messages", json={"message": message}, headers=keyed("k")
    ) as response:
        first = next(response.iter_raw())
        server.kill()
    server.restart()

    retried = api.send(session, message, headers=keyed("k"))

    assert retried.id == response.headers["x-response-id"]
    assert retried.content.startswith(first)
    assert "message.resumed" in [name for name, _ in retried.events]
    assert len(api.responses(session)) == 1


@pytest.mark.slow
def test_a_retry_when_the_events_are_gone_is_told_so(serve: Callable[..., Server]) -> None:
    api = serve(REPLAY_RETENTION_S=0.2).api()
    session = api.create()["id"]
    turn = api.send(session, "/text hello", headers=keyed("k"))
    events = f"/v1/sessions/{session}/responses/{turn.id}/events"
    eventually(lambda: api.request("GET", events).status_code == 404, 12)

    answer = post(api, session, "k", message="/text hello")

    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["response_id", "status", "note"]
    assert (body["response_id"], body["status"]) == (turn.id, "replayed")
    refused(api, session, "k", 422, "idempotency_mismatch", message="other")
    assert len(api.responses(session)) == 1
    assert api.messages(session)[1]["content"] == [{"type": "text", "text": "hello"}]


def make(api: Api, key: str, **body: Any) -> dict[str, Any]:
    return api.request("POST", "/v1/sessions", json=body, headers=keyed(key)).json()


def test_a_session_that_is_made_again_by_its_key_is_the_same_one(api: Api) -> None:
    tool = {"type": "function", "name": "f", "description": "", "parameters": {"type": "object"}}
    body = {"metadata": {"a": 1.5}, "file_access": {"read": ["x"]}, "tools": [tool], "approvals": ["bash"]}
    before = len(api.get("/v1/sessions"))
    barrier = threading.Barrier(10)

    def one(_: int) -> str:
        barrier.wait()
        return make(api, "storm of sessions", **body)["id"]

    with ThreadPoolExecutor(10) as pool:
        ids = set(pool.map(one, range(10)))

    assert len(ids) == 1
    assert len(api.get("/v1/sessions")) == before + 1
    assert make(api, "another", **body)["id"] not in ids


def test_a_key_is_for_one_kind_of_session(api: Api) -> None:
    session = make(api, "k2")["id"]
    for other in ({"persistent": True}, {"workspace": "private"}, {"approvals": ["bash"]}):
        api.refused("POST", "/v1/sessions", 422, "idempotency_mismatch", json=other, headers=keyed("k2"))
    api.refused("POST", "/v1/sessions", 400, "invalid_request", json={"ttl": 0}, headers=keyed("k3"))
    api.refused("POST", "/v1/sessions", 400, "invalid_request", json={}, headers=keyed("k" * 256))

    assert make(api, "k3")["ttl"] == 14400
    api.http.patch(f"/v1/sessions/{session}", json={"metadata": {"b": 2}}).raise_for_status()
    assert make(api, "k2")["metadata"] == {"b": 2}
    assert api.http.delete(f"/v1/sessions/{session}").status_code == 204
    assert api.request("POST", "/v1/sessions", json={}, headers=keyed("k2")).status_code in (201, 409)
