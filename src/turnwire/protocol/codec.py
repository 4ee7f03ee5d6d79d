"""Events to bytes and back.

A frame is `event: <type>`, `data: <json>` and a blank line, each ended by a line feed. The JSON is compact and holds
no raw character at which a reader could tear the line: line and paragraph separator and NEL (U+2028, U+2029, U+0085)
are escaped because `str.splitlines()`, and so httpx's `iter_lines()`, splits there. A lone surrogate, which some
model or tool may well hand us, is kept as its escape.

A frame is encoded once, without its number. `number()` makes the numbered form of the same bytes by splicing.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from turnwire.protocol.errors import RemoteProtocolError
from turnwire.protocol.events import EVENTS, Event

_encode = msgspec.json.Encoder().encode
_HEADS = {cls: f"event: {name}\ndata: ".encode() for name, cls in EVENTS.items()}
_DECODERS = {name: msgspec.json.Decoder(cls) for name, cls in EVENTS.items()}

NESTING_MAX = 200
"""Levels of objects and lists: far more than any input needs, and far less than exhausts the stack of those who encode
or walk a value that was decoded here."""
_TOO_DEEP = f"it is nested deeper than {NESTING_MAX} levels"

_LINE_BREAKERS = re.compile(b"\xe2\x80[\xa8\xa9]|\xc2\x85")
_LINE_BREAKER_ESCAPES = {b"\xe2\x80\xa8": rb"\u2028", b"\xe2\x80\xa9": rb"\u2029", b"\xc2\x85": rb"\u0085"}
_SURROGATES = re.compile("[\ud800-\udfff]")


def encode_json(value: object) -> bytes:
    """`value` (a struct, or anything that msgspec encodes) as compact JSON on one line, for every reader of lines.

    NaN and the infinities, which JSON lacks, become null.
    """
    try:
        data = _encode(value)
    except UnicodeEncodeError:
        data = _encode_with_surrogates(value)
    if data.isascii():
        return data
    # Only strings hold bytes beyond ASCII, and UTF-8 is self-synchronizing: a match is always a whole character.
    return _LINE_BREAKERS.sub(lambda match: _LINE_BREAKER_ESCAPES[match[0]], data)


def _encode_with_surrogates(value: object) -> bytes:
    text = json.dumps(_finite(msgspec.to_builtins(value)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _SURROGATES.sub(lambda match: f"\\u{ord(match[0]):x}", text).encode()


def _finite(value: Any) -> Any:
    """`value` with null for NaN and the infinities, which JSON lacks: what msgspec writes."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_finite(item) for item in cast("list[Any]", value)]
        case _:
            return value


def encode_frame(event: Event) -> bytes:
    """The frame of an event, un-numbered."""
    return _HEADS[type(event)] + encode_json(event) + b"\n\n"


def encode_frames(events: Iterable[Event]) -> bytes:
    """The frames of several events, one after another."""
    return b"".join([_HEADS[type(event)] + encode_json(event) + b"\n\n" for event in events])


def split_frames(frames: bytes) -> list[bytes]:
    """Frames one after another, apart. The JSON escapes line feeds, so a blank line is always an end."""
    return [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]


def skip_frames(frames: bytes, count: int) -> bytes:
    """`frames` without the first `count`."""
    start = 0
    for _ in range(count):
        start = frames.index(b"\n\n", start) + 2
    return frames[start:]


def number(frames: bytes, first: int) -> bytes:
    """The numbered form of frames whose first has the sequence number `first`.

    `id: <n>` stands before each, and `"sequence_number": n` is added to its data object.
    """
    parts: list[bytes] = []
    for n, frame in enumerate(frames.split(b"\n\n")[:-1], first):
        comma = b"" if frame.endswith(b"{}") else b","
        parts.append(b'id: %d\n%b%b"sequence_number":%d}\n\n' % (n, frame[:-1], comma, n))
    return b"".join(parts)


def decode_json(data: bytes | str) -> object:
    """Any JSON value, lone surrogates included.

    ValueError, with a reason to show, when it is none; invalid UTF-8, NaN, numbers too large to hold, and nesting
    beyond NESTING_MAX are none.
    """
    try:
        value = msgspec.json.decode(data)
    except RecursionError as exc:
        raise ValueError(_TOO_DEEP) from exc
    except (msgspec.DecodeError, UnicodeError):
        value = _decode_leniently(data)
    if _brackets(data) > NESTING_MAX and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def _brackets(data: bytes | str) -> int:
    """How deep `data` can be nested at most."""
    return data.count(b"[") + data.count(b"{") if isinstance(data, bytes) else data.count("[") + data.count("{")


def _is_deep(value: object) -> bool:
    level: list[Any] = [value]
    for _ in range(NESTING_MAX):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in cast("Iterable[Any]", container.values() if isinstance(container, dict) else container)
        ]
    return any(isinstance(item, dict | list) for item in level)


def _decode_leniently(data: bytes | str) -> object:
    """Lone surrogates are what msgspec refuses, and Python's own module keeps. Nothing else is let through by it."""
    try:
        text = data if isinstance(data, str) else data.decode()
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int, parse_float=_parse_float)
    except UnicodeDecodeError as exc:
        raise ValueError(f"it is not UTF-8: byte {exc.start} is invalid") from exc
    except RecursionError as exc:
        raise ValueError(_TOO_DEEP) from exc


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:  # Python's own limit of digits, against quadratic time
        raise ValueError(f"it holds a number of {len(text)} digits, which is too large") from exc


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds a number that is too large for a float")
    return value


def decode_event(type_: str, data: bytes | str) -> Event | None:
    """The event with this name and data; None when the name is unknown: readers ignore such events.

    Keys beyond the event's own (`sequence_number`) are passed over. RemoteProtocolError when the data is not what
    the event's shape asks for.
    """
    decoder = _DECODERS.get(type_)
    if decoder is None:
        return None
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _decode_event_leniently(type_, data)


def _decode_event_leniently(type_: str, data: bytes | str) -> Event:
    cls = EVENTS[type_]
    try:
        value = decode_json(data)
        if isinstance(value, dict):  # msgspec fails on a key with a lone surrogate, even on one that it would pass over
            members = cast("dict[str, Any]", value)
            value = {key: members[key] for key in cls.__struct_fields__ if key in members}
        return msgspec.convert(value, cls)
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"The data of {type_} is not of its shape: {exc}") from exc


def decode_frames(frames: bytes) -> list[Event]:
    """The events of frames that `encode_frames` made. RemoteProtocolError when they are something else."""
    events: list[Event] = []
    for frame in frames.split(b"\n\n")[:-1]:
        head, _, data = frame.partition(b"\n")
        event = decode_event(head[7:].decode(errors="replace"), data[6:])
        if event is None:
            raise RemoteProtocolError(f"There is no event {head[7:]!r}.")
        events.append(event)
    return events
