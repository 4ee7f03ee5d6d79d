"""Programs as people run and stop them: Ctrl-C, sockets left open, sessions that go away."""

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from e2e.harness import Server, eventually
from turnwire import (
    AsyncClient,
    Client,
    MessageCancelled,
    MessageCreated,
    NotFound,
    TextDelta,
)

INTERRUPTED = """
import sys
from turnwire import Client, MessageCreated
with Client() as tw:
    turn = tw.sessions.create().send("/stall 20")
    try:
        for event in turn:
            if isinstance(event, MessageCreated):
                print("begun", flush=True)
    except KeyboardInterrupt:
        print(turn.cancel())
        print(*[event.type for event in turn][-1:], turn.ended)
"""


def program(server: Server, text: str) -> "subprocess.Popen[str]":
    env = {"PATH": os.environ["PATH"], "TURNWIRE_URL": server.url, "TURNWIRE_KEY": server.key}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", text]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_turn_is_cancelled_by_ctrl_c_and_read_to_its_ending(demo: Server) -> None:
    with program(demo, INTERRUPTED) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)

    assert (out, err, running.returncode) == ("True\nmessage.cancelled True\n", "", 0)


UNTIDY = """
import asyncio
from turnwire import AsyncClient, Client, TextDelta

def blocking():
    with Client() as tw:
        session = tw.sessions.create(workspace="private")
        session.files.upload(b"x" * 3_000_000, "a")
        for n in range(3):
            for event in tw.sessions.create().send("/stream 100 50"):
                if isinstance(event, TextDelta):
                    break
            for piece in session.files.stream("a"):
                break
        next(tw.sessions.list())

async def concurrent():
    asyncio.get_running_loop().slow_callback_duration = 60  # a machine that is slow is nothing that was left open
    async with AsyncClient() as tw:
        async for event in (await tw.sessions.create()).send("/stream 100 50"):
            if isinstance(event, TextDelta):
                break
        turns = [(await tw.sessions.create()).send("/stream 100 50") for _ in range(5)]
        tasks = [asyncio.create_task(turn.text()) for turn in turns]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

blocking()
asyncio.run(concurrent())
print("done")
"""


def test_a_program_that_leaves_its_loops_leaves_no_socket_open(demo: Server) -> None:
    with program(demo, UNTIDY) as running:
        out, err = running.communicate(timeout=40)

    assert (out, err) == ("done\n", "")  # warnings of what was not closed would stand on stderr


def test_leaving_a_loop_closes_its_connection_at_once(demo: Server, tw: Client) -> None:
    session = tw.sessions.create()
    tw.sessions.get(session.id)
    before = demo.sockets()
    for event in session.send("/stream 100 50"):
        if isinstance(event, TextDelta):
            break

    eventually(lambda: demo.sockets() <= before, 5)
    assert session.refresh().busy
    session.cancel()


def test_turns_that_end_leave_no_connection(demo: Server, tw: Client) -> None:
    tw.sessions.create().send("/text hi").text()
    before = demo.sockets()
    for _ in range(20):
        tw.sessions.create().send("/text hi").text()

    eventually(lambda: demo.sockets() <= before, 5)


def test_the_process_keeps_no_file_open(demo: Server) -> None:
    def count() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    with warnings.catch_warnings(), Client(demo.url, demo.key) as tw:
        warnings.simplefilter("error")
        for _ in range(5):
            for event in tw.sessions.create().send("/stream 20 100"):
                if isinstance(event, TextDelta):
                    break
    assert count() == before


def test_a_session_that_is_deleted_in_mid_turn_ends_the_reading(demo: Server, tw: Client) -> None:
    session = tw.sessions.create()
    events = []
    try:
        for event in session.send("/stream 1000 20"):
            events.append(event)
            if len(events) == 5:
                session.delete()
    except NotFound:
        return
    assert isinstance(events[-1], MessageCancelled)


async def test_a_client_is_used_by_tasks_that_come_and_go(demo: Server) -> None:
    before = len(threading.enumerate())
    async with AsyncClient(demo.url, demo.key) as tw:
        session = await tw.sessions.create()
        turn = session.send("/stall 20")
        async for event in turn:
            if isinstance(event, MessageCreated):
                break
        assert await session.cancel()
        assert isinstance([event async for event in turn][-1], MessageCancelled)
    assert len(threading.enumerate()) == before


def test_a_closed_client_says_so(demo: Server) -> None:
    client = Client(demo.url, demo.key)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.models()
