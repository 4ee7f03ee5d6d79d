"""A client that costs little, in a process of its own: raw sockets, events counted by their bytes.

`LoadClient` is what the cases use; its calls go over a pipe to `_serve()` in the other process.
"""

import asyncio
import hashlib
import json
import multiprocessing
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

STAMP = re.compile(rb"@(\d+)(?:,(\d+))?;")
CHUNK_EDGE = re.compile(rb"\r\n[0-9a-f]+\r\n")
DELTA = b"event: text.delta\n"


@dataclass
class Request:
    """One request for a stream. `keep`: a digest of the body is wanted."""

    method: str
    path: str
    body: bytes = b""
    keep: bool = False


@dataclass
class Stream:
    """What one stream was like. Times are nanoseconds of the monotonic clock."""

    sent: int = 0
    created: int = 0
    """When the first event had come."""
    first_delta: int = 0
    ended: int = 0
    status: int = 0
    deltas: int = 0
    events: int = 0
    completed: bool = False
    first_stamp: tuple[int, int] = (0, 0)
    """When the provider sent its first delta, and when it had got the request."""
    late: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Of each stamped delta: when it came, and how long after its sending."""
    response_id: str = ""
    digest: str = ""


class _Connection(asyncio.Protocol):
    def __init__(self, request: Request, head: bytes) -> None:
        self.stream = Stream()
        self.has_delta: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._bytes = head + request.body
        self._held = b""
        self._kept: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        self.stream.sent = time.monotonic_ns()
        self._transport.write(self._bytes)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self._request.keep:
            self._kept.append(data)
        stream = self.stream
        held = self._held + data
        end = held.rfind(b"\n\n") + 2
        if end < 2:
            self._held = held
            return
        events, self._held = held[:end], held[end:]
        if not stream.created:
            stream.created = now
            stream.status = int(events[9:12])
            found = re.search(rb"x-response-id: (\S+)", events)
            stream.response_id = found[1].decode() if found else ""
        stream.events += events.count(b"\nevent: ")
        deltas = events.count(DELTA)
        if deltas:
            stream.deltas += deltas
            if not stream.first_delta:
                stream.first_delta = now
                self.has_delta.set_result(None)
            for sent, arrived in STAMP.findall(events):
                stream.late.append((now, now - int(sent)))
                if arrived:
                    stream.first_stamp = (int(sent), int(arrived))
        if b"event: message.completed\n" in events:
            stream.completed = True
            stream.ended = now

    def connection_lost(self, exc: Exception | None) -> None:
        if self._request.keep:
            body = b"".join(self._kept).partition(b"\r\n\r\n")[2]
            self.stream.digest = hashlib.sha256(CHUNK_EDGE.sub(b"", b"\r\n" + body)).hexdigest()
        if not self.has_delta.done():
            self.has_delta.set_result(None)
        if not self.done.done():
            self.done.set_result(None)


class _Client:
    """The other process's side."""

    def __init__(self, url: str, key: str) -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname, where.port
        self._key = key
        self._open: list[_Connection] = []

    async def sessions(self, count: int) -> list[str]:
        """New sessions, one connection for all."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        ids: list[str] = []
        for _ in range(count):
            request = Request("POST", "/v1/sessions", b'{"persistent": true}')
            writer.write(self._head(request) + request.body)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 201"), head
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            ids.append(json.loads(await reader.readexactly(length))["id"])
        writer.close()
        return ids

    async def gets(self, path: str, count: int) -> float:
        """So many GETs of a small record, one after another on one connection; seconds."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        request = self._head(Request("GET", path))
        began = time.perf_counter()
        for _ in range(count):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()
        return time.perf_counter() - began

    async def open(self, requests: Sequence[Request]) -> None:
        """Connect all, then send all; returns when each has had a delta, or is over."""
        loop = asyncio.get_running_loop()
        connections: list[_Connection] = []
        for request in requests:
            head = self._head(request)
            _, connection = await loop.create_connection(
                lambda request=request, head=head: _Connection(request, head), self._host, self._port
            )
            connections.append(connection)
        for connection in connections:
            connection.send()
        await asyncio.gather(*(connection.has_delta for connection in connections))
        self._open += connections

    async def running(self) -> str:
        """The response id of the stream that is open."""
        return self._open[-1].stream.response_id

    async def finish(self) -> list[Stream]:
        """Read all open streams to their end."""
        connections, self._open = self._open, []
        await asyncio.gather(*(connection.done for connection in connections))
        return [connection.stream for connection in connections]

    def _head(self, request: Request) -> bytes:
        length = f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n" if request.body else ""
        return (
            f"{request.method} {request.path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Authorization: Bearer {self._key}\r\n{length}\r\n"
        ).encode()


def _serve(url: str, key: str, pipe: Any) -> None:
    async def calls() -> None:
        client = _Client(url, key)
        loop = asyncio.get_running_loop()
        while True:
            name, args = await loop.run_in_executor(None, pipe.recv)
            if name is None:
                return
            try:
                pipe.send((await getattr(client, name)(*args), None))
            except Exception as exc:
                pipe.send((None, repr(exc)))

    uvloop.run(calls())


class LoadClient:
    """Drives one server from another process."""

    def __init__(self, url: str, key: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(url, key, theirs), daemon=True)
        self._process.start()

    def sessions(self, count: int) -> list[str]:
        return self._call("sessions", count)

    def gets(self, path: str, count: int) -> float:
        return self._call("gets", path, count)

    def open(self, requests: Sequence[Request]) -> None:
        self._call("open", requests)

    def running(self) -> str:
        return self._call("running")

    def finish(self, *, deltas: int) -> list[Stream]:
        """Every stream must have had so many deltas, and have ended well: else nothing was measured."""
        streams: list[Stream] = self._call("finish")
        for stream in streams:
            if not stream.completed or stream.deltas != deltas:
                raise AssertionError(
                    f"A stream (status {stream.status}) had {stream.deltas} of {deltas} deltas"
                    f" and {'ended' if stream.completed else 'did not complete'}."
                )
        return streams

    def close(self) -> None:
        self._pipe.send((None, ()))
        self._process.join(5)
        self._process.terminate()

    def _call(self, name: str, *args: Any) -> Any:
        self._pipe.send((name, args))
        if not self._pipe.poll(180):
            raise AssertionError(f"{name}: the server has not answered for three minutes.")
        value, error = self._pipe.recv()
        if error is not None:
            raise AssertionError(f"{name}: {error}")
        return value


def message(session: str, order: str) -> Request:
    """The POST that asks for an answer of the fake provider's (provider.py)."""
    return Request("POST", f"/v1/sessions/{session}/messages", json.dumps({"message": order}).encode())
