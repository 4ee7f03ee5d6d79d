"""One turn and its readers: followers, hang-ups, resumption, busy sessions, heartbeats."""

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx_sse
import pytest

from e2e import wire
from e2e.harness import Api, Server, eventually

NOBODY = "msg_000000000000000000000000"


def test_ten_followers_of_one_turn_get_the_same_bytes(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/stream 200 200", event_ids=True) as live:
        live.until("text.delta")
        with ThreadPoolExecutor(10) as pool:
            turns = list(pool.map(lambda _: api.follow(session, live.id), range(10)))
        own = live.rest()

    assert {turn.content for turn in turns} == {live.content}
    assert turns[0].events == own
    assert turns[0].text == "".join(f"{n} " for n in range(1, 201))


def test_followers_that_join_at_any_time_get_the_same_bytes(api: Api) -> None:
    session = api.create()["id"]

    def join(delay_s: float) -> bytes:
        time.sleep(delay_s)
        return api.follow(session, response_id).content

    with api.sending(session, "/stream 100 100", event_ids=True) as live:
        response_id = live.id
        with ThreadPoolExecutor(10) as pool:
            contents = set(pool.map(join, [n * 0.12 for n in range(10)]))
        live.rest()

    assert contents == {live.content}


@pytest.mark.slow
def test_a_reader_that_never_reads_harms_nobody_and_costs_little(demo: Server, api: Api) -> None:
    """Twenty of them, on a turn of 8 MB: what waits for them is bounded, and the turn and its reader go on."""
    session = api.create()["id"]
    path = f"/v1/sessions/{session}/responses/{{}}/events"
    api.ask("/big 4000000")  # whatever one large turn costs, without followers that stall
    before_kib = demo.rss_kib()

    stalled: list[socket.socket] = []
    with api.sending(session, "\n".join(["/stall 0.5", *["/big 80000\n/stall 0.01"] * 100])) as live:
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", demo.port))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET {path.format(live.id)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {demo.key}\r\n\r\n"
            connection.sendall(head.encode())
            stalled.append(connection)
        began = time.monotonic()
        events = live.rest()
    took_s = time.monotonic() - began
    grown_kib = demo.rss_kib() - before_kib
    for connection in stalled:
        connection.close()

    wire.check_turn(events)
    assert len(wire.text_of(events)) == 8_000_000
    assert took_s < 15
    # 20 × 8 MB would be 160 MB; a page each, and what the kernel holds, is a fraction of it.
    assert grown_kib < 60_000, f"{grown_kib} KiB more"


def test_of_fifty_simultaneous_messages_one_wins_and_the_others_are_told_whom_to_follow(demo: Server, api: Api) -> None:
    session = api.create()["id"]
    path = f"/v1/sessions/{session}/messages"
    api.send(session, "hello")
    api.session(session)  # it keeps one connection
    sockets = demo.sockets()

    async def storm() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {demo.key}"}
        async with httpx.AsyncClient(base_url=demo.url, headers=headers, timeout=30, limits=limits) as client:
            posts = [client.post(path, json={"message": f"/text {n}\n/stall 0.7"}) for n in range(50)]
            return await asyncio.gather(*posts)

    answers = asyncio.run(storm())

    for answer in answers:
        api.check(answer)
    [won] = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 409]
    assert len(lost) == 49
    assert {answer.json()["error"] for answer in lost} == {"session_busy"}
    assert {answer.headers["x-response-id"] for answer in lost} == {won.headers["x-response-id"]}
    # Nothing leaked: two turns in all, one pair of messages each, no connection left open, and the next one runs.
    assert len(api.responses(session)) == 2
    assert [message["role"] for message in api.messages(session)] == ["user", "assistant"] * 2
    eventually(lambda: demo.sockets() <= sockets)
    assert "assistant" in api.send(session, "/history").text


