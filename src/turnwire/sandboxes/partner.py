"""A child process that is talked with: its standard input and output are pipes, its stderr goes to a sink.

Both ways are slowed down by the slower side: nothing is held here but what one read gives.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable
from typing import Any

from turnwire.sandboxes.children import READ_BYTES, Child
from turnwire.seams.sandbox import SandboxError, Sink

LAST_READS_MAX = 64
"""Reads of what an ended program left in its pipe: a pipe holds 64 KiB, and 1 MiB when the program made it larger."""


class Partner(Child):
    """`turnwire.seams.sandbox.Conversation`."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: Sink) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        super().__init__(process, errors, None, output=process.stderr)
        self._stdin, self._stdout = process.stdin, process.stdout
        self._rest = bytearray()
        """What was not read yet when it ended."""
        self._waits: dict[int, asyncio.Future[None]] = {}
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)

    async def read(self) -> bytes:
        # Who reads a flood is not to keep the event loop from all others.
        await asyncio.sleep(0)
        while not self._ended.done():
            try:
                return os.read(self._stdout.fileno(), READ_BYTES)
            except BlockingIOError:
                await self._ready(self._stdout.fileno(), self._loop.add_reader, self._loop.remove_reader)
        data = bytes(self._rest)
        self._rest.clear()
        return data

    async def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            if self._stdin.closed:
                raise SandboxError("The program has ended, or takes nothing any more.")
            try:
                left = left[os.write(self._stdin.fileno(), left) :]
            except BlockingIOError:
                await self._ready(self._stdin.fileno(), self._loop.add_writer, self._loop.remove_writer)
            except OSError as exc:
                raise SandboxError("The program takes nothing any more.") from exc

    def close_input(self) -> None:
        self._close(self._stdin)

    async def _ready(self, descriptor: int, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        """Wait until the pipe can be read or written, or is closed here."""
        wait = self._waits[descriptor] = self._loop.create_future()
        add(descriptor, _wake, wait)
        try:
            await wait
        finally:
            # Closed meanwhile, its number may be another file's.
            if self._waits.get(descriptor) is wait:
                del self._waits[descriptor]
                remove(descriptor)

    def _close(self, pipe: Any) -> None:
        if pipe.closed:
            return
        wait = self._waits.pop(pipe.fileno(), None)
        if wait is not None:
            self._loop.remove_reader(pipe.fileno())
            self._loop.remove_writer(pipe.fileno())
            _wake(wait)
        # Nothing is in its buffer: all is written by the descriptor.
        with contextlib.suppress(OSError):
            pipe.close()

    def _reap(self) -> None:
        for _ in range(LAST_READS_MAX):
            try:
                data = os.read(self._stdout.fileno(), READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        self._close(self._stdin)
        self._close(self._stdout)
        super()._reap()


def _wake(wait: "asyncio.Future[None]") -> None:
    if not wait.done():
        wait.set_result(None)
