"""Requests that are refused, and what every answer has: errors, keys, limits, ids, CORS, message parts, models."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from e2e.harness import KEY, Api, Server

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def session(demo: Server) -> str:
    return demo.api().create(persistent=True)["id"]


# Keys


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer ü"]
)
def test_without_a_valid_key_there_is_nothing(demo: Server, header: str | None) -> None:
    nobody = demo.api("")
    headers = {} if header is None else {"Authorization": header.encode()}

    for method, path in [
        ("GET", "/v1/sessions"),
        ("POST", "/v1/sessions"),
        ("DELETE", "/v1/sessions?status=idle"),
        ("GET", "/v1/sessions/sess_000000000000"),
        ("POST", "/v1/sessions/sess_000000000000/messages"),
        ("GET", "/v1/models"),
    ]:
        answer = nobody.refused(method, path, 401, "unauthorized", headers=headers)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/openapi.json", "/docs"])
def test_what_needs_no_key(demo: Server, path: str) -> None:
    answer = httpx.get(demo.url + path)

    assert answer.status_code == 200
    if path.startswith("/health"):
        assert list(answer.json()) == ["status", "version"]


def test_the_scheme_of_a_key_is_read_in_any_case(demo: Server) -> None:
    assert httpx.get(f"{demo.url}/v1/models", headers={"Authorization": f"bearer {KEY}"}).status_code == 200


# The framework's own errors


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/nope", "/v1/sessions/", "/v1/usage", "/v1/responses", "/%00", "/é"])
def test_an_unknown_address_is_not_found(api: Api, path: str) -> None:
    api.refused("GET", path, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/sessions", {"GET", "POST", "DELETE"}),
        ("POST", "/v1/sessions/{}", {"GET", "PATCH", "DELETE"}),
        ("DELETE", "/v1/sessions/{}/messages", {"GET", "POST"}),
        ("POST", "/v1/models", {"GET"}),
        ("DELETE", "/health", {"GET"}),
        ("PATCH", "/openapi.json", {"GET"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    api: Api, session: str, method: str, path: str, allowed: set[str]
) -> None:
    answer = api.refused(method, path.format(session), 405, "method_not_allowed")

    assert allowed <= set(re.split(r",\s*", answer.headers["allow"]))


@pytest.mark.parametrize("head", [b"HELLO\r\n\r\n", b"BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_what_is_no_http_is_answered_as_an_error_too(demo: Server, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as connection:
        connection.sendall(head)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-request-id: req_" in answer
    assert b'{"error":"invalid_request","message":' in answer


# Bodies


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "x"],
)
@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/{}/messages"])
def test_a_body_of_another_type_is_refused(api: Api, session: str, path: str, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    body = '{"message": "x"}'

    api.refused("POST", path.format(session), 415, "unsupported_media_type", headers=headers, content=body)


def test_a_compressed_body_is_refused(api: Api) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}

    api.refused("POST", "/v1/sessions", 415, "unsupported_media_type", headers=headers, content=b"{}")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", None])
def test_json_may_say_that_it_is_json(api: Api, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}

    api.request("POST", "/v1/sessions", status=201, headers=headers, content=b'{"ttl": 7}')


@pytest.mark.parametrize("chunked", [False, True])
def test_who_closes_behind_a_body_over_the_limit_sees_the_refusal(demo: Server, chunked: bool) -> None:
    size = 8 * 1024 * 1024
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    key = f"Authorization: Bearer {demo.key}"
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n{key}\r\nConnection: close\r\n{length}\r\n\r\n"
    body = b" " * size
    with socket.create_connection(("127.0.0.1", demo.port), timeout=30) as connection:
        connection.sendall(head.encode() + (b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if chunked else body))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"error":"payload_too_large"' in answer


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/{}/messages"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(api: Api, session: str, path: str, chunked: bool) -> None:
    body = b'{"message": "' + b"x" * (4 * MIB) + b'"}'

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), MIB):
            yield body[at : at + MIB]

    api.refused(
        "POST", path.format(session), 413, "payload_too_large", headers=JSON, content=pieces() if chunked else body
    )


def test_a_body_at_the_limit_is_taken(api: Api) -> None:
    body = b'{"message": "' + b"x" * (4 * MIB - 15) + b'"}'
    assert len(body) == 4 * MIB

    session = api.create()["id"]
    with api.stream("POST", f"/v1/sessions/{session}/messages", headers=JSON, content=body) as response:
        assert api.check_stream(response, response.read())[-1][0] == "message.completed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"message": }',
        b'{"message": "x"} x',
        b'{"message": NaN}',
        b'{"message": "x", "settings": {"temperature": NaN}}',
        b'{"message": "x", "settings": {"temperature": Infinity}}',
        b'{"message": "x", "settings": {"max_output_tokens": 1e999}}',
        b'{"message": "x", "n": 1' + b"0" * 5000 + b"}",
        b'{"message": "\xff"}',
        b'{"message": "\xed\xa0\x80"}',
        b'{"message": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"message": "x", "a": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'["x"]',
        b'"x"',
        b"null",
        b"{}",
        b'{"message": ""}',
        b'{"message": " \\n\\t\\u3000"}',
        b'{"message": null}',
        b'{"message": 1}',
        b'{"message": {"type": "text"}}',
        b'{"message": []}',
        b'{"message": [1]}',
        b'{"message": [{"type": "text"}]}',
        b'{"message": [{"type": "text", "text": " "}]}',
        b'{"message": [{"type": "video", "text": "x"}]}',
        b'{"message": [{"type": "image"}]}',
        b'{"message": [{"type": "image", "data": "x"}]}',
        b'{"message": [{"type": "image", "data": "?", "media_type": "image/png"}]}',
        b'{"message": [{"type": "image", "data": "aGk=", "media_type": "png"}]}',
        b'{"message": "x", "event_ids": "yes"}',
        b'{"message": "x", "settings": []}',
        b'{"message": "x", "settings": {"temperature": -1}}',
        b'{"message": "x", "settings": {"temperature": "0"}}',
        b'{"message": "x", "settings": {"max_output_tokens": 0}}',
        b'{"message": "x", "settings": {"max_output_tokens": 1.5}}',
        b'{"message": "x", "settings": {"thinking": "very"}}',
        b'{"message": "x", "model": ""}',
        b'{"message": "x", "model": "nope:x"}',
        b'{"message": "x", "model": "scripted:/etc/passwd"}',
        b'{"message": "x", "model": 1}',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_message_that_is_none_is_refused_and_starts_no_turn(api: Api, session: str, body: bytes) -> None:
    before = api.session(session)["response_id"]

    path = f"/v1/sessions/{session}/messages"
    answer = api.refused("POST", path, 400, "invalid_request", headers=JSON, content=body)

    assert len(answer.json()["message"]) < 600
    assert api.session(session)["response_id"] == before


def test_a_wrong_field_is_named(api: Api, session: str) -> None:
    body = {"message": "x", "settings": {"temperature": "hot"}, "event_ids": 1}

    answer = api.refused("POST", f"/v1/sessions/{session}/messages", 400, "invalid_request", json=body)

    assert "settings.temperature" in answer.json()["message"]
    assert "event_ids" in answer.json()["message"]


def test_unknown_fields_are_ignored(api: Api) -> None:
    assert api.ask("hi", colour="green", settings={"speed": 3}).ending == "message.completed"


def test_a_lone_surrogate_in_a_message_is_kept(api: Api) -> None:
    session = api.create()["id"]
    content = b'{"message": "half \\ud83d of a pair"}'

    with api.stream("POST", f"/v1/sessions/{session}/messages", headers=JSON, content=content) as response:
        api.check_stream(response, response.read())

    assert api.messages(session)[0]["content"] == [{"type": "text", "text": "half \ud83d of a pair"}]
    assert api.send(session, "/history").ending == "message.completed"


# Parts


def test_a_list_of_texts_is_a_message(api: Api) -> None:
    session = api.create()["id"]
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    assert api.send(session, parts).ending == "message.completed"
    assert api.messages(session)[0]["content"] == parts


@pytest.mark.parametrize("kind", ["image", "file"])
def test_a_part_that_the_model_cannot_take_is_refused(api: Api, session: str, kind: str) -> None:
    part = {"type": kind, "data": PNG, "media_type": "image/png"}
    body = {"message": [{"type": "text", "text": "x"}, part]}

    answer = api.refused("POST", f"/v1/sessions/{session}/messages", 400, "invalid_request", json=body)

    assert "demo" in answer.json()["message"]


@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd.png", "/etc/passwd", "a/../../x.png"])
def test_a_part_outside_of_the_workspace_is_forbidden(api: Api, session: str, path: str) -> None:
    body = {"message": [{"type": "image", "path": path}]}

    api.refused("POST", f"/v1/sessions/{session}/messages", 403, "forbidden", json=body)


def test_a_part_is_named_by_its_path_or_given_as_data(api: Api, session: str) -> None:
    body = {"message": [{"type": "image", "path": "x.png", "data": PNG, "media_type": "image/png"}]}

    answer = api.refused("POST", f"/v1/sessions/{session}/messages", 400, "invalid_request", json=body)

    assert "not both" in answer.json()["message"]


def test_a_part_that_is_not_there_is_said(api: Api, session: str) -> None:
    body = {"message": [{"type": "image", "path": "none.png"}]}

    answer = api.refused("POST", f"/v1/sessions/{session}/messages", 400, "invalid_request", json=body)

    assert "none.png" in answer.json()["message"]


def test_a_part_outside_of_the_sessions_scope_is_forbidden(api: Api) -> None:
    session = api.create(file_access={"read": ["pub"]})["id"]
    body = {"message": [{"type": "image", "path": "pub2/x.png"}]}

    api.refused("POST", f"/v1/sessions/{session}/messages", 403, "forbidden", json=body)


# What every answer has


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 128])
def test_a_request_id_is_kept(api: Api, given: str) -> None:
    for path in ("/health", "/v1/sessions/none", "/nope"):
        assert api.request("GET", path, headers={"X-Request-Id": given}).headers["x-request-id"] == given
    session = api.create()["id"]
    assert api.send(session, "hi", headers={"X-Request-Id": given}).response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", "ü", '"'])
def test_a_request_id_that_is_none_is_replaced(api: Api, given: str) -> None:
    made = api.request("GET", "/health", headers={"X-Request-Id": given.encode()}).headers["x-request-id"]

    assert made != given
    assert made != api.request("GET", "/health").headers["x-request-id"]


def test_cors_is_off_by_default(api: Api) -> None:
    answer = api.request("GET", "/v1/models", headers={"Origin": ORIGIN})

    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_cors_lets_a_named_origin_read_all_it_needs(serve: Callable[..., Server]) -> None:
    api = serve(CORS_ORIGINS=ORIGIN).api()
    session = api.create()["id"]
    exposed = {"x-response-id", "x-request-id", "retry-after", "link", "etag"}

    turn = api.send(session, "hi", headers={"Origin": ORIGIN})
    refused = api.refused("GET", "/v1/sessions/none", 404, "not_found", headers={"Origin": ORIGIN})
    stranger = api.request("GET", "/v1/models", headers={"Origin": "https://other.example"})
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,last-event-id",
    }
    preflight = api.request("OPTIONS", f"/v1/sessions/{session}/messages", headers=asked)

    for answer in (turn.response, refused):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")} >= exposed
    assert "access-control-allow-origin" not in stranger.headers
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "PATCH" in preflight.headers["access-control-allow-methods"]


def test_a_root_path_is_in_the_links(serve: Callable[..., Server]) -> None:
    api = serve(ROOT_PATH="/agents").api()
    for _ in range(3):
        api.create()

    answer = api.request("GET", "/v1/sessions?limit=2", status=200)

    assert answer.headers["link"].startswith("</agents/v1/sessions?limit=2&cursor=")


# Limits


def test_turns_and_streams_have_limits(serve: Callable[..., Server]) -> None:
    api = serve(TURNS_PER_TENANT_MAX=2, STREAMS_MAX=3).api()
    sessions = [api.create()["id"] for _ in range(3)]
    long = {"message": "/text a\n/stall 20"}

    with api.sending(sessions[0], long["message"]) as one, api.sending(sessions[1], long["message"]) as two:
        one.until("text.delta")
        two.until("text.delta")
        api.refused("POST", f"/v1/sessions/{sessions[2]}/messages", 429, "rate_limited", json=long)
        events = f"/v1/sessions/{sessions[0]}/responses/{one.id}/events"
        with api.following(sessions[0], one.id):
            api.refused("GET", events, 503, "unavailable")
        for session, live in ((sessions[0], one), (sessions[1], two)):
            api.request("POST", f"/v1/sessions/{session}/responses/{live.id}/cancel", status=202)
            live.rest()

    assert api.send(sessions[2], "hi").ending == "message.completed"


def test_a_turn_has_a_time_limit(serve: Callable[..., Server]) -> None:
    api = serve(TURN_TIMEOUT_S=0.7).api()
    session = api.create()["id"]

    turn = api.send(session, "/text a\n/call list_files {}\n/stall 30")

    assert "limit" in turn.error
    assert "0.7" in turn.error
    assert "text" in api.send(session, "/text text").text


# Models


def test_the_models_are_listed(api: Api) -> None:
    models = api.get("/v1/models")

    assert [model["id"] for model in models if model["default"]] == ["demo"]
    assert all(list(model) == ["id", "provider", "default", "tools", "thinking", "images"] for model in models)


def test_a_message_chooses_its_model_over_its_session(serve: Callable[..., Server], tmp_path: Any) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("steps:\n  - play:\n      - text: From the script.\nrepeat: true\n")
    api = serve(model=f"scripted:{scenario}").api()
    session = api.create()["id"]

    assert api.send(session, "hi").text == "From the script."
    if "demo" in {model["id"] for model in api.get("/v1/models")}:
        assert "demo model" in api.send(session, "hi", model="demo").text
        assert "demo model" in api.ask("hi", session={"model": "demo"}).text


def test_the_document_is_true_to_its_own_standard(demo: Server) -> None:
    document = demo.document().raw

    assert document["openapi"].startswith("3.")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary") or operation.get("description"), f"{method} {path}"
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])


@pytest.mark.parametrize("framing", ["Content-Length: 100\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n12\r\n"])
def test_a_body_that_is_cut_short_is_not_acted_on(demo: Server, api: Api, framing: str) -> None:
    session = api.create()["id"]
    head = (
        f"POST /v1/sessions/{session}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n"
        f"Content-Type: application/json\r\n{framing}"
    )
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as connection:
        # Whole JSON, but not the whole body; the hang-up comes when the server is waiting for the rest.
        connection.sendall(head.encode() + b'{"message": "cut"}')
        time.sleep(0.2)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    time.sleep(0.3)  # the connection ends before the request does

    assert api.session(session)["response_id"] is None


def test_a_head_without_end_is_refused(demo: Server) -> None:
    with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as connection:
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-More: more and more\r\n" * 200_000)
            answer = connection.recv(1000)
        except ConnectionError:  # it had more to say than the server cared to hear
            return
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"head of the request is larger than" in answer


def test_a_chosen_key_may_be_any_text(serve: Callable[..., Server]) -> None:
    key = "schlüssel – ключ"
    server = serve(key=key)

    with httpx.Client(base_url=server.url) as client:
        for value, status in ((key.encode(), 200), (key.encode()[:-2], 401)):
            assert client.get("/v1/sessions", headers={"Authorization": b"Bearer " + value}).status_code == status
