"""A reader of un-numbered streams on a bare socket that forgives nothing.

It accepts `event: <type>\\ndata: <json>\\n\\n` over and over, in a chunked body that ends cleanly and is
followed by the end of the connection, and raises `WireError` on anything else. Checking bytes is pure
(`unchunk`, `frames`); only `ask` does I/O.
"""

import json
import re
import socket
import time
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

Event = tuple[str, dict[str, Any]]

FRAME = re.compile(rb"event: ([a-z_]+\.[a-z_]+|tool_result)\ndata: ([^\n]*)\n\n")
HEARTBEAT = b":\n\n"
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]+)\r\n")

# Bytes and characters that some reader takes for the end of a line.
LINE_SPLITTERS = {"\r": "CR", "\u2028": "U+2028", "\u2029": "U+2029", "\u0085": "U+0085"}


class WireError(Exception):
    """What the server sent is not what the contract allows."""


class Answer(NamedTuple):
    """Header names are in lower case; `body` is without the chunks' framing."""

    status: int
    headers: dict[str, str]
    body: bytes


def read(base_url: str, path: str, key: str, body: dict[str, Any], *, timeout_s: float = 60) -> Answer:
    """POST `body` and read a stream to its end; raises `WireError` when the head is not that of a stream."""
    answer = ask(base_url, path, key, body, timeout_s=timeout_s)
    if answer.status != 200:
        fail(f"status {answer.status}: {answer.body[:500]!r}")
    kind = answer.headers.get("content-type", "")
    if kind not in {"text/event-stream", "text/event-stream; charset=utf-8"}:
        fail(f"Content-Type is {kind!r}")
    if answer.headers.get("transfer-encoding") != "chunked" or "content-length" in answer.headers:
        fail("the body is not chunked")
    return answer._replace(body=unchunk(answer.body))


def ask(base_url: str, path: str, key: str, body: dict[str, Any], *, timeout_s: float) -> Answer:
    """One POST on one connection, read until the server closes it; it is not asked to."""
    url = urlsplit(base_url)
    content = json.dumps(body).encode()
    head = (
        f"POST {url.path}{path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    deadline = time.monotonic() + timeout_s
    received = bytearray()
    with socket.create_connection((url.hostname or "", url.port or 80), timeout=timeout_s) as connection:
        connection.sendall(head.encode() + content)
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                fail(f"still open after {timeout_s} s; the last bytes: {bytes(received[-200:])!r}")
            if not piece:
                return parse_head(bytes(received))
            received += piece
            # Only a stream has to be followed by the end of its connection; an error may keep it.
            if not received.startswith(b"HTTP/1.1 200") and (answer := whole_error(bytes(received))):
                return answer


def whole_error(received: bytes) -> Answer | None:
    """An answer with a length, once all of it is there."""
    if b"\r\n\r\n" not in received:
        return None
    answer = parse_head(received)
    return answer if len(answer.body) >= int(answer.headers.get("content-length", "0")) else None


def parse_head(received: bytes) -> Answer:
    head, blank, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.fullmatch(r"HTTP/1\.1 (\d{3})(?: .*)?", first)
    if not blank or not status:
        fail(f"no HTTP/1.1 answer: {received[:200]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() in headers:
            fail(f"the header {name} came twice")
        headers[name.lower()] = value.strip()
    return Answer(int(status[1]), headers, body)


def unchunk(body: bytes) -> bytes:
    """The content of a whole chunked body (RFC 9112, section 7.1) that has no extensions and no trailers."""
    content, at = bytearray(), 0
    while True:
        head = CHUNK_HEAD.match(body, at)
        if not head:
            fail(f"no chunk at byte {at} of the body: {body[at : at + 60]!r}")
        size, at = int(head[1], 16), head.end()
        if body[at + size : at + size + 2] != b"\r\n":
            fail(f"a chunk is cut off, or longer than its size, at byte {at}")
        content += body[at : at + size]
        at += size + 2
        if size == 0:
            break
    if at != len(body):
        fail(f"bytes after the end of the body: {body[at : at + 60]!r}")
    return bytes(content)


def frames(content: bytes, *, heartbeats: bool = False) -> list[Event]:
    """The events of a whole un-numbered stream; `heartbeats` lets comments stand between them."""
    events: list[Event] = []
    at = 0
    while at < len(content):
        if heartbeats and content.startswith(HEARTBEAT, at):
            at += len(HEARTBEAT)
            continue
        frame = FRAME.match(content, at)
        if not frame:
            fail(f"no frame at byte {at}: {content[at : at + 120]!r}")
        events.append((frame[1].decode(), parse_data(frame[2])))
        at = frame.end()
    return events


def parse_data(raw: bytes) -> dict[str, Any]:
    """One line of compact JSON, an object without doubled keys, with nothing in it that tears a line."""
    try:
        text = raw.decode("utf-8")
        data = json.loads(text, object_pairs_hook=without_doubles, parse_constant=not_json)
    except ValueError as exc:
        raise WireError(f"the data is not JSON in UTF-8 ({exc}): {raw[:200]!r}") from exc
    if not isinstance(data, dict):
        fail(f"the data is no object: {raw[:200]!r}")
    for character, name in LINE_SPLITTERS.items():
        if character in text:
            fail(f"the data holds {name} raw: {raw[:200]!r}")
    if re.search(r"\s", STRING.sub("", text)):
        fail(f"the data is not compact: {raw[:200]!r}")
    return data


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        fail(f"a key stands twice: {[name for name, _ in pairs]}")
    return dict(pairs)


def not_json(constant: str) -> NoReturn:
    fail(f"{constant} is not JSON")


def fail(sentence: str) -> NoReturn:
    raise WireError(sentence)
