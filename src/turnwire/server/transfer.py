"""Bytes of files between sockets and disks: a piece at a time, and no more of it in memory than a piece.

Disks are waited for in threads of their own, a piece a time, so that a thousand slow transfers hold no thread.
"""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import structlog
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from turnwire.seams.workspace import File, WorkspaceError

log = structlog.get_logger(__name__)
Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)

DISK_THREADS_MAX = 16
"""Pieces that are read or written at once: what a disk does at the same time with profit, and what a dead network
drive can hang."""

READ_BYTES = 256 * 1024
"""Bytes of a piece that is read: what a download costs in memory, twice."""

WRITE_BYTES = 512 * 1024
"""Bytes of an upload that are gathered before they are written: a thread is woken a few times a megabyte."""


class Disk:
    """Does synchronous work in threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(DISK_THREADS_MAX, "disk")

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """`work(*arguments)`. Cancelled, it ends when the work does, so that nobody clears up under it."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


class CallerGone(Exception):
    """The caller hung up, or sent nothing for too long, in the middle of its upload."""


class Nothing(Response):
    """The answer to a caller who is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["connection"].transport.abort()
        await _until_gone(receive)


class Pieces(Response):
    """An answer whose body is bytes from a disk. `pieces` is synchronous, and is closed when it is no longer read.

    Ends without its end when the pieces fail, or are fewer bytes than `Content-Length` said: the connection is broken
    off, and the caller sees that. A reader that takes nothing for `slow_s` is cut off.
    """

    def __init__(
        self,
        disk: Disk,
        pieces: Iterator[bytes],
        close: Callable[[], None],
        *,
        status: int,
        headers: dict[str, str],
        slow_s: float,
    ) -> None:
        self.status_code = status
        self.background = None
        self.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._length = int(headers["Content-Length"]) if "Content-Length" in headers else None
        self._disk, self._pieces, self._close, self._slow_s = disk, pieces, close, slow_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["state"]["connection"].transport
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if not await self._send_body(transport, gone, send):
                transport.abort()
                await gone
        finally:
            gone.cancel()
            await self._disk.run(self._close)

    def _next(self) -> bytes | None:
        return next(self._pieces, None)

    async def _send_body(self, transport: asyncio.Transport, gone: "asyncio.Future[None]", send: Send) -> bool:
        """Whether the body was sent to its end."""
        left = self._length
        while not gone.done():
            try:
                piece = await self._disk.run(self._next)
            except (OSError, WorkspaceError):
                log.warning("download_failed", exc_info=True)
                return False
            if piece is None:
                if left:
                    return False
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return True
            if left is not None:
                left -= len(piece)
            message = {"type": "http.response.body", "body": piece, "more_body": True}
            if not await send_while_taken(send, message, transport, self._slow_s):
                return False
        return False


async def send_while_taken(send: Send, message: Message, transport: asyncio.Transport, slow_s: float) -> bool:
    """Send; False when the reader took nothing for so many seconds. One that takes little at a time is waited for."""
    sending = asyncio.ensure_future(send(message))
    waiting = -1
    try:
        while not (await asyncio.wait([sending], timeout=slow_s))[0]:
            before, waiting = waiting, _unacknowledged(transport)
            if waiting == before:
                log.info("slow_reader_cut", seconds=slow_s)
                return False
        await sending
    finally:
        sending.cancel()
    return True


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the reader has not taken. The kernel's own queue counts: it holds megabytes, and takes none from us
    for minutes when it is emptied slowly."""
    queued = struct.pack("i", 0)
    with suppress(OSError, AttributeError):  # not a TCP socket, or closed
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + struct.unpack("i", queued)[0]


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Sink(Protocol[Made]):
    """What a body is written to, as `Upload`s of files and skills are."""

    def write(self, data: bytes | memoryview) -> None: ...
    def commit(self) -> tuple[Made, bool]: ...
    def abort(self) -> None: ...


async def receive_upload(disk: Disk, receive: Receive, upload: Sink[Made], *, slow_s: float) -> tuple[Made, bool]:
    """Write the request's body and commit it; also whether what it makes is new. Else nothing is left of it.

    `CallerGone` when the body broke off. Raises what `upload` does.
    """
    try:
        pending: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await _receive_within(receive, slow_s)
            more = message.get("more_body", False)
            pending.append(message.get("body", b""))
            size += len(pending[-1])
            if size >= WRITE_BYTES or not more:
                await disk.run(_write_all, upload, pending)
                pending, size = [], 0
        return await disk.run(upload.commit)
    finally:
        await disk.run(upload.abort)


async def _receive_within(receive: Receive, slow_s: float) -> Message:
    try:
        async with asyncio.timeout(slow_s):
            message = await receive()
    except TimeoutError as exc:
        log.info("slow_upload_cut", seconds=slow_s)
        raise CallerGone from exc
    if message["type"] == "http.disconnect":
        raise CallerGone
    return message


def _write_all(upload: Sink[Any], chunks: list[bytes]) -> None:
    for chunk in chunks:
        upload.write(chunk)


def pieces_of(file: File, first: int, length: int) -> Iterator[bytes]:
    """So many bytes of a file, fewer when it has become shorter."""
    file.stream.seek(first)
    while length > 0:
        piece = file.stream.read(min(READ_BYTES, length))
        if not piece:
            return
        length -= len(piece)
        yield piece