def test_a_caller_that_hangs_up_stops_no_turn(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/stream 60 60") as live:
        live.until("text.delta")

    assert api.session(session)["busy"] is True
    refused = api.refused("POST", f"/v1/sessions/{session}/messages", 409, "session_busy", json={"message": "more"})
    assert refused.headers["x-response-id"] == live.id
    record = api.when_idle(session)
    assert record["response_id"] == live.id
    whole = "".join(f"{n} " for n in range(1, 61))
    assert api.messages(session)[1]["content"] == [{"type": "text", "text": whole}]
    assert api.follow(session, live.id).text == whole
    assert api.get(f"/v1/sessions/{session}/responses/{live.id}")["status"] == "completed"


def test_a_caller_that_hangs_up_before_it_was_answered_stops_no_turn(demo: Server, api: Api) -> None:
    session = api.create()["id"]
    body = b'{"message": "/stall 0.3\\nI came to my end."}'
    head = (
        f"POST /v1/sessions/{session}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {demo.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    with socket.create_connection(("127.0.0.1", demo.port)) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.1)

    eventually(lambda: api.responses(session))
    api.when_idle(session)
    assert api.messages(session)[1]["content"] == [{"type": "text", "text": "I came to my end."}]


def test_a_turn_can_be_resumed_after_each_of_its_events(api: Api) -> None:
    session = api.create()["id"]
    turn = api.send(session, "/think hm\none two three\n/call list_files {}\n/then\nend")

    for n in range(len(turn.events) - 1):
        rest = api.follow(session, turn.id, after=n)
        assert rest.events == turn.events[n + 1 :]
        assert rest.content.startswith(f"id: {n + 1}\n".encode())


def test_a_running_turn_can_be_resumed_and_misses_and_doubles_nothing(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/stream 120 120") as live:
        live.until("text.delta")
    with api.following(session, live.id, after=1) as second:
        for _ in range(20):
            second.next()
    third = api.follow(session, live.id, after=21)

    assert third.events[0] == ("text.delta", {"content": "21 "})
    assert third.text == "".join(f"{n} " for n in range(21, 121))


@pytest.mark.parametrize("beyond", ["1", "999999999999999"])
def test_nothing_comes_after_the_last_event_and_beyond_it_is_an_error(api: Api, beyond: str) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hi")
    events = f"/v1/sessions/{session}/responses/{turn.id}/events"
    last = len(turn.events) - 1

    assert api.request("GET", events, status=204, headers={"Last-Event-ID": str(last)}).content == b""
    assert api.request("GET", events, status=204, params={"last_event_id": last}).content == b""
    api.refused("GET", events, 400, "invalid_request", params={"last_event_id": last + int(beyond)})


@pytest.mark.parametrize("junk", ["x", "-1", "1.5", "１", "0x1", " 1", "1" * 16, "msg_1", "nan"])
def test_an_event_id_that_is_no_number_is_an_error(api: Api, junk: str) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hi")
    events = f"/v1/sessions/{session}/responses/{turn.id}/events"

    api.refused("GET", events, 400, "invalid_request", params={"last_event_id": junk})
    if junk == junk.strip():
        api.refused("GET", events, 400, "invalid_request", headers={"Last-Event-ID": junk.encode()})


def test_the_header_wins_over_the_query(api: Api) -> None:
    session = api.create()["id"]
    turn = api.send(session, "hi")
    events = f"/v1/sessions/{session}/responses/{turn.id}/events"

    with api.stream("GET", events, params={"last_event_id": "0"}, headers={"Last-Event-ID": "2"}) as response:
        content = response.read()

    assert api.check_stream(response, content, first=3) == turn.events[3:]


def test_the_body_wins_over_the_setting_of_event_ids(api: Api, serve: Callable[..., Server]) -> None:
    numbering = serve(EVENT_IDS=True).api()

    assert api.ask("hi").content.startswith(b"event: ")
    assert api.ask("hi", event_ids=False).content.startswith(b"event: ")
    assert api.ask("hi", event_ids=True).content.startswith(b"id: 0\nevent: ")
    assert numbering.ask("hi").content.startswith(b"id: 0\nevent: ")
    assert numbering.ask("hi", event_ids=True).content.startswith(b"id: 0\nevent: ")
    assert numbering.ask("hi", event_ids=False).content.startswith(b"event: ")


def test_heartbeats_come_in_both_forms_and_are_no_events(serve: Callable[..., Server]) -> None:
    server = serve(HEARTBEAT_INTERVAL_S=0.1)
    api = server.api()
    message = "/text a\n/stall 0.55\n/text b\n/stall 0.25"

    plain = api.ask(message)
    numbered = api.ask(message, event_ids=True)

    # Not in the middle of an event, as check_stream saw; and none that makes an empty event of the next.
    assert 4 <= plain.content.count(b":\n\n") <= 8
    assert b":\n\n" not in numbered.content
    assert 4 <= numbered.content.count(b"\n:\n") + numbered.content.count(b":\n:\n") <= 8
    for event_ids, events in ((False, plain.events), (True, numbered.events)):
        session = api.create()["id"]
        body = {"message": message, "event_ids": event_ids}
        path = f"/v1/sessions/{session}/messages"
        with httpx_sse.connect_sse(api.http, "POST", path, json=body) as source:
            read = [(sse.event, sse.data) for sse in source.iter_sse()]
        assert [event for event, _ in read] == [event for event, _ in events]
        assert all(data.startswith("{") for _, data in read)


def test_a_stream_closes_its_connection_and_an_answer_keeps_it(demo: Server, api: Api) -> None:
    session = api.create()["id"]

    turn = api.send(session, "hi")

    assert turn.response.headers["connection"] == "close"
    assert turn.response.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in turn.response.headers
    assert "connection" not in api.request("GET", "/health").headers


def test_a_cancelled_turn_ends_as_cancelled_and_its_session_goes_on(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/text first words\n/call list_files {}\n/stall 30") as live:
        live.until("tool_use.start")
        cancel = f"/v1/sessions/{session}/responses/{live.id}/cancel"
        answer = api.request("POST", cancel, status=202).json()
        events = live.rest()

    assert answer == {"response_id": live.id, "status": "cancelling"}
    wire.check_turn(events)
    assert events[-1][0] == "message.cancelled"
    assert api.request("POST", cancel, status=200).json() == {"response_id": live.id, "status": "already_complete"}
    assert api.messages(session)[1]["status"] == "cancelled"
    assert "first words" in api.send(session, "/history").text


def test_an_idempotency_key_starts_one_turn(api: Api) -> None:
    session = api.create()["id"]
    headers = {"Idempotency-Key": "key-1"}

    first = api.send(session, "hello", headers=headers)
    second = api.send(session, "hello", headers=headers)

    assert second.content == first.content
    assert len(api.responses(session)) == 1
    path = f"/v1/sessions/{session}/messages"
    api.refused("POST", path, 422, "idempotency_mismatch", json={"message": "other"}, headers=headers)
    long = {"Idempotency-Key": "k" * 256}
    api.refused("POST", path, 400, "invalid_request", json={"message": "x"}, headers=long)
    assert api.send(session, "x", headers={"Idempotency-Key": "k" * 255}).ending == "message.completed"


@pytest.mark.slow
def test_events_past_their_retention_are_gone_and_the_conversation_stays(serve: Callable[..., Server]) -> None:
    api = serve(REPLAY_RETENTION_S=0.2).api()
    session = api.create()["id"]
    headers = {"Idempotency-Key": "k"}
    turn = api.send(session, "hello", headers=headers)
    events = f"/v1/sessions/{session}/responses/{turn.id}/events"
    eventually(lambda: api.http.get(events).status_code == 404, 12)

    api.refused("GET", events, 404, "not_found")
    body: dict[str, Any] = {"message": "hello"}
    again = api.request("POST", f"/v1/sessions/{session}/messages", status=200, json=body, headers=headers)
    assert again.json()["status"] == "replayed"
    assert len(api.messages(session)) == 2


def test_a_delete_ends_a_running_turn_for_its_readers(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/text a\n/stall 30") as live:
        live.until("text.delta")
        api.request("DELETE", f"/v1/sessions/{session}", status=204)
        api.refused("GET", f"/v1/sessions/{session}", 404, "not_found")
        events = live.rest()

    wire.check_turn(events)
    assert events[-1][0] == "message.cancelled"
    api.refused("DELETE", f"/v1/sessions/{session}", 404, "not_found")
    api.refused("POST", f"/v1/sessions/{session}/messages", 404, "not_found", json={"message": "x"})


def test_a_running_turn_is_seen_in_the_conversation_as_far_as_it_is(api: Api) -> None:
    session = api.create()["id"]

    with api.sending(session, "/text one two\n/stall 30") as live:
        eventually(lambda: api.messages(session)[1]["content"])
        user, assistant = api.messages(session)
        response = api.get(f"/v1/sessions/{session}/responses/{live.id}")
        api.request("POST", f"/v1/sessions/{session}/responses/{live.id}/cancel", status=202)
        live.rest()

    assert user["status"] == "completed"
    assert (assistant["status"], assistant["usage"]["requests"]) == ("in_progress", 0)
    assert assistant["content"] == [{"type": "text", "text": "one two"}]
    assert (response["status"], response["ended_at"], response["error"]) == ("in_progress", None, None)


@pytest.mark.parametrize("what", ["", "/events", "/cancel"])
def test_a_response_that_is_none_of_the_session_is_not_found(api: Api, what: str) -> None:
    session, other = api.create()["id"], api.create()["id"]
    turn = api.send(other, "hi")
    method = "POST" if what == "/cancel" else "GET"

    for response_id in (turn.id, NOBODY, "junk"):
        api.refused(method, f"/v1/sessions/{session}/responses/{response_id}{what}", 404, "not_found")


def test_two_hundred_streams_at_once_all_end(demo: Server, api: Api) -> None:
    """200 sessions, each with a turn of its own; every stream is whole."""
    sessions = [api.create()["id"] for _ in range(200)]

    async def all_of_them() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {demo.key}"}
        async with httpx.AsyncClient(base_url=demo.url, headers=headers, timeout=60, limits=limits) as client:
            body = {"message": "/stream 20 20"}
            return await asyncio.gather(*(client.post(f"/v1/sessions/{s}/messages", json=body) for s in sessions))

    answers = asyncio.run(all_of_them())

    for answer in answers:
        assert answer.status_code == 200
        assert wire.text_of(api.check_stream(answer, answer.content)) == "".join(f"{n} " for n in range(1, 21))
