"""A TCP proxy that cuts connections where it is told to: after so many bytes of a request, or of its answer."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Literal

Mode = Literal["fin", "rst"]

AT_ONCE = 24


async def for_all(numbers: Iterable[int], check: Callable[[int], Awaitable[None]]) -> None:
    """`check(n)` for all numbers, some at a time."""
    todo = iter(numbers)

    async def work() -> None:
        for number in todo:
            try:
                await check(number)
            except BaseException as exc:
                exc.add_note(f"cut after {number} bytes")
                raise

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


class CuttingProxy:
    """In front of `port`. The first `times` connections that ask for `of` are cut; all others pass.

    `after_request`, `after_answer`: bytes that get through on each of those.
    """

    def __init__(
        self,
        port: int,
        *,
        of: bytes = b"/messages ",
        after_request: int | None = None,
        after_answer: int | None = None,
        times: int = 1,
        mode: Mode = "fin",
    ) -> None:
        self._port, self._of, self._times, self._mode = port, of, times, mode
        self._after_request, self._after_answer = after_request, after_answer
        self.cuts = 0
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["CuttingProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        there: asyncio.StreamWriter | None = None
        try:
            answer, there = await asyncio.open_connection("127.0.0.1", self._port)
            budget = _Budget()
            pipes = [
                asyncio.ensure_future(self._requests(reader, there, budget)),
                asyncio.ensure_future(self._answers(answer, writer, budget)),
            ]
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.gather(*pipes, return_exceptions=True)
            if budget.cut:
                self._end(writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.close()

    async def _requests(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, budget: "_Budget") -> None:
        while data := await reader.read(65536):
            if self.cuts < self._times and self._of in data.partition(b"\r\n")[0]:
                self.cuts += 1
                budget.cut = True
                if self._after_request is not None:
                    there.write(data[: self._after_request])
                    await there.drain()
                    return
                budget.left = self._after_answer
            there.write(data)
            await there.drain()

    async def _answers(self, answer: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: "_Budget") -> None:
        while data := await answer.read(65536):
            if budget.left is not None:
                data = data[: budget.left]
                budget.left -= len(data)
            writer.write(data)
            await writer.drain()
            if budget.left == 0:
                return

    def _end(self, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        if self._mode == "rst" and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()


class _Budget:
    """Of one connection: whether it is to be cut, and the bytes of the answer that still get through."""

    def __init__(self) -> None:
        self.cut = False
        self.left: int | None = None
