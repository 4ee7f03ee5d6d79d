"""What the client makes of answers: refusals, faults on the way, servers that break the protocol."""

import time
from email.utils import formatdate
from typing import Any

import pytest

from client.canned import CREATED, RECORD, Canned, answer, frame, stream
from turnwire import (
    Client,
    ClientError,
    Conflict,
    InternalError,
    MessageCompleted,
    NotFound,
    RateLimited,
    RemoteProtocolError,
    TextDelta,
    TurnLost,
    TurnwireError,
    Unauthorized,
    Unavailable,
    Unreachable,
    Waiting,
)
from turnwire.protocol.errors import ERRORS

SESSION = answer(201, RECORD)
TEXT = [frame(1, "text.start"), frame(2, "text.delta", content="hi"), frame(3, "text.stop")]
DONE = frame(4, "message.completed", id="msg_1", status="completed", usage={})
WHOLE = stream(CREATED, *TEXT, DONE)


def ask(*answers: bytes | None, **options: Any) -> tuple[str, Canned, list[Waiting]]:
    """A session is made, and a message sent: its text, the server, and the waits."""
    waits: list[Waiting] = []
    with Canned(SESSION, *answers).running() as server, Client(server.url, "k", on_wait=waits.append, **options) as tw:
        text = tw.sessions.create().send("hello").text()
    return text, server, waits


def test_a_message_is_asked_for_as_the_wire_has_it() -> None:
    text, server, _ = ask(WHOLE)

    assert text == "hi"
    sent = server.asked[1]
    assert (sent.method, sent.path) == ("POST", "/v1/sessions/sess_1/messages")
    assert sent.body == b'{"message":"hello","event_ids":true}'
    assert sent.headers["authorization"] == "Bearer k"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept-encoding"] == "identity"
    assert len(sent.headers["idempotency-key"]) > 20


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_of_the_protocol_is_its_class(name: str) -> None:
    body = {"error": name, "message": "A sentence."}
    refusal = answer(ERRORS[name].status, body, X_Request_Id="req_1", X_Response_Id="msg_7")
    with Canned(refusal).running() as server, Client(server.url, "k", retry_timeout_s=0) as tw:
        with pytest.raises(ERRORS[name], match=r"^A sentence\.$") as caught:
            tw.models()

    assert type(caught.value) is ERRORS[name]
    assert (caught.value.request_id, caught.value.response_id) == ("req_1", "msg_7")


@pytest.mark.parametrize(
    ("given", "cls", "text"),
    [
        (answer(404, b"<h1>nginx</h1>\n says no"), NotFound, "The server answered 404: <h1>nginx</h1> says no."),
        (answer(500), InternalError, "The server answered 500."),
        (answer(401, {"error": "Who are you?"}), Unauthorized, "Who are you?"),
        (answer(418, {"a": 1}), TurnwireError, 'The server answered 418: {"a": 1}.'),
        (answer(302, b"", Location="/elsewhere"), TurnwireError, "The server answered 302."),
        (answer(409, {"error": "new_kind", "message": "No."}), Conflict, "No."),
    ],
)
def test_answers_of_other_servers_are_errors_by_their_status(given: bytes, cls: type[Exception], text: str) -> None:
    with Canned(given).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(cls) as caught:
            tw.models()

    assert type(caught.value) is cls
    assert str(caught.value) == text


def test_a_body_that_is_not_what_was_asked_for_is_a_broken_protocol() -> None:
    with Canned(answer(200, b"<html>")).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(RemoteProtocolError, match="not of this API"):
            tw.models()


@pytest.mark.parametrize(("status", "cls"), [(429, RateLimited), (503, Unavailable)])
def test_a_refusal_is_waited_for_as_told(status: int, cls: type[Exception]) -> None:
    refusal = answer(status, {"error": cls.name, "message": "Later."}, Retry_After="1")  # type: ignore[attr-defined]
    began = time.monotonic()
    text, server, waits = ask(refusal, WHOLE)

    assert text == "hi"
    assert time.monotonic() - began >= 1
    assert [(wait.why, wait.seconds, type(wait.error)) for wait in waits] == [("refused", 1.0, cls)]
    assert len({asked.headers["idempotency-key"] for asked in server.asked[1:]}) == 1


