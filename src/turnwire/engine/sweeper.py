"""What goes with time: sessions past theirs, the rows and files of deleted ones, events past their retention.

In small bites, each a short transaction of its own, so that the hot path never waits long behind one.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from turnwire.engine.limits import SWEEP_BITE, SWEEP_INTERVAL_MIN_S, SWEEP_INTERVAL_S
from turnwire.seams.clock import Clock
from turnwire.seams.store import Session, Store, StoreUnavailable
from turnwire.seams.workspaces import Workspaces

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps every SWEEP_INTERVAL_S, or as often as the shortest of its times asks for.

    `replay_retention_s`: how long a finished turn's events stay; None: as its session. `end_session`:
    ends what still runs for a session that is gone, before its files go.
    """

    def __init__(
        self,
        store: Store,
        workspaces: Workspaces,
        clock: Clock,
        *,
        idle_ttl_s: float,
        replay_retention_s: float | None,
        end_session: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._clock = clock
        self._end_session = end_session
        self._idle_ttl_s = idle_ttl_s
        self._replay_retention_s = replay_retention_s
        shortest_s = min(
            SWEEP_INTERVAL_S, idle_ttl_s, SWEEP_INTERVAL_S if replay_retention_s is None else replay_retention_s
        )
        self._interval_s = max(shortest_s, SWEEP_INTERVAL_MIN_S)

    async def run(self) -> None:
        """Sweep until cancelled."""
        wait_s = self._interval_s
        while True:
            await asyncio.sleep(wait_s)
            more = False
            try:
                more = await self.sweep()
            except StoreUnavailable as exc:
                log.warning("sweep_failed", error=str(exc))
            except Exception:
                # The next sweep may fare better, and without any, nothing would ever go.
                log.exception("sweep_failed")
            # Between two bites, others write.
            wait_s = 0.01 if more else self._interval_s

    async def sweep(self) -> bool:
        """Take one bite of each kind. True when there may be more."""
        expired = await self._store.expire_sessions(idle_ttl_s=self._idle_ttl_s, limit=SWEEP_BITE)
        purged = await self._store.purge_sessions(limit=SWEEP_BITE, remove_files=self._remove_files)
        dropped = 0
        if self._replay_retention_s is not None:
            before = self._clock.now() - self._replay_retention_s
            dropped = await self._store.drop_events(ended_before=before, limit=SWEEP_BITE)
        return max(expired, len(purged), dropped) == SWEEP_BITE

    async def _remove_files(self, session: Session) -> bool:
        if self._end_session is not None:
            await self._end_session(session.id)
        if session.workspace == "private":
            try:
                await asyncio.to_thread(self._workspaces.remove_private, session.tenant, session.id)
            except OSError as exc:
                log.warning("files_not_removed", session_id=session.id, error=str(exc))
                return False
        return True
