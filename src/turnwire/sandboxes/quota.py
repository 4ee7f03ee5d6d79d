"""Watching what commands make of their workspace's quota: a directory that is mounted has no limit that the kernel
would keep.

A look is a walk over the whole workspace, so a workspace says itself how often it is worth one; there is one walk at a
time, in a thread, and none while nothing runs. A command in a workspace that is over its quota already may run, or
nobody could delete anything: it is ended when it adds to that.
"""

import asyncio
import contextlib
from typing import NamedTuple

from turnwire.sandboxes import limits
from turnwire.sandboxes.children import Child
from turnwire.seams.workspace import Usage, Workspace, WorkspaceQuota


class Budget(NamedTuple):
    """What a command may make of its workspace."""

    quota: WorkspaceQuota
    before: Usage
    """What was there when the command began."""


async def budget_of(workspace: Workspace | None) -> Budget | None:
    """Of a command that is about to begin: what is there as of the last look, or of a first one, which is made now.
    None where there is no quota."""
    quota = None if workspace is None else workspace.quota
    if quota is None:
        return None
    try:
        return Budget(quota, quota.known() or await asyncio.to_thread(quota.look))
    except OSError:
        return Budget(quota, Usage())  # it was deleted with its session


class QuotaWatch:
    """Ends children that fill their workspace beyond its quota."""

    def __init__(self) -> None:
        self._watched: dict[Child, Budget] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, child: Child, budget: Budget) -> None:
        """Watch a child until its end."""
        self._watched[child] = budget
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="watch of quotas")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._watched.clear()

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(limits.QUOTA_INTERVAL_S)
            for child, budget in list(self._watched.items()):
                # One that has ended is looked after once more: what it left is where the next one begins.
                ended = child.ending is not None
                if await _is_over(budget):
                    child.stop("quota")
                if ended:
                    del self._watched[child]


async def _is_over(budget: Budget) -> bool:
    try:
        now = await asyncio.to_thread(budget.quota.look)
    except OSError:  # deleted with its session, whose commands are about to end; the others are watched on
        return False
    return budget.quota.is_over(now, budget.before)
