"""A connection: uvicorn's HTTP protocol, with the bounds in time and the errors that ours needs beside."""

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from turnwire.protocol.codec import encode_json
from turnwire.protocol.errors import InvalidRequest
from turnwire.protocol.ids import new_request_id

HEAD_BYTES_MAX = 256 * 1024
"""Bytes of a request's head, which is held in memory before anybody knows whose it is."""


class Connection(HttpToolsProtocol):
    """`tcp_user_timeout_ms`: how long sent bytes may stay unacknowledged before the connection counts as dead. A
    half-open one is noticed by this alone: heartbeats just queue on it, and Linux gives up after some 15 minutes."""

    tcp_user_timeout_ms = 60_000
    header_timeout_s = 20.0
    """How long the head of a request may take: a half-sent one would hold its connection for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock: Any = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT") and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.tcp_user_timeout_ms)
        self._head_timer = self.loop.call_later(self.header_timeout_s, self._on_slow_head)
        self._head_bytes = 0
        self._is_lost = False
        self._lost: asyncio.Future[None] | None = None

    def until_lost(self) -> asyncio.Future[None]:
        """Done when the connection is lost. What else arrives on it is read meanwhile, else that would go unnoticed."""
        if self._lost is None:
            self._lost = self.loop.create_future()
            if self._is_lost:
                self._lost.set_result(None)
            else:
                self.flow.resume_reading()
        return self._lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._lost is not None:
            self._lost.set_result(None)
        self._head_timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer.cancelled():  # a later request on the same connection
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._on_slow_head)
        # A stream breaks its connection off where a clean end would be a lie.
        self.scope["state"]["connection"] = self  # pyright: ignore[reportTypedDictNotRequiredAccess]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer.cancelled():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(f"The head of the request is larger than {HEAD_BYTES_MAX // 1024} KiB.")

    def on_headers_complete(self) -> None:
        self._head_timer.cancel()
        self._head_bytes = 0
        super().on_headers_complete()

    def _on_slow_head(self) -> None:
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse("This is no valid HTTP/1.1 request.")

    def _refuse(self, message: str) -> None:
        body = encode_json({"error": InvalidRequest.name, "message": message})
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (new_request_id().encode(), len(body), body)
        )
        self.transport.close()
