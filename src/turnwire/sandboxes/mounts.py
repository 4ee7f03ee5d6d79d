"""The handles of a workspace's mounts, closed whatever happens."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager

from turnwire.seams.workspace import Mount, Workspace


@asynccontextmanager
async def opened_mounts(workspace: Workspace | None, owner: int | None = None) -> AsyncGenerator[Sequence[Mount], None]:
    """What the workspace is to be mounted as; None: nothing is. Raises WorkspaceError."""
    if workspace is None:
        yield ()
        return
    opening = asyncio.ensure_future(asyncio.to_thread(workspace.mounts, owner))
    try:
        mounts = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread goes on: what it opens is nobody's then.
        opening.add_done_callback(lambda done: _close(() if done.exception() else done.result()))
        raise
    try:
        yield mounts
    finally:
        _close(mounts)


def _close(mounts: Iterable[Mount]) -> None:
    for mount in mounts:
        os.close(mount.fd)
