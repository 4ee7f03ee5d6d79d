"""What every request passes: an id, a bound on its body, and an answer whatever happens."""

import asyncio
import re
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnwire.protocol.errors import InternalError, InvalidRequest, PayloadTooLarge
from turnwire.protocol.ids import new_request_id
from turnwire.server.problems import problem

log = structlog.get_logger(__name__)

BODY_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of a JSON body, chunked ones too (PROTOCOL.md): an image in a message fits, a film does not."""

BODY_SILENCE_S = 30.0
"""How long nothing of a body may come: one that never ends would hold its connection, and what came of it, for ever."""

PASSED_OVER_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of a body that is too large which are read all the same: what a caller sends by mistake, not in malice."""

REST = "turnwire.rest"
"""Where, in a scope's state, an answer puts the function that sends the rest of its body: `Edge` calls it when the
framework has let go of the request. A stream may last for hours; inside, it would hold some 12 KiB of frames and send
each event through four functions."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Edge:
    """ASGI middleware, the outermost of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        came = set(scope)
        started = 0
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            try:
                await self._app(scope, receive, send_with_id)
                rest = scope["state"].pop(REST, None)
                if rest is not None:
                    for name in scope.keys() - came:  # what the framework noted of the request
                        del scope[name]
                    await rest(send)
            except Exception:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if started:
                    raise
                await problem(InternalError())(scope, receive, send_with_id)
            finally:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=started,
                    duration_s=round(time.perf_counter() - began, 4),
                )


def _request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value
    return new_request_id().encode()


async def read_body(receive: Receive, headers: MutableMapping[str, str] | Any) -> bytes:
    """The whole body; `PayloadTooLarge` beyond BODY_BYTES_MAX, before it is kept where its length is told, and
    `InvalidRequest` when the caller hangs up in the middle of it, or falls silent."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        if headers.get("expect", "").lower() != "100-continue":  # else reading would ask for the body
            await _pass_over(receive)
        raise _too_large()
    try:
        return await _read_all(receive)
    except TimeoutError as exc:
        raise InvalidRequest(f"The body was cut short: nothing more of it came for {BODY_SILENCE_S:g} s.") from exc


async def _read_all(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        async with asyncio.timeout(BODY_SILENCE_S):
            message = await receive()
        if message["type"] == "http.disconnect":
            # What there is may well be whole JSON, and is still not what was to be sent. Nobody reads this answer.
            raise InvalidRequest("The body was cut short.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_BYTES_MAX:
            if message.get("more_body", False):
                await _pass_over(receive)
            raise _too_large()
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _pass_over(receive: Receive) -> None:
    """Read on for a while, and keep nothing: a connection that is closed with unread bytes in it is reset, and its
    caller would not see the answer."""
    size = 0
    with suppress(TimeoutError):
        while size < PASSED_OVER_BYTES_MAX:
            async with asyncio.timeout(BODY_SILENCE_S):
                message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {BODY_BYTES_MAX // 1024 // 1024} MiB.")
