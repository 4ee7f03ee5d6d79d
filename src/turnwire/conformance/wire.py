"""HTTP/1.1 on a bare socket: one request to a connection, every byte of the answer seen, every wait bounded.

An HTTP library would hide what is checked here: how a body is framed, whether it ended cleanly, and whether the
connection was closed behind it.
"""

import contextlib
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

HEAD_BYTES_MAX = 64 * 1024
"""Bytes of an answer's head: more is no answer of ours."""

BODY_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of an answer's body that are kept: no case asks for more."""


class WireError(Exception):
    """The server sent what is no answer, or nothing in time. `rule`: the rule of PROTOCOL.md that it breaks."""

    def __init__(self, why: str, rule: str = "") -> None:
        super().__init__(why)
        self.rule = rule


@dataclass(frozen=True)
class Target:
    """Where the server is. `key` is what requests show unless they say otherwise."""

    url: str
    key: str

    def address(self) -> tuple[str, int, bool, str]:
        """Host, port, whether by TLS, and the path under which the server is."""
        parts = urlsplit(self.url)
        tls = parts.scheme == "https"
        return parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/")


@dataclass(frozen=True)
class Request:
    """A request. `path` is below the server's own; `body` is sent as it stands."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    chunked: bool = False

    def encode(self, target: Target) -> bytes:
        host, port, tls, prefix = target.address()
        shown = f"[{host}]" if ":" in host else host
        headers = {"Host": shown if port == (443 if tls else 80) else f"{shown}:{port}", **self.headers}
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif self.body or self.method in ("POST", "PUT", "PATCH"):
            headers.setdefault("Content-Length", str(len(self.body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body = _chunks(self.body) if self.chunked else self.body
        return f"{self.method} {prefix}{self.path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def _chunks(body: bytes) -> bytes:
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Exchange:
    """One request and its answer. `read()` and `read_all()` take the body, without its framing, as it comes."""

    def __init__(self, target: Target, request: Request | bytes, deadline: float) -> None:
        """Sends the request and reads the head. `deadline` is `time.monotonic()`'s."""
        self.deadline = deadline
        self._received = bytearray()
        self._closed = False
        self.body = bytearray()
        """What has come of the body so far, whole."""
        self.finished = False
        """Whether the body has ended as its framing says."""
        host, port, tls, _ = target.address()
        try:
            self._socket = socket.create_connection((host, port), timeout=self._left())
            if tls:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
            self._send(request if isinstance(request, bytes) else request.encode(target))
            self.status, self.headers = self._read_head()
        except OSError as exc:
            self.close()
            raise WireError(f"The connection to {host}:{port} failed: {exc}.") from exc
        except BaseException:
            self.close()
            raise
        self._head_only = isinstance(request, Request) and request.method == "HEAD"
        self._start_body()

    def _send(self, data: bytes) -> None:
        # A server may refuse a large body before it has read all of it: its answer says so.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise WireError("The time of this case ran out.")
        return left

    def _fill(self) -> bool:
        """Take what comes next; False when the server has closed the connection."""
        if self._closed:
            return False
        self._socket.settimeout(self._left())
        try:
            piece = self._socket.recv(65536)
        except TimeoutError:
            shown = bytes(self.body[-120:] or self._received[-120:])
            raise WireError(
                f"Nothing more came before the time of this case ran out; the last bytes: {shown!r}."
            ) from None
        except OSError:
            piece = b""  # reset: the server broke it off
        if not piece:
            self._closed = True
            return False
        self._received += piece
        return True

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while True:
            end = self._received.find(b"\r\n\r\n")
            if end >= 0:
                break
            if len(self._received) > HEAD_BYTES_MAX or not self._fill():
                raise WireError(f"No HTTP answer came, but {bytes(self._received[:120])!r}.")
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        status = re.fullmatch(r"HTTP/1\.1 (\d{3})(?: .*)?", first)
        if not status:
            raise WireError(f"The answer does not begin as HTTP/1.1 does, but with {first[:120]!r}.")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            low = name.strip().lower()
            headers[low] = f"{headers[low]}, {value.strip()}" if low in headers else value.strip()
        return int(status[1]), headers

    def _start_body(self) -> None:
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        if self._head_only or self.status in (204, 304) or self.status < 200:
            self._to_come: int | None = 0
        else:
            self._to_come = int(length) if length and not self.chunked else None
        self._take()

    def _take(self) -> None:
        """Move what has been received from the framing into the body."""
        if self.chunked:
            while not self.finished and self._take_chunk():
                pass
        elif self._to_come is None:
            self.body += self._received
            self._received.clear()
            self.finished = self._closed
        else:
            piece = self._received[: self._to_come - len(self.body)]
            self.body += piece
            del self._received[: len(piece)]
            self.finished = len(self.body) >= self._to_come
        if len(self.body) > BODY_BYTES_MAX:
            raise WireError(f"The body is longer than {BODY_BYTES_MAX} bytes.")

    def _take_chunk(self) -> bool:
        end = self._received.find(b"\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end])
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", head):
            raise WireError(f"The body is not chunked as RFC 9112 says: {head[:60]!r} is no size of a chunk.")
        size = int(head, 16)
        if len(self._received) < end + 2 + size + 2:
            return False
        if bytes(self._received[end + 2 + size : end + 4 + size]) != b"\r\n":
            raise WireError("A chunk of the body is longer than its size.")
        self.body += self._received[end + 2 : end + 2 + size]
        del self._received[: end + 4 + size]
        self.finished = size == 0
        return True

    def read(self) -> bool:
        """Take more of the body; False when nothing will come any more."""
        if self.finished or not self._fill():
            if not self.chunked and self._to_come is None:
                self.finished = True
            return False
        self._take()
        return True

    def read_all(self) -> bytes:
        """The whole body; `WireError` when it was cut off."""
        while self.read():
            pass
        if not self.finished:
            raise WireError(f"The body was cut off after {len(self.body)} bytes.")
        return bytes(self.body)

    def json(self) -> Any:
        try:
            return json.loads(self.read_all())
        except ValueError:
            raise WireError(f"The body is no JSON: {bytes(self.body[:120])!r}.") from None

    def closed_within(self, seconds: float) -> bool:
        """Whether the server closes the connection, and sends nothing more, in that time."""
        try:
            self.deadline = min(self.deadline, time.monotonic() + seconds)
            return not self._fill() and not self._received
        except WireError:
            return False

    def close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()


def ask(target: Target, request: Request, deadline: float) -> Exchange:
    """A request whose whole answer is read, and its connection closed."""
    exchange = Exchange(target, request, deadline)
    try:
        exchange.read_all()
    finally:
        exchange.close()
    return exchange
