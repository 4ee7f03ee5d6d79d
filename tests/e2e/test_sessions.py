"""Sessions, their lists, their tenants."""

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.harness import Api, Server

NOBODY = "sess_000000000000"
TURN = "msg_000000000000000000000000"


@pytest.fixture
def own(demo: Server) -> Iterator[Api]:
    """A caller of a tenant that has nothing yet."""
    tenant = f"t{time.monotonic_ns()}"
    yield demo.api(demo.run("keys", "create", tenant, "--tenant", tenant).split()[-1])


def test_a_new_session_is_as_the_contract_says(api: Api) -> None:
    before = time.time()

    record = api.create()

    assert list(record) == [
        "id",
        "created_at",
        "last_activity",
        "busy",
        "persistent",
        "ttl",
        "status",
        "metadata",
        "file_access",
        "model",
        "response_id",
        "pending_calls",
    ]
    assert re.fullmatch("sess_[0-9a-f]{12}", record["id"])
    assert before - 1 <= record["created_at"] == record["last_activity"] <= time.time() + 1
    assert (record["busy"], record["persistent"], record["ttl"], record["status"]) == (False, False, 14400, "ready")
    assert (record["metadata"], record["file_access"], record["model"]) == ({}, None, None)
    assert (record["response_id"], record["pending_calls"]) == (None, 0)
    assert api.session(record["id"]) == record


def test_a_session_keeps_what_it_was_made_with(api: Api) -> None:
    given = {
        "persistent": True,
        "ttl": 60,
        "metadata": {"a": {"b": [1, None, "ü\u2028"]}},
        "file_access": {"read": ["pub", ""], "write": ["pub/x"]},
        "model": "demo",
    }

    record = api.create(**given, instructions="Be brief.", workspace="private", unknown="ignored")

    assert {name: record[name] for name in given} == given
    assert api.session(record["id"]) == record


def test_a_session_needs_no_body(api: Api) -> None:
    assert api.request("POST", "/v1/sessions", status=201).json()["ttl"] == 14400
    assert api.request("POST", "/v1/sessions", status=201, content=b"{}").json()["ttl"] == 14400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": 1.5}, "ttl"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": 7_776_001}, "ttl"),
        ({"persistent": "yes"}, "persistent"),
        ({"persistent": None}, "persistent"),
        ({"metadata": []}, "metadata"),
        ({"file_access": {"read": "x"}}, "file_access.read"),
        ({"file_access": {"read": ["../x"]}}, "../x"),
        ({"file_access": {"write": ["a\0"]}}, "file_access.write"),
        ({"file_access": {"read": ["/etc"]}}, "/etc"),
        ({"model": "nope:model"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "scripted:/etc/passwd"}, "model"),
        ({"model": "local:/etc/passwd"}, "model"),
        ({"model": "anthropic:claude"}, "model"),
        ({"instructions": 1}, "instructions"),
        ({"workspace": "mine"}, "workspace"),
        ([], "object"),
        ("x", "object"),
        (None, "object"),
    ],
)
def test_a_wrong_field_of_a_session_is_named(api: Api, body: object, field: str) -> None:
    answer = api.refused("POST", "/v1/sessions", 400, "invalid_request", content=json.dumps(body))

    assert field in answer.json()["message"]


def test_patch_merges_metadata_and_sets_the_rest(api: Api) -> None:
    session = api.create(metadata={"a": 1, "b": {"c": 2}, "d": 3}, ttl=100)["id"]
    path = f"/v1/sessions/{session}"

    patch = {"metadata": {"a": None, "b": {"e": 4}, "f": 5}, "ttl": 200, "model": "demo"}
    record = api.request("PATCH", path, status=200, json=patch).json()

    assert record["metadata"] == {"b": {"e": 4}, "d": 3, "f": 5}
    assert (record["ttl"], record["model"]) == (200, "demo")
    assert api.session(session) == record
    assert api.request("PATCH", path, status=200, json={"model": None}).json()["model"] is None
    assert api.request("PATCH", path, status=200, json={}).json()["metadata"] == record["metadata"]


