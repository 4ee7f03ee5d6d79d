"""Requests at random over the document's own operations: never a 5xx, always the error body, always documented."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e2e.harness import Api, Server

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", " ", "demo", "a\x00b", "../..", "sess_000000000000", "9" * 40, "\ud800", "text", "image"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.text(min_size=1, max_size=30) | st.sampled_from(
    ["-1", "0", "1", "1001", "9" * 30, "idle", "1h", "%00", "..", "sess_000000000000", "a/b", "\U0001f600", "٣"]
)
HEADERS = st.dictionaries(
    st.sampled_from(["Last-Event-ID", "Idempotency-Key", "X-Request-Id", "Content-Type", "Content-Encoding", "Accept"]),
    st.sampled_from([b"", b"0", b"-1", b"\xff\xfe", b"application/json", b"text/plain", b"gzip", b"x" * 300, b"*/*"]),
    max_size=2,
)


def properties(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """The names of the fields of an operation's body."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = body.get("$ref", "").rpartition("/")[2]
    return list(document["components"]["schemas"].get(name, {}).get("properties", {}))


@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
def check_one(api: Api, session: str, response_id: str, data: st.DataObject) -> None:
    document = api.server.document().raw
    operations = [(path, method) for path, methods in document["paths"].items() for method in methods]
    path, method = data.draw(st.sampled_from(operations))
    operation = document["paths"][path][method]
    params: dict[str, str] = {}
    headers = data.draw(HEADERS)
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if parameter["in"] == "path":
            known = {"session_id": session, "response_id": response_id}.get(name, "x")
            value = data.draw(st.just(known) | TEXTS)
            path = path.replace(f"{{{name}}}", _quoted(value))
        elif parameter["in"] == "query" and data.draw(st.booleans()):
            params[name] = data.draw(TEXTS)
    content: bytes | None = None
    if names := properties(document, operation):
        body = data.draw(VALUES | st.dictionaries(st.sampled_from(names) | st.text(max_size=5), VALUES, max_size=4))
        content = data.draw(st.just(json.dumps(body).encode()) | st.binary(max_size=30))
    if method == "delete" and path.endswith(session):
        return  # the session is for the others

    request = api.http.build_request(method.upper(), path, params=params, content=content, headers=headers)
    response = api.http.send(request)

    api_check(api, response)


def api_check(api: Api, response: Any) -> None:
    """As `Api.check`; of a stream that begins in the middle, only that it is one."""
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        assert response.status_code == 200
        assert response.content.endswith(b"\n\n")
        return
    api.check(response)


def _quoted(value: str) -> str:
    from urllib.parse import quote

    return quote(value.encode("utf-8", "surrogatepass"), safe="")


def test_no_request_makes_the_server_fail(demo: Server, api: Api) -> None:
    session = api.create(persistent=True)["id"]
    turn = api.send(session, "hello")

    check_one(api, session, turn.id)
