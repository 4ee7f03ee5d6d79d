"""A proxy in front of a real server that breaks one rule, and leaves all else as it is.

A `Fault` is a few functions of bytes; the proxy passes one request a connection through, as the kit sends them.
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

from turnwire.conformance.wire import Exchange, Target, WireError

UPSTREAM_S = 40.0
COMMENT = re.compile(rb":\n\n?")


@dataclass(frozen=True)
class Answer:
    """An answer with its whole body, or the head of a stream (then the body is empty)."""

    method: str
    path: str
    status: int
    headers: dict[str, str]
    body: bytes = b""

    def without(self, header: str) -> Self:
        return replace(self, headers={name: value for name, value in self.headers.items() if name != header})

    def having(self, **headers: str) -> Self:
        return replace(self, headers=self.headers | {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass(frozen=True)
class Fault:
    """What goes wrong: `case` must fail, for breaking `rule`."""

    case: str
    rule: str
    request: Callable[[bytes], bytes] = lambda raw: raw
    answer: Callable[[Answer], Answer] = lambda answer: answer
    head: Callable[[Answer], Answer] = lambda answer: answer
    frame: Callable[[bytes], bytes] = lambda frame: frame
    comment: Callable[[bytes], bytes] = lambda comment: comment
    ending: Callable[[Answer], bytes] = lambda answer: b""
    """What is sent behind the last frame, before the body's end."""
    keep_open: bool = False
    cut: bool = False
    """Whether the end of the body is left out."""


class Proxy:
    """Listens on a port of its own; ends with the `with`."""

    def __init__(self, url: str, fault: Fault) -> None:
        self._upstream = Target(url, "")
        self._fault = fault
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, WireError):
            raw = read_request(connection)
            words = raw.split(b"\r\n", 1)[0].decode().split(" ")
            method, path = (words[0], words[1]) if len(words) == 3 else ("", "")
            host = urlsplit(self._upstream.url).netloc.encode()
            raw = re.sub(rb"(?m)^Host: .*$", b"Host: " + host + b"\r", raw, count=1)
            exchange = Exchange(self._upstream, self._fault.request(raw), time.monotonic() + UPSTREAM_S)
            try:
                answer = Answer(method, path, exchange.status, exchange.headers)
                if exchange.headers.get("content-type", "").startswith("text/event-stream"):
                    self._stream(connection, exchange, answer)
                else:
                    self._plain(connection, exchange, answer)
            finally:
                exchange.close()

    def _plain(self, connection: socket.socket, exchange: Exchange, answer: Answer) -> None:
        if answer.method != "HEAD":
            answer = replace(answer, body=exchange.read_all())
        answer = self._fault.answer(answer).without("transfer-encoding")
        if answer.status not in (204, 304):
            answer = answer.having(content_length=str(len(answer.body)))
        send_head(connection, answer)
        connection.sendall(answer.body)

    def _stream(self, connection: socket.socket, exchange: Exchange, answer: Answer) -> None:
        send_head(connection, self._fault.head(answer))
        at, more = 0, True
        while more:
            while (piece := next_piece(exchange.body, at)) is not None:
                at += len(piece)
                send_chunk(connection, self._fault.comment(piece) if piece[:1] == b":" else self._fault.frame(piece))
            more = exchange.read()
        if exchange.finished and not self._fault.cut:
            send_chunk(connection, self._fault.ending(answer))
            connection.sendall(b"0\r\n\r\n")
        if self._fault.keep_open:
            connection.settimeout(UPSTREAM_S)
            connection.recv(1)


def read_request(connection: socket.socket) -> bytes:
    """One request, whole, as it came."""
    raw = bytearray()
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: chunked", head)
    while (length and len(body) < int(length[1])) or (chunked and not body.endswith(b"0\r\n\r\n")):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def next_piece(body: bytearray, at: int) -> bytes | None:
    """The comment or frame at `at`, once it is whole."""
    comment = COMMENT.match(body, at)
    if comment:
        return comment[0]
    end = body.find(b"\n\n", at)
    return None if end < 0 else bytes(body[at : end + 2])


def send_head(connection: socket.socket, answer: Answer) -> None:
    lines = [f"HTTP/1.1 {answer.status} Status", *(f"{name}: {value}" for name, value in answer.headers.items())]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def send_chunk(connection: socket.socket, data: bytes) -> None:
    if data:
        connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
