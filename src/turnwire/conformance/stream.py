"""A turn's stream held against the rules, byte for byte, as it comes. Each failure names the rule that it breaks."""

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import msgspec

from turnwire.conformance.wire import Exchange, WireError
from turnwire.protocol.codec import decode_event
from turnwire.protocol.errors import LocalProtocolError, RemoteProtocolError
from turnwire.protocol.events import (
    EVENTS,
    TERMINAL,
    Event,
    MessageCancelled,
    MessageCompleted,
    MessageCreated,
    MessageError,
    MessageResumed,
    ToolResult,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
    Usage,
)
from turnwire.protocol.grammar import DELTAS, Grammar
from turnwire.protocol.ids import CALL_ID, RESPONSE_ID, SESSION_ID

FRAME = re.compile(rb"event: ([^\n]+)\ndata: ([^\n]*)\n\n")
NUMBERED_FRAME = re.compile(rb"id: (0|[1-9][0-9]*)\nevent: ([^\n]+)\ndata: ([^\n]*)\n\n")
CLOSE_WITHIN_S = 3.0
"""Seconds that a server has to close the connection behind a stream."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_RAW = {"\u2028": "U+2028", "\u2029": "U+2029", "\u0085": "U+0085"}


@dataclass(frozen=True)
class Seen:
    """An event as it came. `data` is without `sequence_number`, `raw` is its frame."""

    seq: int
    type: str
    data: dict[str, Any]
    event: Event
    raw: bytes


class StreamReader:
    """Reads one stream. `first`: the number of the first event that it should show."""

    def __init__(self, exchange: Exchange, *, numbered: bool, first: int = 0) -> None:
        self.exchange = exchange
        self.numbered = numbered
        self.seen: list[Seen] = []
        self.heartbeats = 0
        self.ended = False
        self._at = 0
        self._next = first
        self._scanned = 0
        # From the middle of a turn its grammar can't be told: then the frames alone are checked.
        self._grammar = Grammar() if first == 0 else None
        self._pieces: list[str] = []
        self.response_id = exchange.headers.get("x-response-id", "")
        check_head(exchange)

    @property
    def types(self) -> list[str]:
        return [seen.type for seen in self.seen]

    def read_until(self, type_: str | None) -> None:
        """Read to the first event of this type (None: to the end), checking all on the way."""
        checked = 0
        while True:
            self._parse()
            if type_ is not None and type_ in self.types[checked:]:
                return
            checked = len(self.seen)
            if not self.exchange.read():
                break
        self._finish()
        if type_ is not None:
            raise WireError(f"The stream ended without {type_}.")

    def read_until_heartbeat(self) -> None:
        """Read until a heartbeat has come."""
        self._parse()
        while not self.heartbeats:
            if not self.exchange.read():
                _fail("P-1.9", "The stream ended, and no heartbeat had come while it was quiet.")
            self._parse()

    def _finish(self) -> None:
        self._parse()
        rest = bytes(self.exchange.body[self._at :])
        if rest:
            _fail_frame(rest, self.numbered)
        if not self.ended:
            _fail("P-5.3", "The stream ended without a terminal event.")
        if not self.exchange.finished:
            _fail("P-1.12", "Behind the terminal event the body was cut off, and not ended.")
        if not self.exchange.closed_within(CLOSE_WITHIN_S):
            _fail("P-1.12", f"The connection was not closed within {CLOSE_WITHIN_S:g} s of the terminal event.")

    def _parse(self) -> None:
        body = self.exchange.body
        if b"\r" in body[self._scanned :]:
            at = body.index(b"\r", self._scanned)
            _fail("P-1.2", f"The stream holds a carriage return: {_around(body, at)}.")
        self._scanned = len(body)
        while self._at < len(body):
            if body.startswith(b":", self._at):
                if not self._take_comment(body):
                    return
                continue
            end = body.find(b"\n\n", self._at)
            if end < 0:
                return
            self._take_frame(bytes(body[self._at : end + 2]))
            self._at = end + 2

    def _take_comment(self, body: bytearray) -> bool:
        comment = b":\n" if self.numbered else b":\n\n"
        if len(body) - self._at < len(comment):
            return False
        if not body.startswith(comment, self._at) or (self.numbered and body.startswith(b":\n\n", self._at)):
            _fail("P-1.9", f"This is no heartbeat of such a stream: {_around(body, self._at)}.")
        self._at += len(comment)
        self.heartbeats += 1
        return True

    def _take_frame(self, raw: bytes) -> None:
        match = (NUMBERED_FRAME if self.numbered else FRAME).fullmatch(raw)
        if match is None:
            _fail_frame(raw, self.numbered)
        *number, name, data = match.groups()
        if self.ended:
            _fail("P-2.1", f"Behind the terminal event came {name.decode('latin-1')}.")
        if number and int(number[0]) != self._next:
            _fail("P-1.5", f"The event {int(number[0])} came where {self._next} was next.")
        seen = self._event(name.decode("latin-1"), _object(data), raw)
        if self._grammar is not None:
            self._follow(self._grammar, seen.event)
        self.seen.append(seen)
        self._next += 1
        self.ended = isinstance(seen.event, TERMINAL)

    def _event(self, type_: str, data: dict[str, Any], raw: bytes) -> Seen:
        if type_ not in EVENTS:
            _fail("P-2.1", f"{type_!r} is no event of this protocol.")
        if self.numbered and data.pop("sequence_number", None) != self._next:
            _fail("P-1.7", f"The data of {type_} should have the sequence_number {self._next}.")
        _check_keys(EVENTS[type_], data)
        try:
            event = decode_event(type_, json.dumps(data))
        except RemoteProtocolError as exc:
            _fail("P-2.1", str(exc))
        assert event is not None
        self._check_content(event, data)
        return Seen(self._next, type_, data, event, raw)

    def _check_content(self, event: Event, data: dict[str, Any]) -> None:
        match event:
            case MessageCreated(id=id_, session_id=session_id):
                _require("P-2.12", RESPONSE_ID.fullmatch(id_), f"{id_!r} is no response id.")
                _require("P-2.12", SESSION_ID.fullmatch(session_id), f"{session_id!r} is no session id.")
                _require("P-1.10", id_ == self.response_id, f"X-Response-Id is {self.response_id!r}, the id {id_!r}.")
            case ToolUseStart(id=id_):
                _require("P-2.12", CALL_ID.fullmatch(id_), f"{id_!r} is no id of a call.")
                self._pieces = []
            case ToolUseInputDelta(content=content):
                self._pieces.append(content)
            case ToolUseExecuting(input=whole):
                if self._grammar is not None:
                    _check_input("".join(self._pieces), whole)
            case MessageCompleted() | MessageCancelled():
                check_usage(data["usage"])
            case MessageError(error=error):
                _check_sentence(error)
            case _:
                pass

    def _follow(self, grammar: Grammar, event: Event) -> None:
        try:
            grammar.check(event)
        except LocalProtocolError as exc:
            _fail(_rule_of(event, grammar), f"At the event {self._next}: {exc}.")


def check_head(exchange: Exchange) -> None:
    """The headers of a stream."""
    headers = exchange.headers
    kind = headers.get("content-type", "")
    if not re.fullmatch(r"text/event-stream(; ?charset=utf-8)?", kind, re.IGNORECASE):
        _fail("P-1.10", f"The Content-Type is {kind!r}.")
    if headers.get("cache-control", "").replace(" ", "") != "no-cache,no-transform":
        _fail("P-1.10", f"Cache-Control is {headers.get('cache-control')!r}.")
    if headers.get("x-accel-buffering") != "no":
        _fail("P-1.10", f"X-Accel-Buffering is {headers.get('x-accel-buffering')!r}.")
    if "x-response-id" not in headers:
        _fail("P-1.10", "The stream has no X-Response-Id.")
    if not RESPONSE_ID.fullmatch(headers["x-response-id"]):
        _fail("P-2.12", f"X-Response-Id is {headers['x-response-id']!r}.")


def check_usage(usage: object) -> None:
    """`usage`, wherever it stands."""
    names = {field.encode_name for field in msgspec.structs.fields(Usage)}
    found = cast("dict[str, Any]", usage) if isinstance(usage, dict) else {}
    if set(found) != names:
        _fail("P-2.17", f"The usage has the keys {sorted(found)}.")
    for name, value in found.items():
        if type(value) is not int or value < 0:
            _fail("P-2.17", f"The {name} of the usage are {value!r}.")


def _check_keys(cls: type[Event], data: dict[str, Any]) -> None:
    fields = {field.encode_name: field.required for field in msgspec.structs.fields(cls)}
    optional = {name for name, required in fields.items() if not required} if _may_lack(cls) else set[str]()
    missing = sorted(fields.keys() - data.keys() - optional)
    added = sorted(data.keys() - fields.keys())
    if missing or added:
        what = [f"lacks {', '.join(missing)}"] if missing else []
        what += [f"has {', '.join(added)}, which is not of it"] if added else []
        _fail("P-1.6", f"The data of {cls.type} {' and '.join(what)}.")


def _may_lack(cls: type[Event]) -> bool:
    return cls.__struct_config__.omit_defaults


def _object(raw: bytes) -> dict[str, Any]:
    """A data line's JSON: an object in compact UTF-8, with nothing raw that tears a line."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        _fail("P-1.2", f"A data line is not UTF-8: {raw[:80]!r}.")
    try:
        data: object = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except ValueError as exc:
        _fail("P-1.3", f"A data line is no JSON ({exc}): {text[:80]!r}.")
    if not isinstance(data, dict):
        _fail("P-1.3", f"A data line holds no object: {text[:80]!r}.")
    for character, name in _RAW.items():
        if character in text:
            _fail("P-1.4", f"A data line holds {name} as it is, not escaped.")
    if re.search(r"\s", _STRING.sub("", text)):
        _fail("P-1.3", f"The JSON of a data line is not compact: {text[:80]!r}.")
    return cast("dict[str, Any]", data)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _check_input(joined: str, whole: dict[str, Any]) -> None:
    try:
        same = json.loads(joined or "{}") == whole
    except ValueError:
        same = False
    _require("P-2.5", same, f"The input deltas make {joined[:120]!r}, but the input is {whole!r}.")


