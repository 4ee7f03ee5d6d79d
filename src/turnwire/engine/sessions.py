"""What callers do with sessions."""

from typing import Any

from turnwire.engine.functions import read_functions
from turnwire.engine.turns import Turns
from turnwire.protocol.errors import Forbidden, InvalidRequest
from turnwire.protocol.ids import new_session_id
from turnwire.seams.clock import Clock
from turnwire.seams.model import Models
from turnwire.seams.store import Session, SessionChanges, Store


class Sessions:
    """The sessions of this server."""

    def __init__(self, store: Store, turns: Turns, models: Models, clock: Clock, *, no_network: str = "") -> None:
        """`no_network`: why no session can have a network, a sentence; empty: it can."""
        self._store = store
        self._turns = turns
        self._models = models
        self._clock = clock
        self._no_network = no_network

    async def create(self, tenant: str, *, model: str | None, **fields: Any) -> Session:
        """A new session. `fields`: those of `Session` that its caller sets."""
        if model is not None:
            await self._models.choose(model)
        own = await self._turns.server_tools()
        read_functions(fields.get("tools", []), own)
        for name in fields.get("approvals", []):
            if name not in own:
                raise InvalidRequest(f"approvals: {name!r} is no tool of this server; it has {', '.join(own)}.")
        if fields.get("network") and self._no_network:
            raise Forbidden(f"network: {self._no_network}")
        now = self._clock.now()
        session = Session(id=new_session_id(), tenant=tenant, created_at=now, last_activity=now, model=model, **fields)
        await self._store.create_session(session)
        return session

    async def update(self, tenant: str, session_id: str, changes: SessionChanges) -> Session:
        if isinstance(changes.model, str):
            await self._models.choose(changes.model)
        return await self._store.update_session(tenant, session_id, changes)

    async def delete(self, tenant: str, session_id: str) -> None:
        """It is gone at once; a running turn is cancelled, and its rows and files go when that has ended."""
        running_id = await self._store.delete_session(tenant, session_id)
        if running_id is not None:
            self._turns.stop(running_id)
