"""What can be asked of a server, beside turns and files: one flow each, for both drivers."""

import secrets
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from turnwire.client.api import Api, json_request
from turnwire.client.errors import error_of
from turnwire.client.functions import ClientTool
from turnwire.client.records import (
    Health,
    MessageRecord,
    ModelRecord,
    ResponseRecord,
    SessionRecord,
    SkillRecord,
    read_messages,
    read_record,
)
from turnwire.client.state import SessionState
from turnwire.client.steps import Broken, Flow, Reply, Request, Send, Source
from turnwire.protocol.errors import NotFound


class Given:
    """Stands for an argument that was left out, where None says something of its own."""


LEFT_OUT = Given()


def named(**values: Any) -> dict[str, Any]:
    """Those that were given: not None, or anything where LEFT_OUT is the default."""
    return {name: value for name, value in values.items() if value is not None and value is not LEFT_OUT}


FOLDED = ("", ".", "..")
"""As part of a path an HTTP library folds these away, and another address is asked."""


def check_id(kind: str, text: str) -> str:
    """An id as part of a path. ValueError when it can be none."""
    if text in FOLDED or quote(text, safe="") != text:
        raise ValueError(f"{text!r} is no id of a {kind}.")
    return text


def health(api: Api) -> Flow[Health]:
    """Asked once: an answer now, or Unreachable."""
    try:
        reply: Reply = yield Send(Request("GET", "/health"))
    except Broken as exc:
        raise api.unreachable(exc) from exc
    if reply.status >= 300:
        raise error_of(reply.status, reply.headers, reply.body)
    api.reached = True
    return read_record(reply.body, Health)


def models(api: Api) -> Flow[list[ModelRecord]]:
    return (yield from api.get("/v1/models", list[ModelRecord]))


def create_session(api: Api, tools: Sequence[ClientTool], fields: Mapping[str, Any]) -> Flow[SessionRecord]:
    body = dict(fields) | ({"tools": [tool.definition() for tool in tools]} if tools else {})
    # Else a try whose answer was lost would leave a session behind that nobody uses.
    once = {"Idempotency-Key": f"turnwire-{secrets.token_hex(16)}"}
    reply = yield from api.call(json_request("POST", "/v1/sessions", body, **once))
    return read_record(reply.body, SessionRecord)


def get_session(api: Api, session_id: str) -> Flow[SessionRecord]:
    return (yield from api.get(f"/v1/sessions/{check_id('session', session_id)}", SessionRecord))


def read_sessions(body: bytes) -> list[SessionRecord]:
    return read_record(body, list[SessionRecord])


def read_responses(body: bytes) -> list[ResponseRecord]:
    return read_record(body, list[ResponseRecord])


class _Deleted(msgspec.Struct):
    deleted: int


def delete_sessions(api: Api, params: dict[str, str]) -> Flow[int]:
    reply = yield from api.call(Request("DELETE", "/v1/sessions", params=params))
    return read_record(reply.body, _Deleted).deleted


def update_session(state: SessionState, fields: Mapping[str, Any]) -> Flow[SessionRecord]:
    state.record = yield from state.api.send_json("PATCH", state.path, dict(fields), SessionRecord)
    return state.record


def messages(state: SessionState) -> Flow[list[MessageRecord]]:
    return (yield from state.api.all_pages(f"{state.path}/messages", read_messages))


def responses(state: SessionState) -> Generator[Any, Any, None]:
    """Yields the ResponseRecords."""
    yield from state.api.pages(f"{state.path}/responses", read_responses)


def response(state: SessionState, response_id: str) -> Flow[ResponseRecord]:
    return (yield from state.api.get(f"{state.path}/responses/{check_id('response', response_id)}", ResponseRecord))


def cancel(state: SessionState, response_id: str | None) -> Flow[bool]:
    """Whether a turn was there to cancel."""
    if response_id is None:
        record = yield from state.refresh()
        if not record.busy:
            return False
        if not isinstance(record.response_id, str):
            raise NotFound("This server does not tell which turn runs, so it can't be cancelled.")
        response_id = record.response_id
    path = f"{state.path}/responses/{check_id('response', response_id)}/cancel"
    answer = yield from state.api.send_json("POST", path, {}, dict[str, Any])
    return answer.get("status") == "cancelling"


def skills(api: Api) -> Flow[list[SkillRecord]]:
    return (yield from api.get("/v1/skills", list[SkillRecord]))


def install_skill(api: Api, name: str, body: bytes | Source) -> Flow[SkillRecord]:
    path = _skill_path(name)
    reply = yield from api.call(Request("POST", path, {"Content-Type": "application/zip"}, body=body))
    return read_record(reply.body, SkillRecord)


def remove_skill(api: Api, name: str) -> Flow[None]:
    yield from api.delete(_skill_path(name))


def _skill_path(name: str) -> str:
    if name in FOLDED or "/" in name:
        raise ValueError(f"{name!r} is no name of a skill.")
    return f"/v1/skills/{quote(name, safe='')}"


def message_body(
    message: str | Sequence[Mapping[str, Any]], model: str | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of a message, of which the server is asked to number the events."""
    if isinstance(message, str) and not message.strip():
        raise ValueError("The message must not be empty or white space.")
    parts = message if isinstance(message, str) else [dict(part) for part in message]
    body: dict[str, Any] = {"message": parts, "event_ids": True}
    return body | named(model=model) | ({"settings": dict(settings)} if settings else {})
