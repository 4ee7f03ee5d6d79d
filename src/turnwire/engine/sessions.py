"""What callers do with sessions."""

from typing import Any

from turnwire.engine.functions import read_functions
from turnwire.engine.turns import Turns
from turnwire.protocol.errors import Conflict, Forbidden, IdempotencyMismatch, InvalidRequest, NotFound
from turnwire.protocol.ids import new_session_id, session_id_of
from turnwire.seams.clock import Clock
from turnwire.seams.model import Models
from turnwire.seams.store import Session, SessionChanges, Store

FIXED = ("persistent", "file_access", "workspace", "tools", "approvals", "network")
"""What of a session no PATCH changes."""


class Sessions:
    """The sessions of this server."""

    def __init__(self, store: Store, turns: Turns, models: Models, clock: Clock, *, no_network: str = "") -> None:
        """`no_network`: why no session can have a network, a sentence; empty: it can."""
        self._store = store
        self._turns = turns
        self._models = models
        self._clock = clock
        self._no_network = no_network

    async def create(self, tenant: str, *, model: str | None, key: str | None = None, **fields: Any) -> Session:
        """A new session; with an idempotency key that made one already, that one. `fields`: those of `Session` that its
        caller sets."""
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
        id_ = new_session_id() if key is None else session_id_of(tenant, key)
        session = Session(id=id_, tenant=tenant, created_at=now, last_activity=now, model=model, **fields)
        try:
            await self._store.create_session(session)
        except Conflict:
            if key is None:
                raise
            return await self._made_before(session)
        return session

    async def _made_before(self, wanted: Session) -> Session:
        """The session of an idempotency key. What can't be changed of it must be what is wanted."""
        try:
            found = await self._store.get_session(wanted.tenant, wanted.id)
        except NotFound as exc:
            raise Conflict("The session that this Idempotency-Key made is gone: use a new key for a new one.") from exc
        if any(getattr(found, name) != getattr(wanted, name) for name in FIXED):
            raise IdempotencyMismatch
        return found

    async def update(self, tenant: str, session_id: str, changes: SessionChanges) -> Session:
        if isinstance(changes.model, str):
            await self._models.choose(changes.model)
        return await self._store.update_session(tenant, session_id, changes)

    async def delete(self, tenant: str, session_id: str) -> None:
        """It is gone at once; a running turn is cancelled, and its rows and files go when that has ended."""
        running_id = await self._store.delete_session(tenant, session_id)
        if running_id is not None:
            self._turns.stop(running_id)