def _check_sentence(error: str) -> None:
    _require("P-2.16", 15 <= len(error) <= 600, f"The error has {len(error)} characters: {error[:80]!r}.")
    _require("P-2.16", error.isprintable(), f"The error is not one line: {error[:80]!r}.")
    _require(
        "P-2.16", not re.search(r"Traceback|\b[A-Z][a-z]+[A-Za-z]*(Error|Exception)\b", error), f"It is {error!r}."
    )


def _rule_of(event: Event, grammar: Grammar) -> str:
    """The rule that an event breaks which can't stand here."""
    match event:
        case MessageCompleted() | MessageError() | MessageCancelled():
            return "P-2.9" if grammar.unanswered else "P-2.2"
        case ToolResult(id=id_):
            return "P-2.6" if id_ in grammar.unanswered else "P-2.9"
        case MessageResumed():
            return "P-2.18"
        case MessageCreated():
            return "P-2.1"
        case _ if isinstance(event, DELTAS) and not event.content:
            return "P-2.3"
        case _:
            return "P-2.2"


def _fail_frame(raw: bytes, numbered: bool) -> NoReturn:
    lines = raw.split(b"\n")
    fields = [line.partition(b":")[0] for line in lines if line]
    shown = f"This is no event: {raw[:160]!r}."
    if raw.startswith(b"\xef\xbb\xbf"):
        _fail("P-1.2", "The stream begins with a byte order mark.")
    if numbered and b"id" not in fields:
        _fail("P-1.7", f"The stream should be numbered, but an event has no id line: {raw[:160]!r}.")
    if not numbered and b"id" in fields:
        _fail("P-1.6", f"The stream should not be numbered, but an event has an id line: {raw[:160]!r}.")
    if fields.count(b"event") == 1 and fields.count(b"data") > 1:
        _fail("P-1.3", f"An event has several data lines: {raw[:160]!r}.")
    _fail("P-1.1", shown)


def _around(body: bytearray, at: int) -> str:
    return repr(bytes(body[max(at - 30, 0) : at + 30]))


def _require(rule: str, holds: object, why: str) -> None:
    if not holds:
        _fail(rule, why)


def _fail(rule: str, why: str) -> NoReturn:
    raise WireError(why, rule)
