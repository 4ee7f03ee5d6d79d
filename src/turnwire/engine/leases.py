"""Leases: what keeps a turn ours while we live, and lets others take it up when we don't.

Where several servers share a database, each renews the leases of the turns that it runs, takes up those whose lease
has run out, and looks for cancels that another server was asked for. On the embedded store none of this is needed:
whoever holds the data folder holds every turn in it.
"""

import asyncio

import structlog

from turnwire.engine.turns import Turns
from turnwire.protocol.errors import TurnwireError
from turnwire.seams.store import Store

log = structlog.get_logger(__name__)


class Leases:
    """Renews every third of `lease_s`, so that two renewals may fail before another server takes over."""

    def __init__(self, store: Store, turns: Turns, owner: str, *, lease_s: float) -> None:
        self._store = store
        self._turns = turns
        self._owner = owner
        self._lease_s = lease_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.look()
            except TurnwireError:
                log.warning("leases_not_renewed", exc_info=True)

    async def look(self) -> None:
        """Renew, drop what was lost, stop what is to be cancelled, take up what was left."""
        supervisor = self._turns.supervisor
        lost = await self._store.renew_leases(self._owner, supervisor.turn_ids, lease_s=self._lease_s)
        for turn_id in lost:
            supervisor.drop(turn_id)
        for turn_id in await self._store.cancel_requests(self._owner):
            self._turns.stop(turn_id)
        if not self._turns.draining:
            await self._turns.take_over(everything=False, reason="taken_over")
