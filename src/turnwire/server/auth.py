"""Who asks: a key's hash names its tenant."""

import hashlib
import secrets
import time
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from turnwire.protocol.errors import Unauthorized
from turnwire.seams.store import Store
from turnwire.server.tickets import Tickets

KEY_CACHE_S = 5.0
"""Seconds for which a key that was found is not looked up again: how long a revoked key may still work."""

KEY_CACHE_MAX = 10_000
"""Keys held in the cache; beyond it, it is emptied."""

DEFAULT_TENANT = "default"


def key_digest(key: str) -> bytes:
    """What is stored of a key. Keys are long random texts, so a plain hash can't be turned back."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class Keys:
    """Looks keys up. `own_key`: one of the operator's choosing, for the tenant `default`."""

    def __init__(self, store: Store, own_key: str | None = None) -> None:
        self._store = store
        self._own = None if own_key is None else key_digest(own_key)
        self._cache: dict[bytes, tuple[str, float]] = {}

    async def tenant(self, key: str) -> str:
        """The tenant of a key; `Unauthorized` when it is none."""
        digest = key_digest(key)
        # A header is read as Latin-1; a chosen key that is not ASCII comes in UTF-8 from most callers.
        sent = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        if self._own is not None and any(secrets.compare_digest(self._own, it) for it in (digest, sent)):
            return DEFAULT_TENANT
        now = time.monotonic()
        cached = self._cache.get(digest)
        if cached is not None and cached[1] > now:
            return cached[0]
        found = await self._store.find_key(digest)
        if found is None:
            self._cache.pop(digest, None)
            raise Unauthorized("This key is not known here; 'turnwire keys show' prints the one of this server.")
        if len(self._cache) >= KEY_CACHE_MAX:
            self._cache.clear()
        self._cache[digest] = (found.tenant, now + KEY_CACHE_S)
        return found.tenant


_bearer = HTTPBearer(auto_error=False, description="`tw_<tenant>_<token>`; `turnwire keys show` prints it.")


async def require_tenant(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """The tenant of the request's key."""
    if credentials is None:
        raise Unauthorized
    keys: Keys = request.app.state.services.keys
    return await keys.tenant(credentials.credentials)


Tenant = Annotated[str, Depends(require_tenant)]


async def require_reader(
    request: Request,
    session_id: str,
    response_id: str,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ticket: Annotated[str | None, Query(description="Instead of a key; see `POST …/ticket`.")] = None,
) -> str:
    """The tenant of the request's key, or of its ticket for this one response."""
    if credentials is None and ticket is not None:
        tickets: Tickets = request.app.state.services.tickets
        return await tickets.check(ticket, session_id, response_id)
    return await require_tenant(request, credentials)


Reader = Annotated[str, Depends(require_reader)]
