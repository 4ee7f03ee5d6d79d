"""Stored values as the JSON of answers; `shapes.py` tells of them."""

from typing import Any

import msgspec
from fastapi.responses import Response

from turnwire.protocol.codec import encode_json
from turnwire.protocol.transcript import Block
from turnwire.seams.store import Session, Turn


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON."""
    return Response(encode_json(value), status, headers, media_type="application/json")


def session_record(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "created_at": session.created_at,
        "last_activity": session.last_activity,
        "busy": session.busy,
        "persistent": session.persistent,
        "ttl": session.ttl,
        "status": "ready",
        "metadata": session.metadata,
        "file_access": session.file_access,
        "model": session.model,
        "response_id": session.response_id,
        "pending_calls": session.pending_calls,
    }


def response_record(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.id,
        "status": turn.status,
        "usage": turn.usage,
        "error": turn.error,
        "created_at": turn.created_at,
        "ended_at": turn.ended_at,
        "last_sequence_number": turn.last_seq,
        "pending_calls": turn.pending_calls,
    }


def user_message_record(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.message_id,
        "role": "user",
        "status": "completed",
        "created_at": turn.created_at,
        "content": msgspec.Raw(turn.message),
        "usage": None,
    }


def assistant_message_record(turn: Turn, so_far: list[Block] | None = None) -> dict[str, Any]:
    """`so_far`: the content of a turn that runs."""
    return {
        "id": turn.id,
        "role": "assistant",
        "status": turn.status,
        "created_at": turn.created_at,
        "content": so_far if turn.content is None else msgspec.Raw(turn.content),
        "usage": turn.usage,
    }
