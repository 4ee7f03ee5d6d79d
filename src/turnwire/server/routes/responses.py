"""Responses: the turns of a session, their events from any point, and their end on demand."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from turnwire.protocol.errors import InvalidRequest
from turnwire.server.auth import Reader, Tenant
from turnwire.server.context import Of
from turnwire.server.documents import errors_of, numbered_stream
from turnwire.server.records import json_answer, response_record
from turnwire.server.requests import PAGE_ITEMS, Cursor, Limit, page_of
from turnwire.server.shapes import CancelRecord, ResponseRecord, TicketRecord

router = APIRouter(prefix="/v1/sessions/{session_id}/responses", tags=["responses"])


@router.get("", response_model=list[ResponseRecord], responses=errors_of(400, 401, 404))
async def list_responses(
    request: Request, session_id: str, tenant: Tenant, of: Of, limit: Limit = PAGE_ITEMS, cursor: Cursor = None
) -> Response:
    """The session's responses, newest first; `Link` leads to the next page."""
    found = await of.store.list_turns(tenant, session_id, after=cursor, limit=limit + 1)
    page, headers = page_of(request, found, limit, lambda turn: turn.id)
    return json_answer([response_record(turn) for turn in page], headers=headers)


@router.get("/{response_id}", response_model=ResponseRecord, responses=errors_of(401, 404))
async def get_response(session_id: str, response_id: str, tenant: Tenant, of: Of) -> Response:
    """One response: its status, its usage, its last event's number."""
    return json_answer(response_record(await of.turns.get(tenant, session_id, response_id)))


@router.get(
    "/{response_id}/events",
    response_class=Response,
    responses={
        **numbered_stream(),
        204: {"description": "The given event was the last: there is nothing to come."},
        **errors_of(400, 401, 404, 503),
    },
)
async def follow_response(
    session_id: str,
    response_id: str,
    tenant: Reader,
    of: Of,
    header_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    query_id: Annotated[str | None, Query(alias="last_event_id")] = None,
) -> Response:
    """The numbered events after `Last-Event-ID` (or `?last_event_id=`, which the header wins over), from the first
    one without: what is there at once, then live, to the end."""
    after = _event_id(header_id if header_id is not None else query_id)
    with of.place_for_stream():
        follower = await of.turns.follow_after(tenant, session_id, response_id, after)
        return Response(status_code=204) if follower is None else of.stream(follower, response_id)


@router.post(
    "/{response_id}/cancel",
    status_code=202,
    response_model=CancelRecord,
    responses={200: {"model": CancelRecord, "description": "It has ended already."}, **errors_of(401, 404, 503)},
)
async def cancel_response(session_id: str, response_id: str, tenant: Tenant, of: Of) -> Response:
    """Cancel a turn: after a 202 it ends as cancelled."""
    turn = await of.turns.cancel(tenant, session_id, response_id)
    if turn.ended_at is not None:
        return json_answer({"response_id": turn.id, "status": "already_complete"})
    return json_answer({"response_id": turn.id, "status": "cancelling"}, 202)


@router.post("/{response_id}/ticket", response_model=TicketRecord, responses=errors_of(401, 404, 503))
async def make_ticket(session_id: str, response_id: str, tenant: Tenant, of: Of) -> Response:
    """A URL on which a browser's EventSource can follow this one response, without a key, until 10 minutes behind its
    end. It is relative to the server's root. Whoever has it can read: hand it to nobody else."""
    turn = await of.turns.get(tenant, session_id, response_id)
    ticket, expires_at = await of.tickets.make(turn)
    url = f"{of.options.root_path}/v1/sessions/{session_id}/responses/{response_id}/events?ticket={ticket}"
    return json_answer({"url": url, "expires_at": expires_at})


def _event_id(text: str | None) -> int:
    if not text:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidRequest("The last event id must be the number of an event, such as 41.")
    return int(text)
