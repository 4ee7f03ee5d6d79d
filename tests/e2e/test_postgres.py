"""A server on PostgreSQL whose database goes away, and comes back."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from clusters import Cluster, running
from e2e.harness import KEY, Api, Server, eventually
from turnwire.engine.context import prompt_entry
from turnwire.stores.postgres import PostgresStore
from turnwire.stores.postgres.database import DOUBT_PATIENCE_S
from turnwire.testing.store_cases import a_turn

pytestmark = [pytest.mark.slow, pytest.mark.tool("postgres")]

AUTH = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Of the test's own: it is stopped, and syncs what it writes."""
    with running() as cluster:
        cluster.sql("CREATE DATABASE own")
        yield cluster


@pytest.fixture
def server(cluster: Cluster, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, DATABASE_URL=cluster.url("own")) as server:
        yield server


class _Sent:
    """A message whose answer is read in a thread."""

    def __init__(self, api: Api, session: str, message: str) -> None:
        self.turn: Any = None
        self._thread = threading.Thread(target=self._send, args=(api, session, message), daemon=True)
        self._thread.start()

    def _send(self, api: Api, session: str, message: str) -> None:
        self.turn = api.send(session, message)

    def ended(self) -> Any:
        self._thread.join(60)
        assert self.turn is not None
        return self.turn


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_a_restart_of_the_database_is_not_noticed_by_who_reads_a_turn(
    server: Server, cluster: Cluster, how: signal.Signals
) -> None:
    api = server.api()
    session = api.create()["id"]
    sent = [_Sent(api, session_, "/stream 300 60") for session_ in (session, *(api.create()["id"] for _ in range(5)))]
    time.sleep(1.5)

    cluster.stop(how)
    time.sleep(1)
    cluster.start()

    for one in sent:
        turn = one.ended()
        assert turn.ending == "message.completed"
        assert turn.text.split() == [str(n) for n in range(1, 301)]
    assert not api.session(session)["busy"]


def test_a_database_that_stays_away_ends_turns_in_an_error_and_the_server_goes_on_when_it_is_back(
    server: Server, cluster: Cluster
) -> None:
    api = server.api()
    session = api.create()["id"]
    sent = _Sent(api, session, "/stream 6000 100")
    time.sleep(1.5)

    cluster.stop()
    answer = httpx.post(f"{server.url}/v1/sessions/{session}/messages", headers=AUTH, json={"message": "x"}, timeout=60)
    assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0, answer.text
    assert "database" in answer.text
    time.sleep(DOUBT_PATIENCE_S)  # as long as a turn waits for its commit, which may have been under way
    cluster.start()

    turn = sent.ended()
    assert "or its database away?" in turn.error
    assert eventually(lambda: not api.session(session)["busy"])
    assert api.send(session, "/stream 3").ending == "message.completed"
    assert server.process.poll() is None


def streaming(server: Server, session: str, message: str) -> AbstractContextManager[httpx.Response]:
    """The answer to a message, which nobody reads."""
    url = f"{server.url}/v1/sessions/{session}/messages"
    return httpx.stream("POST", url, headers=AUTH, json={"message": message})


def test_a_server_that_is_killed_goes_on_with_its_turns(server: Server) -> None:
    session = server.api().create()["id"]
    with streaming(server, session, "/stream 200 60") as answer:
        response_id = answer.headers["X-Response-Id"]
        time.sleep(1)
        server.kill()

    server.restart()

    turn = server.api().follow(session, response_id)
    assert turn.ending == "message.completed"


def test_a_turn_whose_begin_nobody_was_told_of_is_taken_up_when_its_lease_has_run_out(
    server: Server, cluster: Cluster
) -> None:
    api = server.api()
    session_id = api.create()["id"]

    async def begin() -> str:
        store = await PostgresStore.open(cluster.url("own"), hold=False)
        session = await store.get_session("default", session_id)
        begun = await store.begin_turn(a_turn(session, history=prompt_entry("/stream 3"), lease_s=0.1))
        await store.close()
        return begun.turn.id

    response_id = asyncio.run(begin())

    assert eventually(lambda: not api.session(session_id)["busy"])
    turn = api.follow(session_id, response_id)
    assert (turn.ending, turn.text) == ("message.completed", "1 2 3 ")


def test_a_server_whose_database_another_one_has_taken_stops_with_a_sentence(cluster: Cluster, tmp_path: Path) -> None:
    server = Server(tmp_path, DATABASE_URL=cluster.url("own")).start()
    session = httpx.post(f"{server.url}/v1/sessions", headers=AUTH, json={}).json()["id"]
    held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND granted"
    rival = cluster.psql("SELECT pg_advisory_lock(1953982834, 1), pg_sleep(60)", "own")
    try:
        with streaming(server, session, "/stream 3000 100"):
            eventually(lambda: cluster.sql(held.replace("granted", "NOT granted")))
            cluster.sql(f"SELECT pg_terminate_backend({cluster.sql(held)})")
            assert server.wait() == 1
    finally:
        server.kill()
        rival.kill()
        rival.wait()
        server.process.communicate()

    last = server.log.strip().splitlines()[-1]
    assert last.startswith("turnwire: The database failed, so the server stopped: Another server (")
    assert "run one server on it" in last
