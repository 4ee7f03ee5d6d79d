"""Requests read: JSON bodies, and the parameters of pages."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec
from fastapi import Depends, Header, Query, Request
from fastapi.params import Depends as DependsParam
from pydantic import BaseModel, BeforeValidator, ValidationError

from turnwire.protocol.codec import decode_json
from turnwire.protocol.errors import InvalidRequest, UnsupportedMediaType
from turnwire.server.edge import read_body
from turnwire.server.problems import describe

BodyT = TypeVar("BodyT", bound=BaseModel)

PAGE_ITEMS = 100
PAGE_ITEMS_MAX = 1000
"""Items of a page: what one answer may make the server hold."""


def body_of(model: type[BodyT], *, optional: bool = False) -> DependsParam:
    """A dependency: the request's JSON body as a `model`. `optional`: no body is {}."""

    async def read(request: Request) -> BodyT:
        _check_type(request)
        raw = await read_body(request.receive, request.headers)
        if not raw.strip() and optional:
            raw = b"{}"
        try:
            return model.model_validate(parse_json(raw))
        except ValidationError as exc:
            raise InvalidRequest(describe(exc.errors(include_url=False))) from exc

    return Depends(read)


def documented_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The same body for the document, which FastAPI can't see in a dependency."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference}}}}


def _check_type(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if content_type not in ("", "application/json") or encoding not in ("", "identity"):
        raise UnsupportedMediaType


def parse_json(raw: bytes) -> object:
    """A JSON value, strictly: no NaN, no invalid UTF-8, no nesting or number too large. `InvalidRequest` else."""
    try:
        value = decode_json(raw)
        _check_depth(value)
    except RecursionError as exc:
        raise InvalidRequest("The body is nested too deeply.") from exc
    except (ValueError, msgspec.MsgspecError) as exc:
        raise InvalidRequest(f"The body is no valid JSON: {exc}.") from exc
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value  # pyright: ignore[reportUnknownVariableType]


NESTING_MAX = 100
"""Levels of nesting in a JSON body: more than any real one has, less than what our encoders take."""


NUMBER_MAX = 2.0**63
"""Numbers beyond it are refused: what a JSON reader elsewhere makes of them is not known."""


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > NESTING_MAX:
        raise RecursionError
    if isinstance(value, dict):
        for item in value.values():  # pyright: ignore[reportUnknownVariableType]
            _check_depth(item, depth + 1)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            _check_depth(item, depth + 1)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, int | float) and not -NUMBER_MAX <= value <= NUMBER_MAX:
        raise ValueError("a number is too large")


def _digits(value: object) -> object:
    """Python's own numbers have underscores, signs and other scripts' digits, too."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be a number in digits")
    return value


Limit = Annotated[int, BeforeValidator(_digits), Query(ge=1, le=PAGE_ITEMS_MAX, description="Items of a page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="From the `Link` header of the page before.")]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]

KEY_CHARS_MAX = 255
"""Characters of an idempotency key (PROTOCOL.md)."""


def checked_key(key: str | None) -> str | None:
    """The idempotency key of a request. InvalidRequest when it can be none."""
    if key is not None and not 1 <= len(key) <= KEY_CHARS_MAX:
        raise InvalidRequest(f"Idempotency-Key: must have 1 to {KEY_CHARS_MAX} characters.")
    return key


def next_link(request: Request, cursor: str) -> dict[str, str]:
    """The header that leads to the next page: this request, with another cursor."""
    query = [(k, v) for k, v in request.query_params.multi_items() if k != "cursor"]
    path = request.scope.get("root_path", "") + request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return {"Link": f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'}


def page_of(
    request: Request, items: list[Any], limit: int, id_of: Callable[[Any], str]
) -> tuple[list[Any], dict[str, str]]:
    """The page that `limit` + 1 items make, and its headers."""
    if len(items) <= limit:
        return items, {}
    page = items[:limit]
    return page, next_link(request, id_of(page[-1]))
