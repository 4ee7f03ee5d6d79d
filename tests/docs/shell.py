"""One shell for the blocks of one page, and the server that they talk to.

The shell is bash, started afresh in a folder of its own; a command that fails fails the page. What a block sets and
exports is there for the next one. A server is started as the page says; its address and key come from the `export`
line that it prints, as a reader would paste it.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from plugins.tools import CLIENTS

ROOT = Path(__file__).resolve().parents[2]
BLOCK_TIMEOUT_S = 60.0
START_TIMEOUT_S = 40.0
PREFIX = Path(sys.executable).parent


class Shell:
    """`folder` becomes the working folder: scripts and outputs are kept beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "here"
        self._notes = folder / "notes"
        for made in (self.folder, self._notes, folder / "home"):
            made.mkdir()
        # What `npm install` would bring, as locked for the tests.
        (self.folder / "node_modules").symlink_to(CLIENTS / "node_modules")
        (self.folder / "examples").symlink_to(ROOT / "examples")
        env = {
            "PATH": f"{PREFIX}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "TURNWIRE_DATA_DIR": str(folder / "data"),
            "TURNWIRE_PORT": str(_free_port()),
        }
        self.data_dir = folder / "data"
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=env,
            text=True,
            start_new_session=True,
        )
        self._count = 0
        self._servers = 0
        self.run("set -euo pipefail")

    def run(self, script: str, where: str = "", *, timeout_s: float = BLOCK_TIMEOUT_S) -> str:
        """What the script printed, on stdout and stderr; AssertionError when it failed or took too long."""
        self._count += 1
        source, out, done = (self._notes / f"{self._count}.{end}" for end in ("sh", "out", "done"))
        source.write_text(script)
        self._send(f". '{source}' > '{out}' 2>&1 < /dev/null; echo > '{done}'")
        deadline = time.monotonic() + timeout_s
        while not done.exists():
            ended = self._process.poll()
            said = out.read_text(errors="replace") if out.exists() else ""
            assert ended is None, f"{where}: it failed, exit code {ended}:\n{script}\n{said[-3000:]}"
            assert time.monotonic() < deadline, f"{where}: no end after {timeout_s} s:\n{script}\n{said[-3000:]}"
            time.sleep(0.02)
        return out.read_text(errors="replace")

    def run_python(self, code: str, where: str = "") -> str:
        self._count += 1
        source = self._notes / f"{self._count}.py"
        source.write_text(code)
        return self.run(f"python '{source}'", where)

    def start_server(self, command: str, where: str = "") -> str:
        """Start a server in the background by one command, and take over the address and key that it prints: its
        start-up lines. One that the page started before is stopped first."""
        self.stop_server()
        self._servers += 1
        log = self._notes / f"server-{self._servers}.log"
        log.touch()
        self.run(f"{{ exec env {command.strip()}\n}} > '{log}' 2>&1 < /dev/null &\nserver_pid=$!", where)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (ready := re.search(r"^export POKEE_API=.*$", log.read_text(), re.MULTILINE)):
            assert time.monotonic() < deadline, f"{where}: the server is not ready:\n{log.read_text()[-3000:]}"
            assert self.run("kill -0 $server_pid 2>&1 || echo gone") == "", f"{where}: {log.read_text()[-3000:]}"
            time.sleep(0.1)
        self.run(ready[0])
        return log.read_text()

    @property
    def has_server(self) -> bool:
        return self._servers > 0

    def stop_server(self) -> None:
        """As Ctrl-C does."""
        if self._servers:
            self.run("kill $server_pid && wait $server_pid")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError("the shell of this page has ended") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Everything that the page started ends with it."""
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