def test_a_date_to_come_back_at_is_understood() -> None:
    refusal = answer(503, b"", Retry_After=formatdate(time.time() + 2, usegmt=True))
    _, _, waits = ask(refusal, WHOLE)

    assert 0 < waits[0].seconds <= 2


def test_a_wait_beyond_the_bound_is_not_begun() -> None:
    refusal = answer(429, {"error": "rate_limited", "message": "Later."}, Retry_After="3600")
    began = time.monotonic()

    with pytest.raises(RateLimited) as caught:
        ask(refusal, retry_timeout_s=30)
    assert caught.value.retry_after_s == 3600
    assert time.monotonic() - began < 1


def test_refusals_without_end_are_borne_for_the_bound() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        ask(answer(503, b""), retry_timeout_s=0.6)
    assert 0.5 < time.monotonic() - began < 2


def test_a_gateway_that_lost_the_server_is_an_outage() -> None:
    text, server, _ = ask(answer(502, b"<html>"), answer(504, b""), WHOLE)

    assert text == "hi"
    assert len(server.asked) == 4


def test_a_post_that_was_cut_before_its_head_is_sent_again_with_its_key() -> None:
    text, server, _ = ask(None, None, WHOLE)

    assert text == "hi"
    assert len({(asked.body, asked.headers["idempotency-key"]) for asked in server.asked[1:]}) == 1


def test_a_stream_that_ends_without_an_ending_is_read_on() -> None:
    text, server, _ = ask(stream(CREATED, *TEXT[:2]), stream(TEXT[2], DONE))

    assert text == "hi"
    assert server.asked[2].path == "/v1/sessions/sess_1/responses/msg_1/events"
    assert server.asked[2].headers["last-event-id"] == "2"


def test_a_stream_that_broke_before_its_first_event_is_read_from_the_start() -> None:
    _, server, _ = ask(stream(CREATED[:20]), WHOLE)

    assert "last-event-id" not in server.asked[2].headers


def test_events_that_come_again_are_given_once() -> None:
    text, _, _ = ask(stream(CREATED, *TEXT[:2]), stream(CREATED, *TEXT, DONE))

    assert text == "hi"


def test_an_event_that_is_missing_is_asked_for() -> None:
    text, server, _ = ask(stream(CREATED, TEXT[0], TEXT[2]), stream(*TEXT[1:], DONE))

    assert text == "hi"
    assert server.asked[2].headers["last-event-id"] == "1"


def test_an_event_that_stays_missing_is_a_broken_protocol() -> None:
    with pytest.raises(RemoteProtocolError, match="The event 2 is missing"):
        ask(stream(CREATED, TEXT[0], TEXT[2]), stream(TEXT[2], DONE))


@pytest.mark.parametrize(
    "given",
    [
        stream(CREATED, frame(1, "text.delta", content="x")),
        stream(CREATED, "id: 1\nevent: text.delta\ndata: {nonsense\n\n"),
        answer(200, b"hello", Content_Type="text/plain"),
    ],
)
def test_what_is_no_turn_is_a_broken_protocol(given: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ask(given)


def test_kinds_of_events_that_are_not_known_are_passed_over_and_counted() -> None:
    rest = [
        frame(2, "text.start"),
        frame(3, "text.delta", content="hi"),
        frame(4, "text.stop"),
        frame(5, "message.completed", id="msg_1", usage={}),
    ]
    text, server, _ = ask(stream(CREATED, frame(1, "hologram.start", depth=3)), stream(*rest))

    assert text == "hi"
    assert server.asked[2].headers["last-event-id"] == "1"


def test_a_turn_whose_events_are_gone_is_made_from_the_conversation() -> None:
    said = [
        {"id": "msg_0", "role": "user", "content": [{"type": "text", "text": "hello"}], "created_at": 1},
        {
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "text", "text": "hi"}, {"type": "hologram"}],
            "created_at": 1,
            "usage": {"input_tokens": 3},
        },
    ]
    replayed = answer(200, {"response_id": "msg_1", "status": "replayed", "note": "…"})
    with Canned(SESSION, replayed, answer(200, said)).running() as server, Client(server.url, "k") as tw:
        events = list(tw.sessions.create().send("hello", idempotency_key="k1"))

    assert events[0].type == "message.created"
    assert TextDelta("hi") in events
    assert isinstance(events[-1], MessageCompleted)
    assert events[-1].usage.input_tokens == 3


