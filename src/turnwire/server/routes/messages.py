"""Messages: one is sent and its turn streamed; the conversation is read."""

import asyncio
import base64
import binascii
import mimetypes
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from turnwire.engine.turns import Message, MessagePart, MessageSettings
from turnwire.protocol.errors import Forbidden, InvalidRequest, NotFound
from turnwire.seams.store import Session, Turn
from turnwire.seams.workspace import OutsideWorkspace, TooLarge, Workspace, WorkspaceError
from turnwire.seams.workspaces import workspace_of
from turnwire.server.auth import Tenant
from turnwire.server.context import Of, Services
from turnwire.server.documents import errors_of, stream_of_a_message
from turnwire.server.records import assistant_message_record, json_answer, user_message_record
from turnwire.server.requests import (
    PAGE_ITEMS,
    Cursor,
    IdempotencyKey,
    Limit,
    body_of,
    checked_key,
    documented_body,
    page_of,
)
from turnwire.server.shapes import DataPart, MessageRecord, NewMessage, TextPart

router = APIRouter(prefix="/v1/sessions/{session_id}/messages", tags=["messages"])

FILE_BYTES_MAX = 20 * 1024 * 1024
"""Bytes of a workspace file in a message: what the large providers take in one request."""


@router.post(
    "",
    response_class=Response,
    responses={**stream_of_a_message(), **errors_of(400, 401, 403, 404, 409, 413, 415, 422, 429, 503)},
    openapi_extra=documented_body(NewMessage),
)
async def send_message(
    session_id: str,
    tenant: Tenant,
    of: Of,
    body: Annotated[NewMessage, body_of(NewMessage)],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Send a message; the answer is the stream of its turn, which runs to its end whether or not it is read.

    With `"event_ids": true` the events are numbered, as on the events endpoint.
    """
    key = checked_key(idempotency_key)
    with of.place_for_stream():
        message = Message(
            parts=await _parts(of, tenant, session_id, body),
            model=body.model,
            settings=MessageSettings(**body.settings.model_dump()),
            key=key,
        )
        turn, replayed = await of.turns.begin(tenant, session_id, message)
        if replayed and await _events_are_gone(of, turn):
            note = "This message was sent before; its events are gone. GET …/messages has the conversation."
            return json_answer({"response_id": turn.id, "status": "replayed", "note": note})
        numbered = of.options.event_ids if body.event_ids is None else body.event_ids
        return of.stream(of.turns.follow(turn, 0, numbered=numbered), turn.id)


@router.get("", response_model=list[MessageRecord], responses=errors_of(400, 401, 404))
async def list_messages(
    request: Request, session_id: str, tenant: Tenant, of: Of, limit: Limit = PAGE_ITEMS, cursor: Cursor = None
) -> Response:
    """The conversation, oldest first; `Link` leads to the next page. A running turn shows what it has said so far."""
    after = None if cursor is None else cursor.removesuffix(".user")
    turns = await of.store.list_turns(tenant, session_id, after=after, limit=limit // 2 + 1, newest_first=False)
    skip = 0
    if after is not None and after != cursor:  # the page before ended between a message and its answer
        skip = 1
        turns = [await of.store.get_turn(tenant, session_id, after), *turns]
    messages: list[tuple[str, dict[str, Any]]] = []
    for turn in turns:
        so_far = await of.turns.content_so_far(turn) if turn.content is None else None
        messages.append((f"{turn.id}.user", user_message_record(turn)))
        messages.append((turn.id, assistant_message_record(turn, so_far)))
    page, headers = page_of(request, messages[skip:], limit, lambda item: item[0])
    return json_answer([record for _, record in page], headers=headers)


async def _events_are_gone(of: Services, turn: Turn) -> bool:
    try:
        await of.store.read_events(turn.id, 0, bytes_max=1)
    except NotFound:
        return True
    return False


async def _parts(of: Services, tenant: str, session_id: str, body: NewMessage) -> list[MessagePart]:
    if isinstance(body.message, str):
        return [MessagePart("text", text=body.message)]
    parts: list[MessagePart] = []
    session: Session | None = None
    for index, part in enumerate(body.message):
        match part:
            case TextPart():
                parts.append(MessagePart("text", text=part.text))
            case DataPart(path=None):
                parts.append(_data_part(part, index))
            case DataPart() if part.data is not None:
                raise InvalidRequest(f"message.{index}: takes a path or data, not both.")
            case DataPart():
                session = session or await of.store.get_session(tenant, session_id)
                parts.append(await _file_part(of, session, part, index))
    if not any(part.type != "text" or part.text.strip() for part in parts):
        raise InvalidRequest("message: must not be empty or white space.")
    return parts


def _data_part(part: DataPart, index: int) -> MessagePart:
    if part.data is None or part.media_type is None:
        raise InvalidRequest(f"message.{index}: needs a path, or data in base64 and its media_type.")
    try:
        data = base64.b64decode(part.data, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest(f"message.{index}.data: is no valid base64.") from exc
    if not data:
        raise InvalidRequest(f"message.{index}.data: must not be empty.")
    _check_media_type(part, part.media_type, index)
    return MessagePart(part.type, data=data, media_type=part.media_type)


async def _file_part(of: Services, session: Session, part: DataPart, index: int) -> MessagePart:
    path = part.path or ""
    media_type = part.media_type or mimetypes.guess_type(path)[0] or "application/octet-stream"
    workspace = await asyncio.to_thread(workspace_of, session, of.workspaces)
    try:
        data = await asyncio.to_thread(_read, workspace, path)
    except OutsideWorkspace as exc:
        raise Forbidden(str(exc)) from exc
    except WorkspaceError as exc:
        raise InvalidRequest(f"message.{index}.path: {exc}") from exc
    _check_media_type(part, media_type, index)
    return MessagePart(part.type, data=data, media_type=media_type, path=path)


def _read(workspace: Workspace, path: str) -> bytes:
    with workspace.open(path) as file:
        if file.entry.size > FILE_BYTES_MAX:
            raise TooLarge(f"'{path}' is larger than the {FILE_BYTES_MAX // 1024 // 1024} MiB that a message takes.")
        return file.stream.read(FILE_BYTES_MAX)


def _check_media_type(part: DataPart, media_type: str, index: int) -> None:
    if part.type == "image" and not media_type.startswith("image/"):
        raise InvalidRequest(f"message.{index}: an image needs a media type such as image/png, not {media_type}.")
