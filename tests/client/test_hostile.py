"""Servers, functions and programs that do what nobody should: the client neither hangs nor loses anything."""

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client.canned import CREATED, RECORD, Canned, answer, frame, stream
from e2e.harness import Server
from turnwire import AsyncClient, Client, ClientError, RemoteProtocolError, ToolResult, Unreachable
from turnwire.client.errors import error_of
from turnwire.client.steps import Course, Step
from turnwire.client.turns import TurnFlow

pytestmark = pytest.mark.slow

SESSION = answer(201, RECORD)
TEXT = [frame(1, "text.start"), frame(2, "text.delta", content="hi"), frame(3, "text.stop")]
DONE = frame(4, "message.completed", id="msg_1", status="completed", usage={})

# Servers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3),
        ("1.2", 2),
        ("9" * 5000, None),
        ("soon", None),
        ("-1", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 0),
        ("Sun, 06 Nov 1994 08:49:37 +99999999999", None),
    ],
)
def test_whatever_stands_in_retry_after_the_error_is_the_servers(text: str, seconds: int | None) -> None:
    assert error_of(503, {"retry-after": text}, b"").retry_after_s == seconds


def test_a_date_in_the_form_of_asctime_is_one_of_utc() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)

    assert error_of(503, {"retry-after": at.strftime("%a %b %d %H:%M:%S %Y")}, b"").retry_after_s in range(87, 92)


@pytest.mark.parametrize("link", ['<http://[>; rel="next"', '</v1/sessions?cursor=1>; rel="next"'])
def test_a_list_that_leads_nowhere_or_in_a_circle_ends(link: str) -> None:
    with Canned(answer(200, [RECORD], Link=link)).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(RemoteProtocolError, match="list leads"):
            list(tw.sessions.list())


def test_a_number_of_deleted_sessions_that_is_missing_is_a_broken_protocol() -> None:
    with Canned(answer(200, {"gone": 1})).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(RemoteProtocolError, match="deleted"):
            tw.sessions.delete_many(status="idle")


