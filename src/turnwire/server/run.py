"""The server's life: it listens, it is ready, it is asked to stop, it drains.

The signals are ours, not uvicorn's: uvicorn closes its listeners first, and callers would see a refused connection
where they are to see a 503 that says when to try again.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
import uvicorn

from turnwire.engine.turns import Turns
from turnwire.server.connection import Connection

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 3
"""Seconds that uvicorn waits, after the drain, for connections to take what they were sent."""


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the HTTP side. Times are seconds."""

    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    shutdown_grace_s: float = 10.0
    tcp_user_timeout_s: float = 60.0
    header_timeout_s: float = 20.0


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    app: Any,
    sock: socket.socket,
    turns: Turns,
    options: HttpOptions,
    *,
    ready: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
) -> None:
    """Serve `app` on `sock` until a signal or `stop`; `ready` is awaited once it listens.

    The first SIGTERM or SIGINT drains: new turns are refused with 503, running ones may end for the grace time, then
    the streams close. The second one goes at once.
    """
    Connection.tcp_user_timeout_ms = int(options.tcp_user_timeout_s * 1000)
    Connection.header_timeout_s = options.header_timeout_s
    server = _Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(options.trusted_proxies),
            forwarded_allow_ips=list(options.trusted_proxies),
            timeout_keep_alive=30,
            timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
        )
    )
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        log.info("stopping", at_once=signals > 1)
        if signals > 1:
            turns.supervisor.abandon()
            server.force_exit = True
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        await ready()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await turns.drain(options.shutdown_grace_s if signals < 2 else 0)
    finally:
        server.should_exit = True
        await serving
