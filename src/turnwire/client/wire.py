"""Events as other servers may send them: of the founding contract, with looser contents."""

from typing import Any, cast

from turnwire.protocol.codec import decode_event, decode_json, encode_json
from turnwire.protocol.errors import RemoteProtocolError
from turnwire.protocol.events import Event


def read_event(type_: str, data: str) -> Event | None:
    """The event with this name and data; None when its name is not known. RemoteProtocolError when it has no shape."""
    try:
        return decode_event(type_, data)
    except RemoteProtocolError:
        try:
            value = decode_json(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise
        return decode_event(type_, encode_json(_loosened(type_, cast("dict[str, Any]", value))))


def _loosened(type_: str, value: dict[str, Any]) -> dict[str, Any]:
    """What the founding page leaves open, as this protocol has it."""
    value = dict(value)
    if type_ == "tool_result":
        content = value.get("content")
        value["content"] = content if isinstance(content, str) else encode_json(content).decode()
        value["is_error"] = bool(value.get("is_error"))
    if type_ in ("message.completed", "message.cancelled"):
        usage = value.get("usage")
        known = cast("dict[str, Any]", usage) if isinstance(usage, dict) else {}
        value["usage"] = {key: count for key, count in known.items() if isinstance(count, int)}
    if type_ == "message.error" and not isinstance(value.get("error"), str):
        value["error"] = encode_json(value.get("error")).decode()
    return value
