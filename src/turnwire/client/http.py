"""What both drivers share of the HTTP library."""

import socket
from contextlib import suppress
from typing import Any

import httpx2

from turnwire.client.address import is_local
from turnwire.client.api import Options
from turnwire.client.errors import ClientError
from turnwire.client.steps import Broken, Reply, Source

ANSWER_TIMEOUT_S = 60.0
"""For an answer's head, and between its pieces: servers answer at once, but may have to write to a slow disk."""

WRITE_TIMEOUT_S = 60.0
"""For the other side to take a piece of a request."""

BODY_BYTES_MAX = 256 * 1024 * 1024
"""Of an answer that is read whole. Files are streamed; a page of the longest conversation is far below."""

PIECE_BYTES = 256 * 1024
"""Of an upload: read, sent and told of at once."""

LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4)
FRESH = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
"""A message has a connection of its own: one that the server has just closed for being idle can't swallow it."""

ENCODING = {"Accept-Encoding": "identity"}


def settings(url: str, key: str | None, limits: httpx2.Limits) -> dict[str, Any]:
    """Arguments for the library's client."""
    authorization = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
    return {
        "headers": {"User-Agent": "turnwire-python", **ENCODING, **authorization},
        "verify": url.startswith("https:"),  # loading the certificates takes 80 ms
        "trust_env": not is_local(url),  # a server of this machine is not asked through a proxy
        "limits": limits,
        "follow_redirects": False,
    }


KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""Seconds, seconds, times: TCP finds out within a minute that the other side of a silent stream is gone."""


def keep_alive(response: httpx2.Response) -> None:
    """Have TCP watch the connection of a stream, where it is one that can be watched."""
    stream = response.extensions.get("network_stream")
    sock = None if stream is None else stream.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def timeout(options: Options) -> httpx2.Timeout:
    return httpx2.Timeout(connect=options.connect_timeout_s, read=ANSWER_TIMEOUT_S, write=WRITE_TIMEOUT_S, pool=None)


def broken(exc: httpx2.RequestError) -> Broken:
    never_sent = isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError)
    said = " ".join(str(exc).split())
    return Broken(said or type(exc).__name__, sent=not never_sent)


def set_read_timeout(response: httpx2.Response, timeout_s: float) -> None:
    """For the body, before its first piece is read: the library looks at the request's own."""
    response.request.extensions["timeout"] = {**response.request.extensions.get("timeout", {}), "read": timeout_s}


def reply_of(response: httpx2.Response, body: bytes = b"") -> Reply:
    return Reply(response.status_code, response.headers, body)


def piece_bytes(source: Source, done: int) -> int:
    """How much to read of an upload: a file that grows meanwhile is sent as long as it was announced."""
    return PIECE_BYTES if source.size is None else min(PIECE_BYTES, source.size - done)


def check_whole(source: Source, done: int) -> None:
    """ClientError when an upload has become shorter than was announced: the server must not take it for the whole."""
    if source.size is not None and done != source.size:
        raise ClientError(f"The file was changed while it was sent: {done} of {source.size} bytes were there.")
