"""Servers that die, hang, refuse: the client goes on, or says in time that it can't."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.harness import Server, eventually
from turnwire import (
    AsyncClient,
    Client,
    MessageCreated,
    MessageResumed,
    TextDelta,
    ToolCallRequested,
    Unreachable,
    Waiting,
)


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with Server(tmp_path) as made:
        yield made


def after(seconds: float, what: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: (time.sleep(seconds), what()))
    thread.start()
    return thread


def die_and_come_back(server: Server) -> None:
    server.kill()
    time.sleep(0.5)
    server.restart()


def test_a_turn_goes_on_over_a_server_that_was_killed(server: Server) -> None:
    waits: list[Waiting] = []
    with Client(server.url, server.key, on_wait=waits.append) as tw:
        session = tw.sessions.create()
        turn = session.send("/text first\n/call list_files\n/then\n/stream 30 20")
        events, restart = [], None
        for event in turn:
            events.append(event)
            if restart is None and event == TextDelta("5 "):
                restart = after(0, lambda: die_and_come_back(server))
        assert restart is not None
        restart.join()

        assert any(isinstance(event, MessageResumed) for event in events)
        assert sum(isinstance(event, MessageCreated) for event in events) == 1
        whole = f"first\n\n{''.join(f'{n} ' for n in range(1, 31))}"
        assert turn.text() == whole
        assert session.messages()[-1].text == whole
        assert {wait.why for wait in waits} == {"disconnected"}


async def test_an_asynchronous_turn_too(server: Server) -> None:
    async with AsyncClient(server.url, server.key) as tw:
        turn = (await tw.sessions.create()).send("/stream 30 20")
        restart = None
        async for event in turn:
            if restart is None and event == TextDelta("5 "):
                restart = after(0, lambda: die_and_come_back(server))

        assert await turn.text() == "".join(f"{n} " for n in range(1, 31))
        assert restart is not None
        restart.join()


def test_a_call_that_waits_is_answered_after_the_server_was_killed(server: Server) -> None:
    calls: list[str] = []

    def ask() -> str:
        calls.append("ask")
        die_and_come_back(server)
        return "yes"

    with Client(server.url, server.key) as tw:
        session = tw.sessions.create(tools=[ask])
        result = session.send("/call ask\n/then\n/text done").result()

    assert result.text == "done"
    assert calls == ["ask"]
    assert [block.content for block in result.content if hasattr(block, "is_error")] == ["yes"]


def test_requests_wait_for_a_server_that_restarts(server: Server) -> None:
    with Client(server.url, server.key) as tw:
        session = tw.sessions.create(persistent=True)
        server.kill()
        back = after(0.5, server.restart)

        assert session.send("/text hi").text() == "hi"
        back.join()


def test_a_server_that_was_never_there_is_an_error_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with Client(url, "tw_x") as tw, pytest.raises(Unreachable, match="is it running there") as caught:
            tw.sessions.create()

    assert time.monotonic() - began < 1
    assert caught.value.status == 0


def test_an_outage_is_borne_for_so_long_and_no_longer(server: Server) -> None:
    with Client(server.url, server.key, retry_timeout_s=1.0) as tw:
        session = tw.sessions.create()
        turn = session.send("/stall 20")
        next(iter(turn))
        server.kill()

        began = time.monotonic()
        with pytest.raises(Unreachable, match="did not come back in time"):
            turn.text()
        assert 0.9 < time.monotonic() - began < 3

        server.restart()
        session.follow().cancel()
        session.cancel()


def test_a_silent_connection_is_taken_for_dead(tmp_path: Path) -> None:
    with Server(tmp_path, HEARTBEAT_INTERVAL_S=1) as server:
        waits: list[Waiting] = []
        with Client(server.url, server.key, heartbeat_timeout_s=0.4, on_wait=waits.append) as tw:
            session = tw.sessions.create()

            assert session.send("/text a\n/stall 1.5").text() == "a"
            assert waits


def test_heartbeats_keep_a_quiet_connection(tmp_path: Path) -> None:
    with Server(tmp_path, HEARTBEAT_INTERVAL_S=0.2) as server:
        waits: list[Waiting] = []
        with Client(server.url, server.key, heartbeat_timeout_s=0.8, on_wait=waits.append) as tw:
            assert tw.sessions.create().send("/text a\n/stall 2").text() == "a"

        assert waits == []


def test_a_turn_that_waits_for_an_answer_is_found_by_a_new_program(server: Server) -> None:
    with Client(server.url, server.key) as tw:
        session = tw.sessions.create(approvals=["write_file"])
        for event in session.send('/call write_file {"path": "a", "content": "b"}'):
            if isinstance(event, ToolCallRequested):
                break
    server.kill()
    server.restart()

    with Client(server.url, server.key) as tw:
        again = tw.sessions.get(session.id, on_approval=lambda call: False)
        assert again.follow().result().content[-1].text


def test_a_turn_whose_events_were_swept_away_is_made_from_the_conversation(tmp_path: Path) -> None:
    with Server(tmp_path, REPLAY_RETENTION_S=0.2) as server, Client(server.url, server.key) as tw:
        session = tw.sessions.create(persistent=True)
        first = session.send("/think Hm.\n/text one\n/call list_files\n/then\n/text two", idempotency_key="k")
        whole = first.result()
        api = server.api()
        path = f"/v1/sessions/{session.id}/responses/{first.response_id}/events"
        eventually(lambda: api.http.get(path).status_code == 404)

        again = session.send("/think Hm.\n/text one\n/call list_files\n/then\n/text two", idempotency_key="k").result()
        assert again == whole
        assert session.follow().result() == whole


def test_a_reader_that_rests_longer_than_the_server_bears_misses_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, SLOW_READER_TIMEOUT_S=1) as server, Client(server.url, server.key) as tw:
        session = tw.sessions.create()
        seen = 0
        for event in session.send("/stream 150000"):
            if isinstance(event, TextDelta):
                seen += 1
                assert event.content == f"{seen} "
                if seen == 1000:
                    time.sleep(3)

        assert seen == 150_000
        assert "slow_reader_cut" in server.log


@pytest.mark.long
async def test_many_turns_live_through_many_deaths_of_the_server(tmp_path: Path) -> None:
    calls: dict[int, int] = {}

    def tool_of(number: int) -> Callable[[int], str]:
        def look(n: int) -> str:
            calls[number] = calls.get(number, 0) + 1
            time.sleep(random.random())
            return f"{number}-{n}"

        return look

    async def one(tw: AsyncClient, number: int) -> str:
        session = await tw.sessions.create(tools=[tool_of(number)], persistent=True)
        steps = "\n/then\n".join(f'/text {n}\n/stream 20 40\n/call look {{"n": {n}}}' for n in range(5))
        result = await session.send(f"{steps}\n/then\n/text end").result()
        assert (await session.messages())[-1].content == result.content
        return " ".join(block.content for block in result.content if hasattr(block, "is_error"))

    with Server(tmp_path, RECOVERIES_MAX=100) as server:
        async with AsyncClient(server.url, server.key) as tw:
            tasks = [asyncio.create_task(one(tw, number)) for number in range(12)]
            deaths = 0
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.5 + random.random())
                await asyncio.to_thread(die_and_come_back, server)
                deaths += 1
            answers = await asyncio.gather(*tasks)

    assert deaths > 1
    assert answers == [" ".join(f"{number}-{n}" for n in range(5)) for number in range(12)]
    assert calls == dict.fromkeys(range(12), 5)
