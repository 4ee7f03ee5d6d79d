"""Durable before visible: nothing reaches a caller that is not in the database file."""

import asyncio
import select
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from e2e import wire
from e2e.harness import Api, Server, eventually


@contextmanager
def held(server: Server) -> Iterator[None]:
    """The database's write lock, taken by another connection."""
    with sqlite3.connect(server.database, timeout=5, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
    other.close()


def raw_message(server: Server, session: str, message: str) -> socket.socket:
    body = f'{{"message": "{message}"}}'.encode()
    head = (
        f"POST /v1/sessions/{session}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(head.encode() + body)
    return connection


def silent(connection: socket.socket, seconds: float) -> bool:
    """Whether not a byte comes in this time."""
    return not select.select([connection], [], [], seconds)[0]


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def test_a_held_database_shows_no_byte_and_released_shows_all(demo: Server, api: Api) -> None:
    session = api.create()["id"]
    connection = raw_message(demo, session, "/stream 300 200")
    received = b""
    while b"text.delta" not in received:
        received += connection.recv(65536)

    with held(demo):
        time.sleep(0.3)
        while not silent(connection, 0):  # what was committed before
            received += connection.recv(65536)
        assert silent(connection, 1.0)
        replay = api.http.build_request("GET", f"/v1/sessions/{session}/messages")
        so_far = api.http.send(replay).json()[1]["content"][0]["text"]
        assert received.count(b"event: text.delta") == len(so_far.split()), "shown is what is stored, no more, no less"
    received += read_all(connection)
    connection.close()

    assert received.endswith(b"0\r\n\r\n")
    assert received.count(b"event: text.delta") == 300
    assert b"event: message.completed" in received


def test_a_message_is_answered_only_when_its_turn_is_durable(demo: Server, api: Api) -> None:
    session = api.create()["id"]

    with held(demo):
        connection = raw_message(demo, session, "hello")
        assert silent(connection, 0.7)
    received = read_all(connection)
    connection.close()

    assert received.startswith(b"HTTP/1.1 200")
    assert b"event: message.completed" in received


def test_a_tool_does_not_start_before_its_call_is_durable(demo: Server, api: Api) -> None:
    session = api.create(workspace="private")["id"]
    connection = raw_message(
        demo, session, '/stall 1.5\\n/call write_file {\\"path\\": \\"mark\\", \\"content\\": \\"x\\"}\\n/then\\nend'
    )
    received = b""
    while b'"in_progress"}' not in received:
        received += connection.recv(65536)

    with held(demo):
        assert silent(connection, 2.5)
        assert not list(demo.data_dir.rglob("mark"))
    received += read_all(connection)
    connection.close()

    assert b"event: message.completed" in received
    assert list(demo.data_dir.rglob("mark"))


def test_fifty_streams_share_commits(demo: Server, api: Api) -> None:
    """Counted by what commits leave: a segment for each turn that a commit holds."""
    sessions = [api.create()["id"] for _ in range(50)]

    async def all_of_them() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {demo.key}"}
        async with httpx.AsyncClient(base_url=demo.url, headers=headers, timeout=60, limits=limits) as client:
            body = {"message": "/stream 500"}
            return await asyncio.gather(*(client.post(f"/v1/sessions/{s}/messages", json=body) for s in sessions))

    with sqlite3.connect(f"file:{demo.database}?mode=ro", uri=True) as db:
        answers = asyncio.run(all_of_them())
        ids = [answer.headers["x-response-id"] for answer in answers]
        marks = ",".join("?" * len(ids))
        (segments, events) = db.execute(
            "SELECT count(*), sum(segments.last_seq - first_seq + 1)"
            f" FROM segments JOIN turns ON turns.n = segments.turn WHERE turns.id IN ({marks})",
            ids,
        ).fetchone()
    db.close()

    assert events == sum(len(api.check_stream(answer, answer.content)) for answer in answers) == 50 * 504
    assert segments < events / 10, f"{segments} segments of {events} events"


def test_fifty_paced_streams_share_commits(demo: Server, api: Api) -> None:
    """One delta at a time, 20 a second each: what gathers from all turns while a commit runs is one commit."""
    sessions = [api.create()["id"] for _ in range(50)]
    commits = 0

    async def all_of_them() -> None:
        nonlocal commits
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {demo.key}"}
        async with httpx.AsyncClient(base_url=demo.url, headers=headers, timeout=60, limits=limits) as client:
            body = {"message": "/stream 40 20"}
            posts = asyncio.gather(*(client.post(f"/v1/sessions/{s}/messages", json=body) for s in sessions))
            versions = set[int]()
            while not posts.done():
                versions.add(db.execute("PRAGMA data_version").fetchone()[0])
                await asyncio.sleep(0.002)
            for answer in await posts:
                assert answer.status_code == 200
            commits = max(versions) - min(versions)

    with sqlite3.connect(f"file:{demo.database}?mode=ro", uri=True) as db:
        asyncio.run(all_of_them())
    db.close()

    assert 0 < commits < 50 * 40 / 2, f"{commits} commits seen for {50 * 44} events"


@pytest.mark.slow
def test_what_a_caller_has_seen_survives_a_kill(serve: Callable[..., Server]) -> None:
    server = serve()
    api = server.api()
    session = api.create(persistent=True)["id"]

    with api.sending(session, "/stream 2000 400", event_ids=True) as live:
        for _ in range(120):
            live.next()
        server.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            live.rest()
        seen = live.content[: live.content.rindex(b"\n\n") + 2]
    server.restart()

    api = server.api()
    turn = api.follow(session, live.id)
    assert turn.content.startswith(seen)
    assert turn.ending == "message.completed"
    assert wire.text_of(turn.events) == "".join(f"{n} " for n in range(1, 2001))
    eventually(lambda: not api.session(session)["busy"])
