"""Child processes on the event loop: output to a sink, limits of time and output, and an end that takes all with it.

The event loop's own subprocesses would do, but uvloop's can't change the user, and asyncio's watchers differ by
version. A `Popen` here returns in a millisecond or two (vfork), on the loop's thread, which is the thread that
PR_SET_PDEATHSIG follows.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from typing import IO, TypeVar

from turnwire.sandboxes import limits
from turnwire.seams.sandbox import Ending, SandboxError, Sink, Stopped

AnyChild = TypeVar("AnyChild", bound="Child")

READ_BYTES = 64 * 1024
"""Bytes read at a time: the capacity of a pipe."""


class Child:
    """One child process, leader of a session and process group of its own. `turnwire.seams.sandbox.Running`."""

    def __init__(
        self, process: subprocess.Popen[bytes], sink: Sink, wall_s: float | None, output: IO[bytes] | None = None
    ) -> None:
        """`output`: the pipe that goes to the sink; by default that of standard output."""
        self._pipe = output or process.stdout
        assert self._pipe is not None
        self.pid = process.pid
        self._process = process
        self._sink = sink
        self._stopped: Stopped | None = None
        self._output = self._pipe.fileno()
        self._output_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Ending] = self._loop.create_future()
        self._timer = None if wall_s is None else self._loop.call_later(wall_s, self.stop, "time")
        self._pidfd = os.pidfd_open(process.pid)
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def ending(self) -> Ending | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> Ending:
        return await asyncio.shield(self._ended)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call this when it has ended."""
        self._ended.add_done_callback(lambda _: callback())

    def kill(self) -> None:
        self.stop("killed")

    def stop(self, why: Stopped) -> None:
        """End it, and say why; the first reason counts."""
        if self._ended.done():
            return
        self._stopped = self._stopped or why
        # Not reaped yet, so the group's number is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _read(self) -> bool:
        """Take what is there, once; False at the end of the output, or when there is nothing now."""
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._output)
            return False
        self._output_bytes += len(data)
        if self._output_bytes > limits.OUTPUT_BYTES_MAX:
            self.stop("output")
        else:
            self._sink(data)
        return True

    def _reap(self) -> None:
        """It has ended: so do the rest of its group, and what they wrote is still taken, a pipe's content at most."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        for _ in range(64):
            if not self._read():
                break
        self._loop.remove_reader(self._output)
        assert self._pipe is not None
        self._pipe.close()
        self._ended.set_result(Ending(code if code >= 0 else 128 - code, self._stopped))


class Children:
    """The children of a sandbox, by session: `most` at once in all, `session_most` of one session."""

    def __init__(
        self, what: str = "commands", most: int = limits.COMMANDS_MAX, session_most: int = limits.SESSION_COMMANDS_MAX
    ) -> None:
        self._what, self._most, self._session_most = what, most, session_most
        self.running: dict[Child, str] = {}
        self._starting: list[str] = []
        self._closed = False

    @contextlib.contextmanager
    def place(self, session_id: str) -> Generator[None, None, None]:
        """Keeps a place for a child that is about to be started. Raises SandboxError when there is none."""
        taken = [*self.running.values(), *self._starting]
        if self._closed:
            raise SandboxError(f"The server is about to stop: no {self._what} are started any more.")
        if len(taken) >= self._most:
            raise SandboxError(f"Too many {self._what} run on this server now: try again when some have ended.")
        if taken.count(session_id) >= self._session_most:
            raise SandboxError(f"Too many {self._what} of this session run at once: wait for some, or stop them.")
        self._starting.append(session_id)
        try:
            yield
        finally:
            self._starting.remove(session_id)

    def adopt(self, process: "subprocess.Popen[bytes]", sink: Sink, *, session_id: str, wall_s: float | None) -> Child:
        """Take charge of a process that `spawn` started."""
        return self.take(Child(process, sink, wall_s), session_id)

    def take(self, child: AnyChild, session_id: str) -> AnyChild:
        """Take charge of a child."""
        if self._closed:
            child.kill()
        self.running[child] = session_id
        child.when_ended(lambda: self._forget(child))
        return child

    def _forget(self, child: Child) -> None:
        del self.running[child]

    async def end(self, session_id: str | None = None) -> None:
        """End those of a session, or all, and wait for that."""
        ending = [child for child, owner in self.running.items() if session_id in (None, owner)]
        for child in ending:
            child.kill()
        if ending:
            await asyncio.wait([asyncio.ensure_future(child.wait()) for child in ending], timeout=limits.END_TIME_S)

    async def aclose(self) -> None:
        self._closed = True
        await self.end()


def spawn(
    argv: Sequence[str],
    *,
    env: dict[str, str],
    fds: Sequence[int] = (),
    cwd: str | None = None,
    user: int | None = None,
    talks: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a process for a child; `fds` stay open in it, under their own numbers. With `talks`, its input is a pipe,
    and stderr a pipe of its own. Raises SandboxError."""
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if talks else subprocess.STDOUT,
            env=env,
            cwd=cwd,
            pass_fds=fds,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except OSError as exc:
        raise SandboxError(f"The command can't be started: {exc.strerror or exc}.") from exc
