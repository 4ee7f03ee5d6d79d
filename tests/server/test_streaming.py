"""The two bounds in time of a stream: how long it may be quiet, and how long its reader may take nothing."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import pytest
from starlette.types import Message

from turnwire.engine.follow import Follower
from turnwire.protocol.errors import NotFound
from turnwire.seams.store import StoreDamaged
from turnwire.server.edge import Edge
from turnwire.server.streaming import EventStream


class Parts:
    """A follower of fixed parts; an exception among them is raised."""

    numbered = False
    cut_off = False

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def nudge(self) -> None:
        pass


class Line:
    """The server's side of a connection whose reader takes `takes` bytes each time that it is looked at."""

    def __init__(self, sock: socket.socket, takes: int = 0) -> None:
        self.transport = self
        self.sock = sock
        self.takes = takes
        self.left = 1_000_000
        self.sent: list[Message] = []
        self.over = asyncio.Event()
        self.aborted = self.closed = False

    def get_extra_info(self, _: str) -> socket.socket:
        return self.sock

    def get_write_buffer_size(self) -> int:
        self.left -= self.takes
        if self.left <= 0:
            self.over.set()
        return max(self.left, 0)

    def abort(self) -> None:
        self.aborted = True
        self.over.set()

    def close(self) -> None:
        self.closed = True
        self.over.set()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def until_lost(self) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.over.wait())


@pytest.fixture
def line() -> Iterator[Line]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Line(ours)


async def _nothing() -> Message:
    raise AssertionError("a stream reads nothing")


async def run(line: Line, *parts: bytes | Exception, on_last: Any = None) -> None:
    async def send(message: Message) -> None:
        await line.send(message)
        if on_last is not None and message.get("more_body") is False:
            await on_last()

    stream = EventStream(
        cast(Follower, Parts(*parts)),
        "msg_0",
        heartbeat_interval_s=5,
        slow_reader_timeout_s=0.2,
        on_close=lambda: None,
    )
    scope = {"type": "http", "headers": [], "method": "GET", "path": "/", "state": {"connection": line}}
    async with asyncio.timeout(5):
        await Edge(stream)(scope, _nothing, send)


async def test_a_reader_that_stops_before_the_end_of_the_body_is_cut_off_too(line: Line) -> None:
    await run(line, b"all there is", on_last=line.over.wait)

    assert line.aborted


async def test_a_reader_that_takes_a_little_at_a_time_is_not_cut_off(line: Line) -> None:
    line.takes = 100_000  # ten looks, each a quarter of the limit after the other

    await run(line, b"all there is", on_last=line.over.wait)

    assert not line.aborted
    assert line.left <= 0


@pytest.mark.parametrize("trouble", [NotFound("The events are gone."), StoreDamaged("not what was written")])
async def test_events_that_can_not_be_read_end_the_stream_without_a_clean_end(line: Line, trouble: Exception) -> None:
    await run(line, b"a part", trouble)

    assert [message.get("body") for message in line.sent] == [None, b"a part"]
    assert line.closed
