"""What this server can be asked for."""

from fastapi import APIRouter
from fastapi.responses import Response

from turnwire.server.auth import Tenant
from turnwire.server.context import Of
from turnwire.server.documents import errors_of
from turnwire.server.records import json_answer
from turnwire.server.shapes import ModelRecord

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", response_model=list[ModelRecord], responses=errors_of(401))
async def list_models(tenant: Tenant, of: Of) -> Response:
    """The models that a session or a message may name; others of the same providers may be named, too."""
    return json_answer(of.catalogue)
