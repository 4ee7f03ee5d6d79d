"""Watching what no limit of the kernel bounds here: the memory of all of a command's processes together, and the disk.

One look reads /proc once for all commands, in a worker thread; nothing is looked at while nothing runs. Memory is the
sum of what is resident; only when that is over the limit, what processes share is counted once (PSS, which is slow to
read). /tmp and /dev/shm are memory too, and have sizes of their own; but an empty file there takes a kilobyte of the
kernel's memory and nothing of that size, so files are counted.
"""

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from turnwire.sandboxes import limits
from turnwire.sandboxes.children import Child
from turnwire.sandboxes.quota import Budget, QuotaWatch

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


class Watch:
    """Ends children that take too much."""

    def __init__(self, memory_bytes: int, folders_in_memory: Sequence[str] = ()) -> None:
        """`folders_in_memory`: of each child's own, as it sees them."""
        self._memory_bytes, self._folders_in_memory = memory_bytes, folders_in_memory
        self._watched: dict[Child, list[int]] = {}
        self._quotas = QuotaWatch()
        self._task: asyncio.Task[None] | None = None

    def add(self, child: Child, folders: Iterable[int], budget: Budget | None) -> None:
        """Watch a child until its end. `folders`: open ones of its workspace that it may write to; the handles are
        copied."""
        if budget is not None:
            self._quotas.add(child, budget)
        self._watched[child] = [os.dup(folder) for folder in folders]
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="watch of sandboxes")

    async def aclose(self) -> None:
        await self._quotas.aclose()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for child in list(self._watched):
            self._forget(child)

    def _forget(self, child: Child) -> None:
        for folder in self._watched.pop(child):
            os.close(folder)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(limits.WATCH_INTERVAL_S)
            for child in [child for child in self._watched if child.ending is not None]:
                self._forget(child)
            if not self._watched:
                return
            for child, folders in self._watched.items():
                if any(_free_bytes(folder) < limits.DISK_FREE_BYTES_MIN for folder in folders):
                    child.stop("disk")
            pids = [child.pid for child in self._watched]
            large = await asyncio.to_thread(larger_than, self._memory_bytes, pids, self._folders_in_memory)
            for child in self._watched:
                if child.pid in large:
                    child.stop("memory")


def larger_than(memory_bytes: int, pids: Iterable[int], folders: Sequence[str] = ()) -> set[int]:
    """Those processes that take more memory than this, with all that descend from them, or have too many files in their
    folders in memory. All get their priority."""
    resident, children = _table()
    found: set[int] = set()
    for pid in pids:
        family = _family(pid, children)
        for one in family:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, one, limits.NICE)
        if (
            sum(resident.get(one, 0) for one in family) > memory_bytes
            and sum(map(_proportional, family)) > memory_bytes
        ) or sum(_files_in(folder, family) for folder in folders) > limits.TMP_FILES_MAX:
            found.add(pid)
    return found


def _files_in(folder: str, family: Sequence[int]) -> int:
    """Files in a filesystem that the sandbox has at this place, by whichever process of it lets its root be seen; 0
    while it has none of its own yet."""
    for pid in family[1:4]:
        with contextlib.suppress(OSError):
            inside = f"/proc/{pid}/root{folder}"
            if os.stat(inside).st_dev != os.stat(folder).st_dev:  # noqa: PTH116 (as statvfs below)
                status = os.statvfs(inside)
                return status.f_files - status.f_ffree
    return 0


def _free_bytes(folder: int) -> int:
    status = os.fstatvfs(folder)
    return status.f_bavail * status.f_frsize


def _table() -> tuple[dict[int, int], dict[int, list[int]]]:
    """Of all processes: resident bytes, and children."""
    resident: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir(_PROC):  # noqa: PTH208 (a thousand paths would be made for nothing)
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The second field, the name, may hold spaces and brackets: what follows its last bracket is plain.
            fields = (_PROC / name / "stat").read_bytes().rpartition(b")")[2].split()
            children[int(fields[1])].append(int(name))
            resident[int(name)] = int(fields[21]) * _PAGE_BYTES
    return resident, children


def _family(pid: int, children: dict[int, list[int]]) -> list[int]:
    family = [pid]
    for one in family:
        family += children.get(one, ())
    return family


def _proportional(pid: int) -> int:
    """Bytes of a process where a page that n share counts an nth."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0
