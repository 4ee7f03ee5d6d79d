"""Processes: started, measured from outside, ended."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "bench-key"
ROOT = Path(__file__).parent.parent


class Served:
    """A server under test."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, started_s: float) -> None:
        self.pid = process.pid
        self.url = url
        self.started_s = started_s

    def cpu_s(self) -> float:
        """User and system time of the process, all its threads and none of its children: utime + stime of
        /proc/PID/stat, which counts in hundredths of a second, by the process's clock, which is exact."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss_kib(self) -> int:
        return self._status("VmRSS")

    def peak_kib(self) -> int:
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0])


def _environment(provider: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TURNWIRE_", "OPENAI_"))}
    return kept | {
        "TURNWIRE_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{provider}/v1",
        "OPENAI_API_KEY": "none",
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def _process(command: list[str], env: dict[str, str] | None, log: Path | None) -> "Iterator[subprocess.Popen[str]]":
    with Path(log or os.devnull).open("a") as errors:
        process = subprocess.Popen(
            command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _address(process: "subprocess.Popen[str]", log: Path | None) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return found[0]
    raise AssertionError("it did not start" + (f": {log.read_text()[-2000:]}" if log else ""))


@contextmanager
def provider() -> Iterator[str]:
    """The fake provider's address."""
    with _process([sys.executable, "-m", "bench.provider"], None, None) as process:
        yield _address(process, None)


@contextmanager
def turnwire(
    provider: str,
    data: Path,
    model: str = "openai-chat:x",
    wrapper: tuple[str, ...] = (),
    database: str | None = None,
) -> Iterator[Served]:
    """`turnwire serve`, ready. `wrapper`: a command that runs it, such as a profiler's. `database`: the URL of a
    PostgreSQL; None: the embedded store."""
    program = str(Path(sys.executable).with_name("turnwire"))
    command = [*wrapper, program, "serve", "--data-dir", str(data), "--port", "0", "--model", model]
    log = data.with_suffix(".log")
    began = time.perf_counter()
    env = _environment(provider) | ({} if database is None else {"TURNWIRE_DATABASE_URL": database})
    with _process(command, env, log) as process:
        url = _address(process, log)
        yield Served(process, url, time.perf_counter() - began)


@contextmanager
def relay(provider: str, data: Path) -> Iterator[Served]:
    """The floor (peers/relay.py)."""
    log = data.with_suffix(".log")
    began = time.perf_counter()
    with _process([sys.executable, "-m", "bench.peers.relay"], _environment(provider), log) as process:
        url = _address(process, log)
        yield Served(process, url, time.perf_counter() - began)