def test_a_turn_that_is_gone_altogether_is_lost() -> None:
    idle = answer(200, RECORD)
    with pytest.raises(TurnLost) as caught:
        ask(stream(CREATED, *TEXT[:2]), answer(404), idle, answer(200, []))

    assert caught.value.partial.text == "hi"
    assert caught.value.response_id == "msg_1"


def test_a_key_that_is_taken_away_in_mid_turn_ends_the_reading() -> None:
    with pytest.raises(Unauthorized):
        ask(stream(CREATED), answer(401, {"error": "unauthorized", "message": "No valid key."}))


def test_a_refusal_to_read_on_is_waited_for() -> None:
    text, _, waits = ask(stream(CREATED), answer(503, b"", Retry_After="1"), stream(*TEXT, DONE))

    assert text == "hi"
    assert [wait.why for wait in waits] == ["refused"]


def test_a_server_of_another_kind_is_found_out_soon() -> None:
    began = time.monotonic()
    with Canned(b"SSH-2.0-OpenSSH_9.2\r\n").running() as server, Client(server.url, "k") as tw:
        with pytest.raises(Unreachable):
            tw.models()

    assert time.monotonic() - began < 3


def test_health_is_asked_once() -> None:
    with Canned(None).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(Unreachable):
            tw.health()

    assert len(server.asked) == 1


def test_a_list_is_read_page_by_page() -> None:
    first = answer(200, [RECORD, {**RECORD, "id": "sess_2"}], Link='</v1/sessions?cursor=a,b&limit=2>; rel="next"')
    second = answer(200, [{**RECORD, "id": "sess_3"}])
    with Canned(first, second).running() as server, Client(server.url, "k") as tw:
        found = tw.sessions.list(status="idle")
        assert next(found).id == "sess_1"
        assert len(server.asked) == 1
        assert [session.id for session in found] == ["sess_2", "sess_3"]

    assert [asked.path for asked in server.asked] == [
        "/v1/sessions?status=idle",
        "/v1/sessions?cursor=a,b&limit=2",
    ]


def test_a_next_page_on_another_server_is_not_followed() -> None:
    page = answer(200, [RECORD], Link='<http://evil.example/v1/sessions>; rel="next"')
    with Canned(page).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(RemoteProtocolError, match="another server"):
            list(tw.sessions.list())


def test_the_answer_to_a_repeated_delete_is_no_error() -> None:
    with Canned(answer(200, RECORD), None, answer(404)).running() as server, Client(server.url, "k") as tw:
        tw.sessions.get("sess_1").delete()

    assert [asked.method for asked in server.asked] == ["GET", "DELETE", "DELETE"]


def test_a_server_below_a_path_is_reached() -> None:
    page = answer(200, [RECORD], Link='</tw/v1/sessions?cursor=2>; rel="next"')
    with Canned(page, answer(200, [])).running() as server, Client(f"{server.url}/tw/", "k") as tw:
        assert len(list(tw.sessions.list())) == 1

    assert [asked.path for asked in server.asked] == ["/tw/v1/sessions", "/tw/v1/sessions?cursor=2"]


@pytest.mark.parametrize("option", ["retry_timeout_s", "busy_timeout_s", "heartbeat_timeout_s", "connect_timeout_s"])
@pytest.mark.parametrize("value", [-1, "10", None, float("nan"), True])
def test_options_that_are_no_seconds_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        Client("http://127.0.0.1:1", "k", **{option: value})


def test_client_errors_are_no_answers() -> None:
    assert ClientError.status == 0
    assert issubclass(Unreachable, TurnwireError)


def test_a_session_whose_answer_was_lost_is_made_once() -> None:
    with Canned(None, answer(503, b"", Retry_After="0"), SESSION).running() as server, Client(server.url, "k") as tw:
        tw.sessions.create()

    assert len(server.asked) == 3
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
