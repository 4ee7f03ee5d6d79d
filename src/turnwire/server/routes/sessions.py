"""Sessions: made, listed, changed, deleted."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from turnwire.protocol.errors import InvalidRequest
from turnwire.seams.store import SessionChanges
from turnwire.seams.workspace import FileAccess, WorkspaceError
from turnwire.server.auth import Tenant
from turnwire.server.context import Of
from turnwire.server.documents import errors_of
from turnwire.server.records import json_answer, session_record
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
from turnwire.server.shapes import Deleted, NewSession, SessionPatch, SessionRecord

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

_DURATION = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")


@router.post(
    "",
    status_code=201,
    response_model=SessionRecord,
    responses=errors_of(400, 401, 403, 409, 413, 415, 422, 503),
    openapi_extra=documented_body(NewSession, required=False),
)
async def create_session(
    tenant: Tenant,
    of: Of,
    body: Annotated[NewSession, body_of(NewSession, optional=True)],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Open a session. With an `Idempotency-Key` that has opened one already, it is that one."""
    access = None if body.file_access is None else body.file_access.model_dump()
    _check_access(access)
    ttl = of.options.ttl_default_s if body.ttl is None else body.ttl
    _check_ttl(ttl, of)
    session = await of.sessions.create(
        tenant,
        key=checked_key(idempotency_key),
        persistent=body.persistent,
        ttl=ttl,
        metadata=body.metadata,
        file_access=access,
        model=body.model,
        instructions=body.instructions,
        workspace=body.workspace,
        tools=body.tools,
        approvals=body.approvals,
        network=body.network,
    )
    return json_answer(session_record(session), 201)


@router.get("", response_model=list[SessionRecord], responses=errors_of(400, 401))
async def list_sessions(
    request: Request,
    tenant: Tenant,
    of: Of,
    status: Annotated[Literal["idle", "busy"] | None, Query()] = None,
    limit: Limit = PAGE_ITEMS,
    cursor: Cursor = None,
) -> Response:
    """The tenant's sessions, newest first; `Link` leads to the next page."""
    busy = None if status is None else status == "busy"
    found = await of.store.list_sessions(tenant, busy=busy, after=cursor, limit=limit + 1)
    page, headers = page_of(request, found, limit, lambda session: session.id)
    return json_answer([session_record(session) for session in page], headers=headers)


@router.delete("", response_model=Deleted, responses=errors_of(400, 401, 503))
async def delete_sessions(
    tenant: Tenant,
    of: Of,
    status: Annotated[Literal["idle"] | None, Query()] = None,
    older_than: Annotated[str | None, Query(description="Such as 90s, 30m or 1h30m.")] = None,
) -> Response:
    """Delete idle sessions, or those without activity for a time: never a busy one."""
    if status is None and older_than is None:
        raise InvalidRequest("Say which: ?status=idle, or ?older_than= with a time such as 1h30m, or both.")
    older_than_s = None if older_than is None else _seconds(older_than)
    deleted = await of.store.delete_sessions(tenant, idle=status == "idle", older_than_s=older_than_s)
    return json_answer({"deleted": deleted})


@router.get("/{session_id}", response_model=SessionRecord, responses=errors_of(401, 404))
async def get_session(session_id: str, tenant: Tenant, of: Of) -> Response:
    """The session; `busy` tells whether a turn is running."""
    return json_answer(session_record(await of.store.get_session(tenant, session_id)))


@router.patch(
    "/{session_id}",
    response_model=SessionRecord,
    responses=errors_of(400, 401, 404, 413, 415, 503),
    openapi_extra=documented_body(SessionPatch),
)
async def update_session(
    session_id: str, tenant: Tenant, of: Of, body: Annotated[SessionPatch, body_of(SessionPatch)]
) -> Response:
    """Change a session: `metadata` is merged, the other fields are set."""
    given = {name: getattr(body, name) for name in body.model_fields_set}
    for name in ("metadata", "ttl"):
        if name in given and given[name] is None:
            raise InvalidRequest(f"{name}: must not be null.")
    if "ttl" in given:
        _check_ttl(given["ttl"], of)
    session = await of.sessions.update(tenant, session_id, SessionChanges(**given))
    return json_answer(session_record(session))


@router.delete("/{session_id}", status_code=204, responses=errors_of(401, 404, 503))
async def delete_session(session_id: str, tenant: Tenant, of: Of) -> Response:
    """Delete a session; a running turn is cancelled first."""
    await of.sessions.delete(tenant, session_id)
    return Response(status_code=204)


def _check_ttl(ttl: int, of: Of) -> None:
    if ttl > of.options.ttl_max_s:
        raise InvalidRequest(f"ttl: must be {of.options.ttl_max_s} seconds or less.")


def _check_access(access: dict[str, list[str]] | None) -> None:
    try:
        FileAccess.parse(access)
    except WorkspaceError as exc:
        raise InvalidRequest(str(exc)) from exc


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise InvalidRequest("older_than: must be a time such as 90s, 30m or 1h30m.")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds
