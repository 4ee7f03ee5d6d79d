"""Structs to rows and back."""

from typing import Any, Literal

import msgspec

from turnwire.protocol.codec import decode_json, encode_json
from turnwire.protocol.events import Usage
from turnwire.seams.store import Session, Turn

_ESCAPED = "\0"


def to_text(value: str) -> str:
    """`value` as SQLite can hold it: UTF-8 knows no lone surrogates, so what holds one is escaped, one to one."""
    if value.isascii() and not value.startswith(_ESCAPED):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return _ESCAPED + value.encode("utf-8", "surrogatepass").hex()
    return _ESCAPED + value.encode().hex() if value.startswith(_ESCAPED) else value


def from_text(text: str) -> str:
    """What `to_text` was given."""
    if text.startswith(_ESCAPED):
        return bytes.fromhex(text[1:]).decode("utf-8", "surrogatepass")
    return text


def maybe_text(value: str | None) -> str | None:
    return None if value is None else to_text(value)


def from_maybe_text(text: str | None) -> str | None:
    return None if text is None else from_text(text)


class SessionData(msgspec.Struct, frozen=True, omit_defaults=True):
    """What no query asks for: the column `data` of a session, as JSON."""

    metadata: dict[str, Any] = {}
    file_access: dict[str, list[str]] | None = None
    model: str | None = None
    instructions: str | None = None
    workspace: Literal["shared", "private"] = "shared"
    tools: list[dict[str, Any]] = []
    approvals: list[str] = []
    network: bool | None = None


_session_data = msgspec.json.Decoder(SessionData)
_usage = msgspec.json.Decoder(Usage)
encode_usage = msgspec.json.Encoder().encode


def encode_session_data(session: Session) -> bytes:
    """The column `data`."""
    return encode_json(
        SessionData(
            session.metadata,
            session.file_access,
            session.model,
            session.instructions,
            session.workspace,
            session.tools,
            session.approvals,
            session.network,
        )
    )


def decode_session_data(data: bytes) -> SessionData:
    try:
        return _session_data.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Lone surrogates, which msgspec refuses and decode_json keeps.
        return msgspec.convert(decode_json(data), SessionData)


SESSION = """
SELECT s.n, s.id, s.tenant, s.created_at, s.persistent, s.ttl, s.data,
       t.id, t.created_at, t.ended_at, t.pending_calls
FROM sessions AS s LEFT JOIN turns AS t ON t.n = (SELECT max(n) FROM turns WHERE session = s.n)
"""
"""Sessions with their latest turn. The running turn of a session, when it has one, is always the latest."""


def session_of(row: tuple[Any, ...]) -> Session:
    """A row of SESSION."""
    _, id_, tenant, created_at, persistent, ttl, data, turn_id, began_at, ended_at, pending_calls = row
    fields = decode_session_data(data)
    return Session(
        id=from_text(id_),
        tenant=from_text(tenant),
        created_at=created_at,
        persistent=bool(persistent),
        ttl=ttl,
        metadata=fields.metadata,
        file_access=fields.file_access,
        model=fields.model,
        instructions=fields.instructions,
        workspace=fields.workspace,
        tools=fields.tools,
        approvals=fields.approvals,
        network=fields.network,
        last_activity=created_at if turn_id is None else began_at if ended_at is None else ended_at,
        busy=turn_id is not None and ended_at is None,
        response_id=turn_id,
        pending_calls=pending_calls or 0,
    )


TURN = """
SELECT t.n, t.id, s.id, s.tenant, t.status, t.created_at, t.ended_at, t.last_seq, t.epoch, t.recoveries,
       t.cancel_requested, t.usage, t.error, t.pending_calls, b.message_id, b.message, b.content, b.model, b.settings
FROM turns AS t JOIN sessions AS s ON s.n = t.session JOIN turn_bodies AS b ON b.turn = t.n
"""


def turn_of(row: tuple[Any, ...]) -> Turn:
    """A row of TURN."""
    (_, id_, session_id, tenant, status, created_at, ended_at, last_seq, epoch, recoveries, *rest) = row
    cancel_requested, usage, error, pending_calls, message_id, message, content, model, settings = rest
    return Turn(
        id=id_,
        session_id=from_text(session_id),
        tenant=from_text(tenant),
        status=status,
        created_at=created_at,
        ended_at=ended_at,
        last_seq=last_seq,
        epoch=epoch,
        recoveries=recoveries,
        cancel_requested=bool(cancel_requested),
        usage=Usage() if usage is None else _usage.decode(usage),
        error=from_maybe_text(error),
        pending_calls=pending_calls,
        message_id=message_id,
        message=message,
        content=content,
        model=from_maybe_text(model),
        settings=settings,
    )