@pytest.mark.parametrize(
    "patch", [{"metadata": None}, {"metadata": 1}, {"ttl": None}, {"ttl": 0}, {"ttl": 10**10}, {"model": "x:y"}, []]
)
def test_a_wrong_patch_changes_nothing(api: Api, patch: object) -> None:
    record = api.create(metadata={"a": 1})

    api.refused("PATCH", f"/v1/sessions/{record['id']}", 400, "invalid_request", json=patch)

    assert api.session(record["id"]) == record


def test_a_conversation_moves_the_last_activity_and_reading_does_not(api: Api) -> None:
    record = api.create()
    time.sleep(0.02)
    turn = api.send(record["id"], "hi")

    after = api.session(record["id"])

    assert after["last_activity"] > record["last_activity"]
    assert after["response_id"] == turn.id
    api.messages(record["id"])
    assert api.session(record["id"]) == after


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_sessions_are_paged_newest_first(own: Api, limit: int) -> None:
    made = [own.create(metadata={"n": n})["id"] for n in range(7)]

    pages = own.pages("/v1/sessions", limit=limit)

    assert [record["id"] for page in pages for record in page] == made[::-1]
    assert all(1 <= len(page) <= limit for page in pages)


def test_a_page_goes_on_behind_a_session_that_was_deleted_meanwhile(own: Api) -> None:
    made = [own.create()["id"] for _ in range(6)]
    first = own.request("GET", "/v1/sessions", status=200, params={"limit": 2})
    own.request("DELETE", f"/v1/sessions/{made[4]}", status=204)

    next_page = re.findall("<(.*)>", first.headers["link"])[0]

    assert [record["id"] for record in own.get(next_page)] == [made[3], made[2]]


def test_sessions_are_filtered_by_busy_and_idle(own: Api) -> None:
    idle, busy = own.create()["id"], own.create()["id"]

    with own.sending(busy, "/text a\n/stall 20") as live:
        live.until("text.delta")
        found_busy = own.get("/v1/sessions", params={"status": "busy"})
        found_idle = own.get("/v1/sessions", params={"status": "idle"})
        deleted = own.request("DELETE", "/v1/sessions?status=idle", status=200).json()
        own.request("POST", f"/v1/sessions/{busy}/responses/{live.id}/cancel", status=202)
        live.rest()

    assert [record["id"] for record in found_busy] == [busy]
    assert [record["id"] for record in found_idle] == [idle]
    assert deleted == {"deleted": 1}
    assert [record["id"] for record in own.get("/v1/sessions")] == [busy]


def test_bulk_delete_goes_by_age(own: Api) -> None:
    for _ in range(3):
        own.create()
    time.sleep(1.1)
    young = own.create()["id"]

    assert own.request("DELETE", "/v1/sessions?older_than=1h1m1s", status=200).json() == {"deleted": 0}
    assert own.request("DELETE", "/v1/sessions?older_than=1s", status=200).json() == {"deleted": 3}
    assert [record["id"] for record in own.get("/v1/sessions")] == [young]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?older_than=",
        "?older_than=1",
        "?older_than=1d",
        "?older_than=m",
        "?older_than=1s1h",
        "?older_than=%D9%A3h",
        "?status=busy",
    ],
)
def test_bulk_delete_wants_to_know_which(own: Api, query: str) -> None:
    session = own.create()["id"]

    own.refused("DELETE", f"/v1/sessions{query}", 400, "invalid_request")

    assert own.session(session)


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/sessions/{}/messages", "/v1/sessions/{}/responses"])
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=-1",
        "limit=1.5",
        "limit=1_0",
        "limit=%2B1",
        "limit=%D9%A1",
        "cursor=junk",
        "cursor=x.user",
    ],
)
def test_a_wrong_page_is_refused(api: Api, path: str, query: str) -> None:
    session = api.create()["id"]
    api.send(session, "hi")

    api.refused("GET", f"{path.format(session)}?{query}", 400, "invalid_request")


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9, 10])
def test_messages_and_responses_are_paged(api: Api, limit: int) -> None:
    session = api.create()["id"]
    turns = [api.send(session, f"message {n}\n/text answer {n}").id for n in range(5)]

    messages = [m for page in api.pages(f"/v1/sessions/{session}/messages", limit=limit) for m in page]
    responses = [r for page in api.pages(f"/v1/sessions/{session}/responses", limit=limit) for r in page]

    assert [message["id"] for message in messages if message["role"] == "assistant"] == turns
    assert [message["role"] for message in messages] == ["user", "assistant"] * 5
    assert [m["content"][0]["text"] for m in messages[::2]] == [f"message {n}\n/text answer {n}" for n in range(5)]
    assert [response["id"] for response in responses] == turns[::-1]


