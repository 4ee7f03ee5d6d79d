"""The program as people run it: a process of its own, with an environment that holds no keys and no settings."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROGRAM = str(Path(sys.executable).with_name("turnwire"))
START_TIMEOUT_S = 60.0


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    """Runs `turnwire …`; its data folder is `data`."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "xdg" / "turnwire"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "xdg"),
            # Nobody listens there: whatever runs on this machine, the tests don't see it.
            "OLLAMA_HOST": "127.0.0.1:9",
            "VLLM_BASE_URL": "http://127.0.0.1:9",
        }

    def __call__(self, *arguments: str, code: int = 0, **env: str) -> Ran:
        done = subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, timeout=60, env=self.env | env, check=False
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert done.returncode == code, ran
        assert "Traceback" not in done.stderr, ran
        return ran

    def fails(self, *arguments: str, code: int, **env: str) -> str:
        """The one sentence that it says on stderr."""
        ran = self(*arguments, code=code, **env)
        assert ran.out == ""
        assert ran.err.startswith("turnwire: ") and ran.err.count("\n") == 1, ran
        return ran.err.removeprefix("turnwire: ").rstrip("\n")


class Server:
    """A `turnwire serve` that has said that it is ready."""

    def __init__(self, process: "subprocess.Popen[str]", lines: list[str]) -> None:
        self.process = process
        self.lines = lines
        self.url = next(line.split()[1] for line in lines if line.startswith("  address"))
        self.port = int(self.url.rpartition(":")[2])

    def get(self, path: str, key: str | None = None) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def turnwire(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def start(turnwire: Program) -> Iterator[Callable[..., Server]]:
    """Starts a server with the demo model on a free port; all are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **env: str) -> Server:
        words = [PROGRAM, "serve", "--port", "0", "--model", "demo", *arguments]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=turnwire.env | env
        )
        started.append(process)
        return Server(process, _lines_until_ready(process))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _lines_until_ready(process: "subprocess.Popen[str]") -> list[str]:
    """What it prints up to the curl line, the last of the start-up lines."""
    assert process.stdout is not None
    output = process.stdout
    printed: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in output:
            printed.put(line.rstrip("\n"))
        printed.put("")

    threading.Thread(target=read, daemon=True).start()
    lines: list[str] = []
    while not lines or not lines[-1].startswith("curl -N"):
        lines.append(printed.get(timeout=START_TIMEOUT_S))
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"it ended with {process.returncode}: {process.stderr.read()}")
    return lines