def file_answer(status: int, body: bytes, length: int, **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{''.join(lines)}\r\n".encode() + body


@pytest.mark.parametrize("said", ["bytes 0-5/6", "bytes 30-33/34"])
def test_a_range_that_is_not_what_was_asked_for_is_not_put_behind_the_rest(said: str) -> None:
    first = file_answer(200, b"ab", 6, ETag='"1"')
    other = file_answer(206, b"xxxx", 4, ETag='"1"', Content_Range=said)
    with Canned(answer(200, RECORD), first, other).running() as server, Client(server.url, "k") as tw:
        with pytest.raises(ClientError, match="begin again"):
            tw.sessions.get("sess_1").files.read("a")


def test_a_gateway_may_have_let_the_message_through_so_what_follows_may_be_history() -> None:
    called: list[int] = []

    def f() -> None:
        called.append(1)

    call = [
        frame(1, "tool_use.start", name="f", id="call_1"),
        frame(2, "tool_use.executing", name="f", id="call_1", input={}),
        frame(3, "tool_use.stop"),
        frame(4, "tool_call.requested", id="call_1", name="f", input={}, kind="tool", deadline=0),
    ]
    rest = [
        frame(5, "tool_call.answered", id="call_1", kind="tool"),
        frame(6, "tool_result", id="call_1", content="", is_error=False),
        frame(7, "message.completed", id="msg_1", status="completed", usage={}),
    ]
    response = answer(200, {"id": "msg_1", "status": "in_progress", "last_sequence_number": 6})
    answers = [SESSION, answer(502, b""), stream(CREATED, *call), response, stream(*rest), response]
    with Canned(*answers).running() as server, Client(server.url, "k") as tw:
        tw.sessions.create(tools=[f]).send("hello").result()

    assert called == []


# Keys


def test_no_error_shows_a_key_or_a_password() -> None:
    with pytest.raises(ValueError, match="this is a key") as swapped:
        Client("tw_default_secret", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="no address") as broken:
        Client("http://me:secret@:x", "secret")
    with Client("http://me:secret@127.0.0.1:9", "secret") as tw, pytest.raises(Unreachable) as unreachable:
        tw.models()

    for caught in (swapped, broken, unreachable):
        assert "secret" not in str(caught.value)
    assert "secret" not in repr(tw)


@pytest.mark.parametrize("key", ["ключ", "a\r\nX: y"])
def test_an_idempotency_key_that_no_header_carries_is_refused(key: str) -> None:
    with Canned(SESSION).running() as server, Client(server.url, "k") as tw:
        session = tw.sessions.create()
        with pytest.raises(ValueError, match="idempotency_key"):
            session.send("hello", idempotency_key=key)


# Functions


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Undumpable:
    def model_dump(self, mode: str) -> object:
        raise KeyError(mode)


def unspeakable() -> None:
    raise Unspeakable


def endless() -> None:
    raise ValueError("x" * 5_000_000)


def pairs() -> object:
    return {(1, 2): 3}


def undumpable() -> object:
    return Undumpable()


def huge() -> int:
    return math.factorial(100)


@pytest.mark.parametrize("function", [unspeakable, endless, pairs, undumpable, huge])
def test_whatever_a_function_does_the_turn_goes_on(demo: Server, function: Callable[[], Any]) -> None:
    with Client(demo.url, demo.key, retry_timeout_s=5) as tw:
        turn = tw.sessions.create(tools=[function]).send(f"/call {function.__name__}")
        (result,) = [event for event in turn if isinstance(event, ToolResult)]

    assert result.is_error
    assert len(result.content) < 100_000


def stop() -> None:
    next(iter([]))


async def cancelled() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    inner.cancel()
    await inner


@pytest.mark.parametrize("function", [stop, cancelled])
async def test_it_goes_on_in_asyncio_where_these_two_are_special(demo: Server, function: Callable[[], Any]) -> None:
    async with AsyncClient(demo.url, demo.key) as tw:
        session = await tw.sessions.create(tools=[function])
        async with asyncio.timeout(20):
            text = await session.send(f"/call {function.__name__}").text()

    assert f"{function.__name__} failed" in text


# Programs


def test_a_turn_that_is_read_by_two_threads_at_once_says_so(demo: Server) -> None:
    with Client(demo.url, demo.key) as tw:
        turn = tw.sessions.create().send("/stream 10 5")
        began = threading.Event()
        texts: list[str] = []

        def read() -> None:
            began.set()
            texts.append(turn.text())

        thread = threading.Thread(target=read)
        thread.start()
        began.wait()
        time.sleep(0.7)
        with pytest.raises(RuntimeError, match="read already"):
            turn.text()
        thread.join()

    assert len(texts) == 1


async def test_and_so_does_one_that_two_tasks_read(demo: Server) -> None:
    async with AsyncClient(demo.url, demo.key) as tw:
        turn = (await tw.sessions.create()).send("/stream 5 5")
        first, second = await asyncio.gather(turn.text(), turn.text(), return_exceptions=True)

    assert first == "1 2 3 4 5 "
    assert isinstance(second, RuntimeError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_does_not_read_the_answers_of_its_parent(demo: Server) -> None:
    with Client(demo.url, demo.key, retry_timeout_s=5) as tw:
        ours, theirs = tw.sessions.create().id, tw.sessions.create().id
        for _ in range(5):
            tw.sessions.get(ours)  # leaves a connection open
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = int(any(tw.sessions.get(theirs).id != theirs for _ in range(20)))
                finally:
                    os._exit(code)
            assert all(tw.sessions.get(ours).id == ours for _ in range(20))
            assert os.waitpid(child, 0)[1] == 0


class Interrupting:
    """A client's driver, and a Ctrl-C in the flow itself at the n-th time that it is asked for the next thing."""

    def __init__(self, flow: TurnFlow, at: int) -> None:
        self.course = Course(self._flow(flow.events()), flow.events_again)
        self.left = at

    def _flow(self, flow: Any) -> Any:
        value = None
        while True:
            try:
                out = flow.send(value)
            except StopIteration:
                return
            self.left -= 1
            if self.left == 0 and isinstance(out, Step):
                raise KeyboardInterrupt
            value = yield out


@pytest.mark.parametrize("at", range(1, 12))
def test_ctrl_c_in_the_midst_of_the_client_loses_no_event(at: int) -> None:
    answers = [SESSION, stream(CREATED, *TEXT, DONE), stream(CREATED, *TEXT, DONE)]
    with Canned(*answers).running() as server, Client(server.url, "k") as tw:
        turn = tw.sessions.create().send("hello")
        turn._course = Interrupting(turn._flow, at).course  # pyright: ignore[reportPrivateUsage]
        events = []
        for _ in range(3):
            try:
                events += [event.type for event in turn]
            except KeyboardInterrupt:
                continue
        result = turn.result()

    assert result.status == "completed"
    assert result.text == "hi"
