"""A turn on its way out: ready bytes from a follower to the socket, with heartbeats while it is quiet."""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwire.engine.follow import Follower
from turnwire.protocol.errors import TurnwireError
from turnwire.protocol.sse import HEARTBEAT, HEARTBEAT_NUMBERED
from turnwire.seams.store import StoreDamaged
from turnwire.server.connection import Connection
from turnwire.server.edge import REST

log = structlog.get_logger(__name__)

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]


class EventStream(Response):
    """Streams what a follower gives, until the terminal event; then the body ends and the connection closes.

    A follower that is cut off (the server stops, another one holds the turn, its events are gone or damaged) has its
    connection broken instead: the body of a stream ends cleanly only behind a terminal event. A reader that takes
    nothing for `slow_reader_timeout_s` is cut off, too.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        follower: Follower,
        response_id: str,
        *,
        heartbeat_interval_s: float,
        slow_reader_timeout_s: float,
        on_close: Callable[[], None],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = [*HEADERS, (b"x-response-id", response_id.encode())]
        self._follower = follower
        self._response_id = response_id
        self._heartbeat = HEARTBEAT_NUMBERED if follower.numbered else HEARTBEAT
        self._pulse = _Pulse(follower, heartbeat_interval_s, slow_reader_timeout_s)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head; the rest is left to `Edge`."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        except BaseException:
            self._on_close()
            raise
        scope["state"][REST] = partial(self._send_rest, scope["state"]["connection"])

    async def _send_rest(self, connection: Connection, send: Send) -> None:
        """Send the body."""
        pulse, gone = self._pulse, connection.until_lost()
        try:
            pulse.start(connection.transport)
            gone.add_done_callback(pulse.on_gone)
            if await self._send_events(send, gone):
                pulse.sending()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                pulse.sending()
                connection.transport.close()
                await gone
        finally:
            pulse.stop()
            gone.remove_done_callback(pulse.on_gone)
            self._on_close()

    async def _send_events(self, send: Send, gone: asyncio.Future[None]) -> bool:
        """Send all that comes, while the reader is there; True behind the terminal event."""
        pulse = self._pulse
        try:
            async with aclosing(aiter(self._follower)) as parts:
                async for data in parts:
                    if gone.done():
                        return False
                    if not data and not pulse.due:
                        continue
                    pulse.sending()
                    await send({"type": "http.response.body", "body": data or self._heartbeat, "more_body": True})
                    pulse.sent()
        except TurnwireError as exc:  # the session was deleted meanwhile, or its events are past their retention
            log.info("stream_cut", response_id=self._response_id, error=exc.message)
            return False
        except StoreDamaged as exc:
            log.error("turn_damaged", response_id=self._response_id, error=str(exc))
            return False
        return not self._follower.cut_off


class _Pulse:
    """One timer to a stream, for both bounds in time: how long it may be quiet, and how long a send may hang.

    It is not moved for each event: when it fires, it looks how long ago the last one was.
    """

    def __init__(self, follower: Follower, heartbeat_interval_s: float, slow_reader_timeout_s: float) -> None:
        self._follower = follower
        self._interval_s = heartbeat_interval_s
        self._slow_s = slow_reader_timeout_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._left: int | None = None
        """What was left of the send that is under way, when it was last looked at."""
        self._sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def start(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.sent()
        self._timer = self._loop.call_later(min(self._interval_s, self._slow_s / 4), self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def due(self) -> bool:
        """The stream was quiet for so long that it needs a heartbeat."""
        return self._loop.time() - self._last >= self._interval_s * 0.9

    def sending(self) -> None:
        self._last = self._loop.time()
        self._left = None
        self._sending = True

    def sent(self) -> None:
        self._last = self._loop.time()
        self._sending = False

    def on_gone(self, _: object) -> None:
        self._follower.nudge()

    def _look(self) -> None:
        if self._sending and self._is_stalled():
            log.info("slow_reader_cut", seconds=round(self._slow_s, 1))
            assert self._transport is not None
            self._transport.abort()
            return
        left_s = self._interval_s - (self._loop.time() - self._last)
        if left_s <= 0 and not self._sending:
            self._follower.nudge()
        if left_s <= 0:
            left_s = self._interval_s
        self._timer = self._loop.call_later(min(left_s, self._slow_s / 4), self._look)

    def _is_stalled(self) -> bool:
        """Whether the reader took nothing of this send for `slow_reader_timeout_s`. A large one on a slow line may take
        longer than that as a whole."""
        assert self._transport is not None
        now, left = self._loop.time(), _unacknowledged(self._transport)
        if self._left is not None and left < self._left:
            self._last = now
        self._left = left
        return now - self._last >= self._slow_s


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the reader's side has not taken yet: those in our buffer, and on Linux those in the kernel's."""
    queued = 0
    sock: Any = transport.get_extra_info("socket")
    with suppress(OSError, ValueError):
        (queued,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    return transport.get_write_buffer_size() + queued
