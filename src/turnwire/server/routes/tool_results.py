"""Answers to calls that wait for their caller."""

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response

from turnwire.engine.asking import Approval, ToolAnswer
from turnwire.server.auth import Tenant
from turnwire.server.context import Of
from turnwire.server.documents import errors_of
from turnwire.server.records import json_answer
from turnwire.server.requests import body_of, documented_body
from turnwire.server.shapes import Accepted, CallResult, CallResults

router = APIRouter(prefix="/v1/sessions/{session_id}/tool_results", tags=["tools"])


@router.post(
    "",
    status_code=202,
    response_model=Accepted,
    responses=errors_of(400, 401, 404, 409, 413, 415, 503),
    openapi_extra=documented_body(CallResults),
)
async def answer_calls(
    session_id: str, tenant: Tenant, of: Of, body: Annotated[CallResults, body_of(CallResults)]
) -> Response:
    """Answer calls that were requested by `tool_call.requested`: all of them are taken, or none.

    The same answer may be sent again. Another one, or one to a call that was given up, is a 409.
    """
    await of.turns.answer_calls(tenant, session_id, [(result.id, _answer(result)) for result in body.results])
    return json_answer({"accepted": [result.id for result in body.results]}, 202)


def _answer(result: CallResult) -> ToolAnswer | Approval:
    if result.approve is None:
        return ToolAnswer(result.content, result.is_error)
    return Approval(result.approve, result.message, result.input)
