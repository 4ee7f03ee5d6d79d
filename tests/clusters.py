"""A PostgreSQL of the tests' own: made in a temporary folder, on a free port of 127.0.0.1, ended by its process id."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

PASSWORD = "s3cret:of/the@tests"
IN_URL = "s3cret%3Aof%2Fthe%40tests"
START_TIMEOUT_S = 30.0

_numbers = count(1)


def programs() -> Path | None:
    """Where `initdb` and the others are: where Debian puts them, or in PATH; None: nowhere."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    folders = [*debian, *map(Path, os.get_exec_path())]
    names = ("initdb", "postgres", "psql", "pg_dump")
    return next((folder for folder in folders if all((folder / name).exists() for name in names)), None)


class Cluster:
    """PostgreSQL as it runs for tests. Root can't run it: then the user postgres does, whom its package makes."""

    def __init__(self, folder: Path | None = None) -> None:
        found = programs()
        assert found is not None, "install postgresql"
        self.programs = found
        self._owner: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="turnwire-pg-", dir=folder))
        if os.getuid() == 0:
            self._owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.folder, "postgres", "postgres")
        self.data = self.folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            *("initdb", "--pgdata", str(self.data), "--username", "turnwire", "--pwfile", str(secret)),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
            *("--no-sync", "--no-instructions"),
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """`options`: such as `fsync=off`."""
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    *(self.programs / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder),
                    *("-c", "listen_addresses=127.0.0.1"),
                    *(word for option in options for word in ("-c", option)),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._owner,
            )
        until = time.monotonic() + START_TIMEOUT_S
        while subprocess.run(self._psql("postgres", "SELECT 1"), capture_output=True, check=False).returncode:
            assert self._process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: connections are ended. SIGQUIT: as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql://turnwire:{IN_URL}@127.0.0.1:{self.port}/{database}"

    def sql(self, text: str, database: str = "postgres") -> str:
        """What psql prints for some SQL."""
        return subprocess.run(self._psql(database, text), capture_output=True, text=True, check=True).stdout.strip()

    def psql(self, text: str, database: str = "postgres") -> "subprocess.Popen[bytes]":
        """psql while it runs some SQL."""
        return subprocess.Popen(self._psql(database, text), stdout=subprocess.DEVNULL)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database, which is gone behind the block."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            if self._process is not None:
                with contextlib.suppress(subprocess.CalledProcessError):
                    self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def own(self, folder: Path) -> None:
        """Make a folder that the database may write in."""
        folder.mkdir()
        if self._owner:
            shutil.chown(folder, self._owner["user"], self._owner["group"])

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _psql(self, database: str, text: str) -> list[str | Path]:
        program = self.programs / "psql"
        options = ("-X", "-q", "-A", "-t", "-U", "turnwire", "-v", "ON_ERROR_STOP=1")
        return [program, *options, "-h", self.folder, "-p", str(self.port), "-d", database, "-c", text]

    def _run(self, program: str, *words: str) -> None:
        found = subprocess.run(
            [self.programs / program, *words], capture_output=True, text=True, cwd=self.folder, **self._owner
        )
        assert found.returncode == 0, found.stderr


@contextmanager
def running(*options: str) -> Iterator[Cluster]:
    """A cluster for as long as the block takes."""
    cluster = Cluster()
    try:
        cluster.start(*options)
        yield cluster
    finally:
        cluster.remove()
