"""What OpenAPI is told beside what FastAPI sees: errors, headers, and the events of a stream."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from turnwire.protocol.events import EVENTS
from turnwire.server.shapes import CallResults, NewMessage, NewSession, Problem, ReplayedRecord, SessionPatch

_TITLES = {
    400: "The request is not valid.",
    401: "No valid key was given.",
    403: "The path is outside of what the session may see.",
    404: "There is no such thing, for this tenant.",
    409: "A turn is running in this session (`X-Response-Id` names it), or the state of the thing does not fit.",
    412: "The file is not in the state that a condition of the request names.",
    413: "The body is too large.",
    415: "The body is not of the type that this endpoint takes, or is encoded.",
    416: "The range lies outside of the file; `Content-Range` tells its size.",
    422: "The idempotency key was used with another message or session.",
    429: "A limit of the tenant; see `Retry-After`.",
    503: "A limit of the server, or it is about to stop; see `Retry-After`.",
    507: "No room: the disk or the quota of the workspace is full.",
}

_STREAM_TEXT = (
    "Server-Sent Events: each is `event: <type>`, `data: <json>` and a blank line. `itemSchema` gives the type and the "
    "data of one event. The stream ends behind `message.completed`, `message.error` or `message.cancelled`."
)


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers with these statuses, for a route's `responses`."""
    return {status: {"model": Problem, "description": _TITLES[status]} for status in statuses}


def numbered_stream() -> dict[int | str, dict[str, Any]]:
    """A numbered stream as an answer, for a route's `responses`."""
    return _stream({"$ref": "#/components/schemas/NumberedEvent"})


def stream_of_a_message() -> dict[int | str, dict[str, Any]]:
    """The answers 200 to a message: a stream, numbered or not, as its caller asks; or, to a repeated one whose events
    are gone, a note that says so."""
    answers = _stream({"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("AnyEvent", "NumberedEvent")]})
    replayed = {"$ref": f"#/components/schemas/{ReplayedRecord.__name__}"}
    answers[200]["content"]["application/json"] = {"schema": replayed}
    return answers


def _stream(item_schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {
        "text/event-stream": {
            "schema": {"type": "string", "description": _STREAM_TEXT},
            "itemSchema": item_schema,
        }
    }
    header = {"description": "The response id.", "schema": {"type": "string"}}
    return {200: {"description": _STREAM_TEXT, "content": content, "headers": {"X-Response-Id": header}}}


def event_schemas() -> dict[str, Any]:
    """A schema for each event as `{event, data}`, un-numbered or numbered, and their unions."""
    _, components = msgspec.json.schema_components(EVENTS.values(), ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {}
    for name, cls in EVENTS.items():
        data = components.pop(cls.__name__)
        data["additionalProperties"] = False
        data["required"] = list(data["properties"]) if name != "tool_call.answered" else ["id", "kind"]
        seq = {"sequence_number": {"type": "integer", "minimum": 0}}
        numbered = {
            **data,
            "properties": {**data["properties"], **seq},
            "required": [*data["required"], "sequence_number"],
        }
        schemas[cls.__name__] = _event_schema(name, data)
        schemas[f"Numbered{cls.__name__}"] = _event_schema(name, numbered)
    names = [cls.__name__ for cls in EVENTS.values()]
    schemas["AnyEvent"] = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}
    schemas["NumberedEvent"] = {"oneOf": [{"$ref": f"#/components/schemas/Numbered{name}"} for name in names]}
    return {**components, **schemas}


def _event_schema(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": data.pop("description", name),
        "properties": {"event": {"const": name}, "data": data},
        "required": ["event", "data"],
    }


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        schemas = made["components"]["schemas"]
        schemas.update(event_schemas())
        for body in (NewSession, SessionPatch, NewMessage, CallResults, ReplayedRecord):
            schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[body.__name__] = schema
        _drop_framework_errors(made)
        app.openapi_schema = made
    return app.openapi_schema


def _drop_framework_errors(made: dict[str, Any]) -> None:
    """FastAPI documents its own 422, which this server never answers with."""
    for path in made["paths"].values():
        for operation in path.values():
            invalid = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(invalid):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        made["components"]["schemas"].pop(name, None)
