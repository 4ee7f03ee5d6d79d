"""A session's files: listed, read, written, deleted, and whole folders as zip files."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from turnwire.protocol.codec import encode_json
from turnwire.protocol.errors import (
    InvalidRequest,
    PayloadTooLarge,
    RangeNotSatisfiable,
    UnsupportedMediaType,
)
from turnwire.seams import workspace as seam
from turnwire.seams.workspace import Entry, Workspace
from turnwire.seams.workspaces import workspace_of
from turnwire.server.auth import Tenant
from turnwire.server.conditions import Conditions, http_date, requested_part
from turnwire.server.context import Of, Services
from turnwire.server.documents import errors_of
from turnwire.server.filepaths import path_in_query, path_in_url
from turnwire.server.filetypes import content_type, disposition
from turnwire.server.problems import problem
from turnwire.server.records import json_answer
from turnwire.server.requests import PAGE_ITEMS, Cursor, Limit, next_link
from turnwire.server.shapes import FileRecord, WrittenFile
from turnwire.server.transfer import CallerGone, Nothing, Pieces, pieces_of, receive_upload
from turnwire.server.workspace_problems import workspace_problems
from turnwire.server.zips import check_zip, zip_pieces

FOLDER_ENTRIES_MAX = 200_000
"""Entries of a folder that a page of its list is taken from: they are sorted in memory, some 300 bytes each."""

# Whatever an agent has written, it is no page of this origin: nothing in it runs, is framed, or is guessed at.
SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}

Format = Annotated[Literal["zip"] | None, Query(description="`zip`: the folder as a zip file.")]

_HEADERS = {
    name: {"description": text, "schema": {"type": "string"}}
    for name, text in (
        ("ETag", "Changes whenever the content does."),
        ("Last-Modified", "When the file was changed."),
        ("Accept-Ranges", "`bytes`: of a file."),
        ("X-Content-Type-Options", "`nosniff`"),
        ("Content-Disposition", "How a browser is to take the file: what could hold a script is a download."),
    )
}
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_LIST: dict[str, Any] = {
    "schema": {
        "description": "Of a folder, what is in it; of a JSON file, its content.",
        "anyOf": [{"type": "array", "items": {"$ref": "#/components/schemas/FileRecord"}}, {}],
    }
}
_READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file's bytes, typed by its name; of a folder, what is in it, or its zip.",
        "content": {"*/*": _BYTES, "application/json": _LIST, "application/zip": _BYTES},
        "headers": _HEADERS,
    },
    206: {
        "description": "The one range that was asked for.",
        "content": {"*/*": _BYTES},
        "headers": {**_HEADERS, "Content-Range": {"description": "Which.", "schema": {"type": "string"}}},
    },
    304: {"description": "The caller has this state of the file already.", "headers": {"ETag": _HEADERS["ETag"]}},
}
_WRITTEN: dict[int | str, dict[str, Any]] = {
    status: {"model": WrittenFile, "description": text, "headers": {"ETag": _HEADERS["ETag"]}}
    for status, text in ((200, "The file was replaced."), (201, "The file is new."))
}
_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"*/*": _BYTES}}}
_PATH: dict[str, Any] = {
    "name": "path",
    "in": "path",
    "required": True,
    "description": "From the workspace's root, percent-encoded once; its `/` may stay as they are.",
    "schema": {"type": "string"},
}

router = APIRouter(prefix="/v1/sessions/{session_id}/files", tags=["files"])


class _Asked:
    """A request for files of a session."""

    def __init__(self, of: Services, request: Request, workspace: Workspace, path: str) -> None:
        self.of, self.request, self.workspace, self.path = of, request, workspace, path
        self.head = request.method == "HEAD"
        self.conditions = Conditions.of(request.headers)


async def _asked(request: Request, session_id: str, tenant: Tenant, of: Of) -> _Asked:
    in_url = "path" in request.path_params
    path = path_in_url(request.scope) if in_url else path_in_query(request.scope)
    session = await of.store.get_session(tenant, session_id)
    return _Asked(of, request, await of.disk.run(workspace_of, session, of.workspaces), path)


Asked = Annotated[_Asked, Depends(_asked)]


@router.get(
    "",
    response_model=list[FileRecord],
    responses={**errors_of(400, 401, 403, 404, 409, 413), 200: {"headers": {"Link": {"schema": {"type": "string"}}}}},
)
async def list_files(
    asked: Asked,
    path: Annotated[str, Query(description="The folder; without it, the workspace.")] = "",
    limit: Limit = PAGE_ITEMS,
    cursor: Cursor = None,
    format: Format = None,
) -> Response:
    """What is in a folder, by name; `Link` leads to the next page. Links, FIFOs and devices are not shown."""
    with workspace_problems():
        return await (_zip(asked) if format else _list(asked, limit, cursor))


@router.get(
    "/{path:any_path}",
    response_class=Response,
    responses={**errors_of(400, 401, 403, 404, 409, 412, 413, 416), **_READ},
    openapi_extra={"parameters": [_PATH]},
)
@router.head(
    "/{path:any_path}",
    response_class=Response,
    responses={**errors_of(400, 401, 403, 404, 409, 412, 413), 200: _READ[200], 304: _READ[304]},
    openapi_extra={"parameters": [_PATH]},
)
async def read_file(asked: Asked, limit: Limit = PAGE_ITEMS, cursor: Cursor = None, format: Format = None) -> Response:
    """A file's bytes, or a part of them (`Range`); of a folder, what is in it.

    `If-None-Match`, `If-Modified-Since`, `If-Match`, `If-Unmodified-Since` and `If-Range` are heeded.
    """
    with workspace_problems(reading=True):
        entry = await asked.of.disk.run(asked.workspace.stat, asked.path)
        if format and entry.type == "directory":
            return await _zip(asked)
        if entry.type == "directory":
            return await _list(asked, limit, cursor)
        if format or asked.path.endswith("/"):
            raise seam.NotAFolder(f"'{entry.path}' is not a folder.")
        return _head(asked, entry) if asked.head else await _file(asked)


@router.put(
    "/{path:any_path}",
    response_class=Response,
    responses={**errors_of(400, 401, 403, 404, 409, 412, 413, 415, 507), **_WRITTEN},
    openapi_extra={**_BODY, "parameters": [_PATH]},
)
async def write_file(asked: Asked) -> Response:
    """Write a file: make it, with the folders above it that are missing, or replace it.

    It is there whole, or not at all: a reader sees the file before or the file after, and an upload that breaks off
    leaves nothing. `If-None-Match: *` writes new files only, `If-Match` only the one that the caller has seen.
    """
    request, of = asked.request, asked.of
    expected = _expected_bytes(asked)
    with workspace_problems():
        etag = await _check_write(asked)
        upload = await of.disk.run(_begin_upload, asked, expected, etag)
        try:
            entry, is_new = await receive_upload(
                of.disk, request.receive, upload, slow_s=of.options.slow_reader_timeout_s
            )
        except CallerGone:
            return Nothing()
    record = {"path": entry.path, "size": entry.size, "modified": entry.modified}
    return json_answer(record, 201 if is_new else 200, {"ETag": f'"{entry.etag}"', **SAFE})


@router.delete(
    "/{path:any_path}",
    status_code=204,
    responses=errors_of(400, 401, 403, 404, 409, 412),
    openapi_extra={"parameters": [_PATH]},
)
async def delete_file(asked: Asked) -> Response:
    """Delete a file, or a folder that is empty."""
    with workspace_problems():
        etag = await _check_write(asked)
        # "" is of no file, of which there is nothing to delete: answered as such.
        await asked.of.disk.run(partial(asked.workspace.delete, asked.path, expected_etag=etag or None))
    return Response(status_code=204)


# Reading


async def _file(asked: _Asked) -> Response:
    file = await asked.of.disk.run(asked.workspace.open, asked.path)
    try:
        entry = file.entry
        asked.conditions.check(entry.etag, entry.modified)
        headers = _file_headers(entry)
        if asked.conditions.is_known(entry.etag, entry.modified):
            file.stream.close()
            return _not_modified(headers)
        part = requested_part(asked.request.headers, entry.size, entry.etag, entry.modified)
        first, length = part or (0, entry.size)
        if part is not None:
            headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{entry.size}"
        headers["Content-Length"] = str(length)
        return Pieces(
            asked.of.disk,
            pieces_of(file, first, length),
            file.stream.close,
            status=200 if part is None else 206,
            headers=headers,
            slow_s=asked.of.options.slow_reader_timeout_s,
        )
    except RangeNotSatisfiable as exc:
        file.stream.close()
        answer = problem(exc)
        answer.headers["Content-Range"] = f"bytes */{file.entry.size}"
        return answer
    except BaseException:
        file.stream.close()
        raise


def _head(asked: _Asked, entry: Entry) -> Response:
    asked.conditions.check(entry.etag, entry.modified)
    headers = _file_headers(entry)
    if asked.conditions.is_known(entry.etag, entry.modified):
        return _not_modified(headers)
    return Response(headers={**headers, "Content-Length": str(entry.size)})


def _file_headers(entry: Entry) -> dict[str, str]:
    return {
        "Content-Type": content_type(entry.name),
        "Content-Disposition": disposition(entry.name),
        "ETag": f'"{entry.etag}"',
        "Last-Modified": http_date(entry.modified),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        **SAFE,
    }


def _not_modified(headers: dict[str, str]) -> Response:
    return Response(
        status_code=304, headers={name: headers[name] for name in ("ETag", "Last-Modified", "Cache-Control")}
    )


async def _list(asked: _Asked, limit: int, cursor: str | None) -> Response:
    listing = await asked.of.disk.run(_listing, asked)
    entries = listing.entries
    start = 0 if cursor is None else _behind(entries, cursor)
    page = entries[start : start + limit]
    headers = next_link(asked.request, page[-1].name) if start + limit < len(entries) else {}
    records = [{"name": e.name, "type": e.type, "size": e.size, "modified": e.modified} for e in page]
    body = encode_json(records)
    headers |= SAFE
    if asked.head:
        headers["Content-Length"], body = str(len(body)), b""
    return Response(body, headers=headers, media_type="application/json")


def _listing(asked: _Asked) -> seam.Listing:
    return asked.workspace.list(asked.path, entries_max=FOLDER_ENTRIES_MAX)


def _behind(entries: list[Entry], cursor: str) -> int:
    """Where the names behind the cursor begin, whether or not it is still there."""
    return next((index for index, entry in enumerate(entries) if entry.name > cursor), len(entries))


async def _zip(asked: _Asked) -> Response:
    await asked.of.disk.run(check_zip, asked.workspace, asked.path)
    entry = await asked.of.disk.run(asked.workspace.stat, asked.path)
    headers = {
        "Content-Type": "application/zip",
        "Content-Disposition": disposition(f"{entry.name or 'workspace'}.zip"),
        "Cache-Control": "private, no-store",
        **SAFE,
    }
    if asked.head:
        return Response(headers=headers)
    pieces = zip_pieces(asked.workspace, asked.path)
    slow_s = asked.of.options.slow_reader_timeout_s
    return Pieces(asked.of.disk, pieces, pieces.close, status=200, headers=headers, slow_s=slow_s)


# Writing


def _expected_bytes(asked: _Asked) -> int | None:
    """The size that the request tells; refused at once when it is too large, or no whole file as it is."""
    headers = asked.request.headers
    if "content-range" in headers:
        raise InvalidRequest("Content-Range: a file is written whole; send all of it.")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Content-Encoding: a file is stored as it is sent; send it without an encoding.")
    length = headers.get("content-length", "")
    expected = int(length) if length.isdigit() and len(length) < 20 else None
    if expected is not None and expected > asked.of.options.upload_bytes_max:
        raise PayloadTooLarge(f"The file is larger than {asked.of.options.upload_bytes_max} bytes.")
    return expected


def _begin_upload(asked: _Asked, expected: int | None, etag: str | None) -> seam.Upload:
    return asked.workspace.put(
        asked.path, bytes_max=asked.of.options.upload_bytes_max, expected_etag=etag, bytes_expected=expected
    )


async def _check_write(asked: _Asked) -> str | None:
    """Refuse before the body is read what would be refused after it, as far as the session may look.

    The etag that the file must have in the moment of the write, "" for no file; None: it may be any.
    """
    conditions = asked.conditions
    if conditions.if_match is None and conditions.if_none_match is None and conditions.unmodified_since is None:
        return None
    try:
        entry = await asked.of.disk.run(asked.workspace.stat, asked.path)
    except (seam.NotFound, seam.NotAFolder):
        conditions.check_write(None, 0)
    except (seam.OutsideWorkspace, seam.NotAFile):
        # It may write but not read: the one etag that it names is compared when it writes.
        if conditions.expected_etag is None:
            raise
    else:
        conditions.check_write(entry.etag, entry.modified)
        if conditions.is_of_state:
            return entry.etag
    return conditions.expected_etag
