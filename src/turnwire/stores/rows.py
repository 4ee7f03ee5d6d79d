"""Structs to columns and back: what the databases share."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from turnwire.protocol.codec import decode_json, encode_json
from turnwire.protocol.events import Usage
from turnwire.seams.store import Key, Session, SessionChanges, Turn
from turnwire.stores.common import merge_metadata


class Escape(NamedTuple):
    """How text is kept that a database can't hold as it is: UTF-8 knows no lone surrogates, and PostgreSQL's text no
    NUL either. What holds one is written in hexadecimal behind a mark, one to one."""

    mark: str
    refused: str = ""
    """Characters that the database refuses."""

    def to_text(self, value: str) -> str:
        """`value` as the database can hold it."""
        if value.isascii() and not value.startswith(self.mark) and not self._is_refused(value):
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            return self.mark + value.encode("utf-8", "surrogatepass").hex()
        return self.mark + value.encode().hex() if value.startswith(self.mark) or self._is_refused(value) else value

    def from_text(self, text: str) -> str:
        """What `to_text` was given."""
        if text.startswith(self.mark):
            return bytes.fromhex(text[len(self.mark) :]).decode("utf-8", "surrogatepass")
        return text

    def maybe_text(self, value: str | None) -> str | None:
        return None if value is None else self.to_text(value)

    def from_maybe_text(self, text: str | None) -> str | None:
        return None if text is None else self.from_text(text)

    def _is_refused(self, value: str) -> bool:
        return any(character in value for character in self.refused)


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


def changed_session(ttl: int, data: bytes, changes: SessionChanges) -> tuple[int, bytes]:
    """The columns `ttl` and `data` of a session, with changes laid over them."""
    before = decode_session_data(data)
    fields: dict[str, Any] = {}
    if changes.metadata is not msgspec.UNSET:
        fields["metadata"] = merge_metadata(before.metadata, changes.metadata)
    if changes.model is not msgspec.UNSET:
        fields["model"] = changes.model
    if changes.instructions is not msgspec.UNSET:
        fields["instructions"] = changes.instructions
    changed_ttl = ttl if changes.ttl is msgspec.UNSET else changes.ttl
    return changed_ttl, encode_json(msgspec.structs.replace(before, **fields))


SESSION_COLUMNS = """
s.n, s.id, s.tenant, s.created_at, s.persistent, s.ttl, s.data, t.id, t.created_at, t.ended_at, t.pending_calls
"""
"""Of a session `s` with its latest turn `t`. The running turn of a session, when it has one, is always the latest."""


def session_of(row: Sequence[Any], escape: Escape) -> Session:
    """A row of SESSION_COLUMNS."""
    _, id_, tenant, created_at, persistent, ttl, data, turn_id, began_at, ended_at, pending_calls = row
    fields = decode_session_data(data)
    return Session(
        id=escape.from_text(id_),
        tenant=escape.from_text(tenant),
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


def turn_of(row: Sequence[Any], escape: Escape) -> Turn:
    """A row of TURN."""
    (_, id_, session_id, tenant, status, created_at, ended_at, last_seq, epoch, recoveries, *rest) = row
    cancel_requested, usage, error, pending_calls, message_id, message, content, model, settings = rest
    return Turn(
        id=id_,
        session_id=escape.from_text(session_id),
        tenant=escape.from_text(tenant),
        status=status,
        created_at=created_at,
        ended_at=ended_at,
        last_seq=last_seq,
        epoch=epoch,
        recoveries=recoveries,
        cancel_requested=bool(cancel_requested),
        usage=Usage() if usage is None else _usage.decode(usage),
        error=escape.from_maybe_text(error),
        pending_calls=pending_calls,
        message_id=message_id,
        message=message,
        content=content,
        model=escape.from_maybe_text(model),
        settings=settings,
    )


def key_of(row: Sequence[Any], escape: Escape) -> Key:
    """A row of digest, tenant, name, created_at."""
    digest, tenant, name, created_at = row
    return Key(digest, escape.from_text(tenant), escape.from_text(name), created_at)
