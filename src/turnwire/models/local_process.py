"""The life of a local model's process: started when first needed, restarted when it dies, ended with us.

One task, the keeper, starts the process, waits for its end, and starts it again, later each time that it dies young.
Whoever needs it awaits `running()`: the process that runs, or one that is being started, or `ModelUnavailable`.
"""

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwire.models.errors import ModelUnavailable

# Loading is reading the file: seconds for a small model, minutes for one of tens of gigabytes on a slow disk.
START_TIMEOUT_S = 300.0
# A process that died is started again after so long, doubled at each death of one that lived shorter than YOUNG_S.
BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 30.0
YOUNG_S = 60.0
# How long a request waits for a process that has to be started again; longer is told as an error.
PATIENCE_S = 15.0
# What ends at once when its stdin does gets this long, then SIGKILL.
END_TIMEOUT_S = 3.0
# Parts of names of variables that a process which only computes has no need to know.
SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "DATABASE_URL")


@dataclass(frozen=True)
class Configuration:
    """`n_ctx` tokens in all, shared by the `n_parallel` requests that are computed at once.

    `repeat_penalty`: 1.0 is none.
    """

    path: Path
    n_ctx: int
    n_parallel: int
    n_threads: int
    repeat_penalty: float = 1.0


@dataclass(frozen=True)
class Running:
    """A process that serves. Each has a key of its own, since other users of the machine reach its port too."""

    pid: int
    base_url: str
    api_key: str


class LocalProcess:
    """Keeps one process running from the first `running()` to `aclose()`. Belongs to one event loop."""

    def __init__(self, configuration: Configuration, name: str) -> None:
        self._configuration = configuration
        self._name = name
        self._keeper: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Running] | None = None
        self._failures = 0
        self._again_at = 0.0
        self._last_error: ModelUnavailable | None = None
        self._closed = False

    async def running(self) -> Running:
        """The process, started if need be; raises `ModelUnavailable`."""
        if self._closed:
            raise ModelUnavailable(f"The local model {self._name} has been stopped.")
        loop = asyncio.get_running_loop()
        if self._keeper is None or self._keeper.done():
            if self._last_error is not None and loop.time() < self._again_at:
                raise self._last_error
            self._ready = loop.create_future()
            self._keeper = loop.create_task(self._keep(), name=f"local model {self._name}")
        assert self._ready is not None
        patience = PATIENCE_S if self._failures else START_TIMEOUT_S
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), patience)
        except TimeoutError:
            raise ModelUnavailable(
                f"The local model {self._name} does not come up: it has died {self._failures} times in a row.",
                "Is there enough memory for it?",
            ) from None

    async def aclose(self) -> None:
        """End the process and wait for its end. Idempotent."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()

    async def _keep(self) -> None:
        """Start it, wait for its end, start it again, until it can't be started or we are cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                await self._live()
            except ModelUnavailable as error:
                self._note_failure(begun)
                self._last_error = error
                self._settle(error)
                return
            self._note_failure(begun)
            self._ready = asyncio.get_running_loop().create_future()
            await asyncio.sleep(self._again_at - clock())

    async def _live(self) -> None:
        """One process from its start to its end; raises `ModelUnavailable` when it doesn't get as far as serving."""
        api_key = secrets.token_urlsafe(24)
        process = await self._spawn()
        printed: deque[bytes] = deque(maxlen=20)
        reader = asyncio.create_task(_drain(process.stderr, printed))
        try:
            port = await self._announced(process, api_key, printed)
            self._last_error = None
            self._settle(Running(process.pid, f"http://127.0.0.1:{port}/v1", api_key))
            await process.wait()
        finally:
            await asyncio.shield(_end(process))
            reader.cancel()

    async def _spawn(self) -> asyncio.subprocess.Process:
        environment = {k: v for k, v in os.environ.items() if not any(part in k.upper() for part in SECRET_NAMES)}
        try:
            return await asyncio.create_subprocess_exec(
                # -P: a file in the current folder must not take the place of a module.
                *(sys.executable, "-P", "-m", "turnwire.models.local_child"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # Its own session: a Ctrl-C in our terminal is for us, and we end it.
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            raise ModelUnavailable(
                f"The process of the local model {self._name} can't be started: {error.strerror}."
            ) from error

    async def _announced(self, process: asyncio.subprocess.Process, api_key: str, printed: deque[bytes]) -> int:
        """Tell it what to load, and read its port."""
        assert process.stdin is not None
        assert process.stdout is not None
        told = self._configuration
        line = {
            "path": str(told.path),
            "n_ctx": told.n_ctx,
            "n_parallel": told.n_parallel,
            "n_threads": told.n_threads,
            "repeat_penalty": told.repeat_penalty,
            "api_key": api_key,
            "parent": os.getpid(),
        }
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(line).encode() + b"\n")
            await process.stdin.drain()
        try:
            answer = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        except TimeoutError:
            raise ModelUnavailable(f"The local model {self._name} was not loaded in {START_TIMEOUT_S:g} s.") from None
        said: dict[str, Any] = json.loads(answer) if answer else {}
        if "port" not in said:
            raise self._refused(str(said.get("error", "")), printed)
        return int(said["port"])

    def _refused(self, said: str, printed: deque[bytes]) -> ModelUnavailable:
        """The error of a process that did not get as far as serving, with the last thing that llama.cpp said."""
        lines = [line.decode(errors="replace").strip() for line in printed]
        telling = next((line for line in reversed(lines) if "error" in line.lower()), said)
        return ModelUnavailable(
            f"The local model {self._name} can't be loaded{f': {telling[:300]}' if telling else ''}.".replace(
                "..", "."
            ),
            "Is the file whole, of a kind that llama.cpp knows, and is there enough memory for it?",
        )

    def _note_failure(self, begun: float) -> None:
        now = asyncio.get_running_loop().time()
        self._failures = self._failures + 1 if now - begun < YOUNG_S else 1
        self._again_at = now + min(BACKOFF_FIRST_S * 2 ** (self._failures - 1), BACKOFF_MOST_S)

    def _settle(self, outcome: Running | ModelUnavailable) -> None:
        assert self._ready is not None
        if self._ready.done():
            return
        if isinstance(outcome, Running):
            self._ready.set_result(outcome)
        else:
            self._ready.set_exception(outcome)
            # Read at once: that nobody waits just now is no bug.
            self._ready.exception()


async def _drain(stream: asyncio.StreamReader | None, into: deque[bytes]) -> None:
    """Read what is printed, so that the pipe never fills, and keep the last lines."""
    assert stream is not None
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            # Longer than the reader's limit: of no interest.
            continue
        if not line:
            return
        into.append(line)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End its stdin, which ends it; SIGKILL when that doesn't."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
