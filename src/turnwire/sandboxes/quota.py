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
from turnwire.seams.workspace import Usage, Workspace


class _Watched(NamedTuple):
    workspace: Workspace
    before: Usage | None
    """What was known to be in it when the command began."""


class QuotaWatch:
    """Ends children that fill their workspace beyond its quota."""

    def __init__(self) -> None:
        self._watched: dict[Child, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, child: Child, workspace: Workspace) -> None:
        """Watch a child until its end, if its workspace has a quota."""
        quota = workspace.quota
        if quota is None:
            return
        self._watched[child] = _Watched(workspace, quota.known())
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
            if all(watched.before is not None for watched in self._watched.values()):
                await asyncio.sleep(limits.QUOTA_INTERVAL_S)
            for child, watched in list(self._watched.items()):
                # One that has ended is looked after once more: what it left is where the next one begins.
                ended = child.ending is not None
                if await self._is_over(child, watched):
                    child.stop("quota")
                if ended:
                    del self._watched[child]

    async def _is_over(self, child: Child, watched: _Watched) -> bool:
        quota = watched.workspace.quota
        assert quota is not None
        try:
            now = await asyncio.to_thread(quota.look)
        except OSError:
            # Deleted with its session, whose commands are about to end. The others are watched on.
            now = watched.before or Usage()
        if watched.before is None:
            # The first look of this server at this workspace, right behind the command's start.
            self._watched[child] = watched._replace(before=now)
            return False
        return quota.is_over(now, watched.before)
