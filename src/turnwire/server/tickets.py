"""Tickets: a URL that lets a browser's EventSource follow one turn, since that can send no `Authorization`.

A ticket names one turn and is signed with a secret of the store, so every server on it knows every ticket and none is
kept. It reads, and nothing else; it works from now until TICKET_S behind the turn's end.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec

from turnwire.engine.limits import TICKET_S
from turnwire.protocol.errors import Unauthorized
from turnwire.seams.clock import Clock
from turnwire.seams.store import Store, Turn


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a ticket says: whose turn it is for."""

    tenant: str
    session_id: str
    response_id: str


class Tickets:
    """Makes tickets and checks them."""

    def __init__(self, store: Store, clock: Clock, *, turn_timeout_s: float) -> None:
        self._store = store
        self._clock = clock
        self._turn_timeout_s = turn_timeout_s

    async def make(self, turn: Turn) -> tuple[str, float]:
        """The ticket's text, and until when it works at the latest, in epoch seconds."""
        body = msgspec.json.encode(Ticket(turn.tenant, turn.session_id, turn.id))
        text = base64.urlsafe_b64encode(await self._sign(body) + body).rstrip(b"=").decode()
        ends_at = turn.created_at + self._turn_timeout_s if turn.ended_at is None else turn.ended_at
        return text, ends_at + TICKET_S

    async def check(self, text: str, session_id: str, response_id: str) -> str:
        """The tenant that the ticket speaks for. `Unauthorized` when it is for another turn, or past its time."""
        ticket = await self._read(text)
        if (ticket.session_id, ticket.response_id) != (session_id, response_id):
            raise Unauthorized("This ticket is for another response.")
        turn = await self._store.get_turn(ticket.tenant, session_id, response_id)
        if turn.ended_at is not None and self._clock.now() > turn.ended_at + TICKET_S:
            raise Unauthorized("This ticket has run out: ask for another one.")
        return ticket.tenant

    async def _read(self, text: str) -> Ticket:
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            signature, body = raw[: hashlib.sha256().digest_size], raw[hashlib.sha256().digest_size :]
            if hmac.compare_digest(signature, await self._sign(body)):
                return msgspec.json.decode(body, type=Ticket)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            pass
        raise Unauthorized("This ticket is none of this server's.")

    async def _sign(self, body: bytes) -> bytes:
        return hmac.digest(await self._store.secret("tickets"), body, "sha256")