def test_the_conversation_shows_blocks_as_the_stream_did(api: Api) -> None:
    session = api.create()["id"]
    turn = api.send(session, "/think hm\nSome text\n/call list_files {}\n/usage 3 4\n/then\nend")
    [call] = turn.data("tool_use.executing")
    [result] = turn.data("tool_result")

    user, assistant = api.messages(session)

    assert (user["role"], user["status"], user["usage"]) == ("user", "completed", None)
    assert user["id"] not in ("", turn.id)
    assert assistant["id"] == turn.id
    assert assistant["content"] == [
        {"type": "thinking", "text": "hm"},
        {"type": "text", "text": "Some text"},
        {"type": "tool_use", "id": call["id"], "name": "list_files", "input": {}},
        {"type": "tool_result", "id": call["id"], "content": result["content"], "is_error": False},
        {"type": "text", "text": "end"},
    ]
    assert assistant["usage"] == turn.usage == api.responses(session)[0]["usage"]
    assert api.responses(session)[0]["last_sequence_number"] == len(turn.events) - 1


def test_another_tenant_finds_nothing_of_it(demo: Server, api: Api, own: Api) -> None:
    session = api.create()["id"]
    with api.sending(session, "/text a\n/stall 20") as live:
        live.until("text.delta")
        paths = [
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/messages"),
            ("GET", "/messages"),
            ("GET", "/responses"),
            ("GET", f"/responses/{live.id}"),
            ("GET", f"/responses/{live.id}/events"),
            ("POST", f"/responses/{live.id}/cancel"),
        ]
        told: dict[str, set[str]] = {path: set() for _, path in paths}
        for where in (session, NOBODY):
            for method, path in paths:
                body = {"json": {"message": "x"}} if method in ("POST", "PATCH") and "cancel" not in path else {}
                answer = own.refused(method, f"/v1/sessions/{where}{path}", 404, "not_found", **body)
                told[path].add(answer.json()["message"].replace(where, "…").replace(live.id, "…"))
        assert own.request("DELETE", "/v1/sessions?status=idle", status=200).json() == {"deleted": 0}
        assert own.get("/v1/sessions") == []
        api.request("POST", f"/v1/sessions/{session}/responses/{live.id}/cancel", status=202)
        live.rest()

    # Nothing tells a session of others from one that never was.
    assert all(len(sentences) == 1 for sentences in told.values()), told
    assert api.session(session)["response_id"] == live.id


def test_an_idempotency_key_is_its_tenants_own(api: Api, own: Api) -> None:
    headers = {"Idempotency-Key": "the same"}

    first = api.send(api.create()["id"], "hello", headers=headers)
    second = own.send(own.create()["id"], "other", headers=headers)

    assert first.id != second.id


def test_a_revoked_key_is_refused_within_seconds(demo: Server) -> None:
    key = demo.run("keys", "create", "to go", "--tenant", "gone").split()[-1]
    caller = demo.api(key)
    caller.get("/v1/sessions")

    demo.run("keys", "revoke", "to go")

    deadline = time.monotonic() + 8
    while caller.http.get("/v1/sessions").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    caller.refused("GET", "/v1/sessions", 401, "unauthorized")


@pytest.mark.slow
def test_a_session_that_is_not_persistent_goes_after_its_idle_time(serve: Callable[..., Server]) -> None:
    api = serve(IDLE_TTL_S=1).api()
    short, long = api.create()["id"], api.create(persistent=True)["id"]

    deadline = time.monotonic() + 15
    while api.request("GET", f"/v1/sessions/{short}").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert api.session(long)["persistent"] is True


def test_the_command_line_beside_a_running_server_takes_nothing_from_under_it(serve: Callable[..., Server]) -> None:
    server = serve()
    server.run("keys", "create", "second", "--tenant", "other")
    server.run("keys", "list")

    session = server.api().create(persistent=True)["id"]
    server.api().send(session, "hello")
    assert not [name for name in server.open_files() if "(deleted)" in name and "turnwire.db" in name]
    server.kill()
    server.restart()

    assert len(server.api().messages(session)) == 2
