"""The tenant's skills: listed, installed, removed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from turnwire.protocol.errors import (
    Conflict,
    InsufficientStorage,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    TurnwireError,
    UnsupportedMediaType,
)
from turnwire.seams import skills as seam
from turnwire.seams.skills import Skill
from turnwire.server.auth import Tenant
from turnwire.server.context import Of
from turnwire.server.documents import errors_of
from turnwire.server.records import json_answer
from turnwire.server.shapes import SkillRecord
from turnwire.server.transfer import CallerGone, Nothing, receive_upload

router = APIRouter(prefix="/v1/skills", tags=["skills"])

_TYPES = ("application/zip", "application/x-zip-compressed", "application/octet-stream", "")

_ZIP: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}

_ERRORS: dict[type[seam.SkillError], type[TurnwireError]] = {
    seam.SkillInvalid: InvalidRequest,
    seam.SkillTooLarge: PayloadTooLarge,
    seam.SkillNotFound: NotFound,
    seam.TooManySkills: Conflict,
    seam.NoSpaceForSkill: InsufficientStorage,
}


@contextmanager
def _problems() -> Generator[None]:
    try:
        yield
    except seam.SkillError as exc:
        raise _ERRORS[type(exc)](str(exc)) from exc


@router.get("", response_model=list[SkillRecord], responses=errors_of(401))
async def list_skills(tenant: Tenant, of: Of) -> Response:
    """The skills that the tenant's agents have, by name: all of them."""
    return json_answer([_record(skill) for skill in await of.disk.run(of.skills.list, tenant)])


@router.post(
    "/{name}",
    status_code=201,
    response_model=SkillRecord,
    responses={
        **errors_of(400, 401, 404, 409, 413, 415, 507),  # 404: a name with a slash in it
        200: {"model": SkillRecord, "description": "The skill was replaced."},
    },
    openapi_extra=_ZIP,
)
async def install_skill(request: Request, name: str, tenant: Tenant, of: Of) -> Response:
    """Install a skill from a zip, or replace it: a folder with a SKILL.md, in the public Agent Skills format.

    The zip is checked whole before anything of it is installed, and turns see all of the skill or nothing of it.
    """
    _check_type(request)
    with _problems():
        upload = await of.disk.run(of.skills.install, tenant, name)
        try:
            skill, is_new = await receive_upload(
                of.disk, request.receive, upload, slow_s=of.options.slow_reader_timeout_s
            )
        except CallerGone:
            return Nothing()
    return json_answer(_record(skill), 201 if is_new else 200)


@router.delete("/{name}", status_code=204, responses=errors_of(401, 404))
async def remove_skill(name: str, tenant: Tenant, of: Of) -> Response:
    """Remove a skill."""
    with _problems():
        await of.disk.run(of.skills.remove, tenant, name)
    return Response(status_code=204)


def _check_type(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if content_type not in _TYPES or encoding not in ("", "identity"):
        raise UnsupportedMediaType("The body must be a zip file: send 'Content-Type: application/zip', not encoded.")


def _record(skill: Skill) -> dict[str, Any]:
    return {
        "name": skill.name,
        "description": skill.description,
        "size": skill.size,
        "modified": skill.modified,
    }
