"""The server's process: started, killed, started again on the same data folder and port."""

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path

from bench.crash import postgres
from turnwire.protocol.codec import decode_frames
from turnwire.protocol.events import Event

KEY = "crash-bench"
START_TIMEOUT_S = 60.0


class Server:
    """A server under `folder`, on a port that is chosen once."""

    def __init__(self, folder: Path, provider_url: str, *, database: str | None = None, **settings: str) -> None:
        """`database`: the URL of a PostgreSQL; None: the embedded store."""
        self._port = _free_port()
        self.folder = folder
        self.marks = folder / "marks"
        self.base_url = f"http://127.0.0.1:{self._port}"
        self.start_s = 0.0
        """How long the last start took, until the server said that it is ready."""
        self.last_committed: dict[str, int] = {}
        """Of every turn in the log, by `committed()`: the number of its last event."""
        self._nursery: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._status: int | None = 0
        """The exit code; None while it runs."""
        self._log = (folder / "server.log").open("ab")
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TURNWIRE_")},
            "TURNWIRE_API_KEY": KEY,
            "TURNWIRE_PORT": str(self._port),
            "TURNWIRE_DATA_DIR": str(folder / "data"),
            "TURNWIRE_MODEL": "openai-chat:bench",
            "OPENAI_BASE_URL": provider_url,
            "OPENAI_API_KEY": "none",
            "TURNWIRE_BENCH_MARKS": str(self.marks),
            **({} if database is None else {"TURNWIRE_DATABASE_URL": database}),
            **settings,
        }
        self._database = database

    async def start(self, kill_at: int = 0) -> None:
        """Start it, and return when it is ready, or dead by itself. `kill_at`: the commit behind which it is to die."""
        if self._nursery is None:
            self._nursery = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.crash.server"),
                env=self._environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._log,
            )
        assert self._nursery.stdin is not None
        begun = time.monotonic()
        self._nursery.stdin.write(f"{kill_at}\n".encode())
        self._pid = int((await self._line()).removeprefix("pid "))
        self._status = None
        await self._until_said("is ready")
        self.start_s = time.monotonic() - begun

    @property
    def is_dead(self) -> bool:
        return self._status is not None

    async def kill(self) -> None:
        """SIGKILL, and return when it is gone."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
        await self.gone()

    async def gone(self) -> None:
        """Return when it is dead. RuntimeError when it was not killed."""
        await self._until_said("gone")
        if self._status != -signal.SIGKILL:
            raise RuntimeError(f"the server ended with {self._status}; see {self.folder / 'server.log'}")

    async def close(self) -> None:
        """Kill it, and let go of everything."""
        if self._nursery is not None:
            if not self.is_dead:
                await self.kill()
            assert self._nursery.stdin is not None
            self._nursery.stdin.close()
            await self._nursery.wait()
        self._log.close()

    async def _until_said(self, text: str) -> None:
        while self._status is None:
            line = await self._line()
            if line.startswith("gone "):
                self._status = int(line.removeprefix("gone "))
            elif text in line:
                return

    async def _line(self) -> str:
        assert self._nursery is not None and self._nursery.stdout is not None
        line = await asyncio.wait_for(self._nursery.stdout.readline(), START_TIMEOUT_S)
        if not line:
            raise RuntimeError(f"the server did not start; see {self.folder / 'server.log'}")
        return line.decode().strip()

    async def committed(self) -> dict[str, list[Event]]:
        """What the log of a dead server holds of the turns that were running."""
        if self._database is not None:
            self.last_committed, rows = await postgres.read(self._database)
        else:
            self.last_committed, rows = self._read_copy()
        events: dict[str, list[Event]] = {}
        for turn_id, frames in rows:
            events.setdefault(turn_id, []).extend(decode_frames(frames))
        return events

    def _read_copy(self) -> tuple[dict[str, int], list[tuple[str, bytes]]]:
        """Of a copy of the embedded store, which stays as it is."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in (self.folder / "data").glob("*.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, copy / file.name)
        [path] = copy.glob("*.db")
        with sqlite3.connect(path) as db:
            last = dict(db.execute("SELECT id, last_seq FROM turns").fetchall())
            rows = db.execute(
                "SELECT id, frames FROM turns JOIN segments ON turn = n WHERE ended_at IS NULL ORDER BY n, first_seq"
            ).fetchall()
        db.close()
        return last, rows


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
