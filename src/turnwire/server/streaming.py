"""A turn on its way out: ready bytes from a follower to the socket, with heartbeats while it is quiet."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from turnwire.engine.follow import Follower
from turnwire.protocol.errors import TurnwireError
from turnwire.protocol.sse import HEARTBEAT, HEARTBEAT_NUMBERED
from turnwire.seams.store import StoreDamaged

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
        transport: asyncio.Transport = scope["state"]["transport"]
        pulse = self._pulse
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            pulse.start(transport)
            gone.add_done_callback(pulse.on_gone)
            ended = await self._send_events(send, gone)
            pulse.sending()
            if ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                transport.close()
                await gone
        finally:
            pulse.stop()
            gone.cancel()
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


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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
        self._sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def start(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.sent()
        self._timer = self._loop.call_later(min(self._interval_s, self._slow_s), self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def due(self) -> bool:
        """The stream was quiet for so long that it needs a heartbeat."""
        return self._loop.time() - self._last >= self._interval_s * 0.9

    def sending(self) -> None:
        self._last = self._loop.time()
        self._sending = True

    def sent(self) -> None:
        self._last = self._loop.time()
        self._sending = False

    def on_gone(self, _: object) -> None:
        self._follower.nudge()

    def _look(self) -> None:
        quiet_s = self._loop.time() - self._last
        limit_s = self._slow_s if self._sending else self._interval_s
        if quiet_s < limit_s:
            self._timer = self._loop.call_later(limit_s - quiet_s, self._look)
            return
        if self._sending:
            log.info("slow_reader_cut", seconds=quiet_s)
            assert self._transport is not None
            self._transport.abort()
            return
        self._follower.nudge()
        self._timer = self._loop.call_later(self._interval_s, self._look)
