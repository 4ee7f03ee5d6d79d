"""Errors as answers: one body for all of them, those of the framework included."""

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from turnwire.protocol.codec import encode_json
from turnwire.protocol.errors import ERRORS, InvalidRequest, MethodNotAllowed, NotFound, TurnwireError, Unauthorized

_BY_STATUS: dict[int, type[TurnwireError]] = {cls.status: cls for cls in reversed(ERRORS.values())}


def problem(exc: TurnwireError) -> Response:
    """The answer that an error is: `{"error", "message"}`, with the headers that go with it."""
    headers: dict[str, str] = {}
    if exc.retry_after_s is not None:
        headers["Retry-After"] = str(exc.retry_after_s)
    if exc.response_id is not None:
        headers["X-Response-Id"] = exc.response_id
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    body = encode_json({"error": exc.name, "message": _one_line(exc.message)})
    return Response(body, exc.status, headers, media_type="application/json")


MESSAGE_CHARS_MAX = 600
"""Characters of an error's message: a sentence for people, whatever of the request it quotes."""


def _one_line(text: str) -> str:
    """`text` on one line that can be printed: what it quotes of a request may hold anything."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return text if len(text) <= MESSAGE_CHARS_MAX else f"{text[: MESSAGE_CHARS_MAX - 2]}…."


def add_handlers(app: FastAPI) -> None:
    """Have every error of the application answered by `problem()`."""

    async def on_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, TurnwireError)
        return problem(exc)

    async def on_http_error(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        answer = problem(_from_framework(exc, request))
        if exc.status_code == MethodNotAllowed.status:
            methods = sorted(_methods_at(app, request))
            answer.headers["Allow"] = ", ".join(methods) or (exc.headers or {}).get("Allow", "GET")
        return answer

    async def on_invalid(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, RequestValidationError)
        return problem(InvalidRequest(describe(exc.errors())))

    app.add_exception_handler(TurnwireError, on_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _methods_at(app: FastAPI, request: Request) -> set[str]:
    """The methods that this address takes, of the document: the framework names those of the first route alone."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    methods: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        # {path} is the one parameter that may hold slashes.
        pattern = re.sub(r"\{\w+\}", "[^/]+", template.replace("{path}", ".+"))
        if re.fullmatch(pattern, path, re.DOTALL):
            methods.update(method.upper() for method in operations)
    return methods


def _from_framework(exc: HTTPException, request: Request) -> TurnwireError:
    cls = _BY_STATUS.get(exc.status_code, InvalidRequest)
    if cls is NotFound:
        return NotFound(f"There is no endpoint {request.url.path}; /docs lists those that there are.")
    if cls is MethodNotAllowed:
        return MethodNotAllowed()
    return cls(str(exc.detail))


def describe(errors: Any) -> str:
    """What is wrong with an input, in one line that names each field."""
    faults: dict[str, None] = {}
    for error in _of_the_likeliest(errors)[:5]:
        where = ".".join(_path(error["loc"]))
        what = str(error["msg"]).removeprefix("Value error, ")
        faults[f"{where}: {what}" if where else what] = None
    return "; ".join(faults) + "."


def _of_the_likeliest(errors: Any) -> list[Any]:
    """Where a field may be a text or a list, and is a list: what is wrong with the list."""
    lists = [error for error in errors if any(str(step).startswith("list[") for step in error["loc"])]
    return lists or list(errors)


def _path(steps: Any) -> list[str]:
    """A field's path, without what the validator adds: where the value came from, and which kind it was taken for."""
    if steps and steps[0] in ("body", "query", "path", "header"):
        steps = steps[1:]
    path: list[str] = []
    for before, step in zip((None, *steps), steps, strict=False):
        is_kind = isinstance(before, int) and step in ("text", "image", "file")
        if not str(step).startswith("list[") and not is_kind:
            path.append(str(step))
    return path
