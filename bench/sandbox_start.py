"""How long a sandboxed command takes to start and end, beside the bare one: `python bench/sandbox_start.py`.

Both are `bash -c true`, started one after another by this process, and awaited: what a `bash` call costs beyond its
work. The sandboxed ones go through the whole adapter: mounts opened, spawned, output read, reaped.
"""

import asyncio
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
BALLAST_BYTES = 200 * 1024 * 1024
"""A server is not small, and a fork would copy its page tables: so is this process."""


async def measured(name: str, run: Callable[[], Awaitable[None]]) -> float:
    """The median in ms."""
    for _ in range(5):
        await run()
    times: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await run()
        times.append((time.perf_counter() - begun) * 1000)
    median = statistics.median(times)
    print(f"{name:12} best {min(times):6.2f} ms   median {median:6.2f} ms   p95 {sorted(times)[-ROUNDS // 20]:6.2f} ms")
    return median


async def main() -> None:
    ballast = bytearray(BALLAST_BYTES)
    ballast[::4096] = b"x" * len(ballast[::4096])
    sandbox = Bubblewrap()
    print(sandbox.status.name, sandbox.status.reason)

    async def bare() -> None:
        subprocess.run(["bash", "-c", "true"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: ASYNC221

    with tempfile.TemporaryDirectory() as folder:
        workspace = DirectoryWorkspace(Path(folder), FileAccess())

        async def sandboxed() -> None:
            command = Command(argv=("bash", "-c", "true"), tenant="t", session_id="s", workspace=workspace, wall_s=30.0)
            running = await sandbox.start(command, lambda _: None)
            assert (await running.wait()).exit_code == 0

        without = await measured("bare", bare)
        within = await measured("sandboxed", sandboxed)
        print(f"over the bare command: {within - without:.2f} ms")
        await sandbox.aclose()


if __name__ == "__main__":
    asyncio.run(main())
