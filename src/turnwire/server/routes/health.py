"""Is it there, is it alive, can it take work."""

from fastapi import APIRouter
from fastapi.responses import Response

from turnwire import __version__
from turnwire.protocol.errors import Unavailable
from turnwire.server.context import Of
from turnwire.server.documents import errors_of
from turnwire.server.records import json_answer
from turnwire.server.shapes import Health

router = APIRouter(tags=["health"])

OK = {"status": "ok", "version": __version__}


@router.get("/health", response_model=Health)
async def health() -> Response:
    """The server answers. No key."""
    return json_answer(OK)


@router.get("/health/live", response_model=Health)
async def live() -> Response:
    """The process runs: restart it when this fails. No key."""
    return json_answer(OK)


@router.get("/health/ready", response_model=Health, responses=errors_of(503))
async def ready(of: Of) -> Response:
    """It takes new turns: send no traffic while this fails. No key."""
    if of.turns.draining:
        raise Unavailable("The server is about to stop.", retry_after_s=5)
    if not of.ready.is_set():
        raise Unavailable("The server is starting.", retry_after_s=1)
    return json_answer(OK)
