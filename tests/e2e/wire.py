"""What the contract says of a stream, written down a second time, apart from the server's own tables.

`KEYS` are the keys of each event's data, in their order; `check_turn` is the grammar of a whole turn;
`numbered_frames` takes a numbered stream apart, byte for byte, as `clients.strict.frames` does an un-numbered one.
"""

import re
from typing import Any

from clients import strict
from clients.strict import Event

KEYS: dict[str, tuple[str, ...]] = {
    "message.created": ("id", "session_id", "status"),
    "text.start": (),
    "text.delta": ("content",),
    "text.stop": (),
    "thinking.start": (),
    "thinking.delta": ("content",),
    "thinking.stop": (),
    "tool_use.start": ("name", "id"),
    "tool_use.input_delta": ("content",),
    "tool_use.executing": ("name", "id", "input"),
    "tool_use.stop": (),
    "tool_result": ("id", "content", "is_error"),
    "message.resumed": ("id", "reason", "superseded_from"),
    "message.completed": ("id", "status", "usage"),
    "message.error": ("id", "error"),
    "message.cancelled": ("id", "status", "usage"),
}
USAGE_KEYS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "requests",
    "tool_calls",
)
TERMINAL = ("message.completed", "message.error", "message.cancelled")
STATUSES = {"message.created": "in_progress", "message.completed": "completed", "message.cancelled": "cancelled"}

NUMBERED = re.compile(rb"id: (0|[1-9][0-9]*)\n(event: [^\n]*\ndata: [^\n]*\n\n)")


def numbered_frames(content: bytes, first: int = 0, *, heartbeats: bool = False) -> list[Event]:
    """The events of a whole numbered stream that begins with the event `first`; their data without the number."""
    events: list[Event] = []
    at = 0
    while at < len(content):
        if heartbeats and content.startswith(b":\n", at):
            at += 2
            continue
        frame = NUMBERED.match(content, at)
        assert frame, f"no numbered frame at byte {at}: {content[at : at + 120]!r}"
        [(event, data)] = strict.frames(frame[2])
        expected = first + len(events)
        assert int(frame[1]) == expected, f"event {frame[1]!r} where {expected} is expected"
        assert list(data)[-1:] == ["sequence_number"], data
        assert data.pop("sequence_number") == expected
        events.append((event, data))
        at = frame.end()
    return events


def check_turn(events: list[Event], *, whole: bool = True) -> None:
    """Keys, values and grammar of a turn from its first event; `whole`: up to its ending."""
    assert events, "no events"
    assert events[0][0] == "message.created", events[0]
    response_id = events[0][1]["id"]
    assert re.fullmatch("msg_[0-9a-f]{24}", response_id)
    assert re.fullmatch("sess_[0-9a-f]{12}", events[0][1]["session_id"])
    walk = _Walk(response_id)
    for index, (event, data) in enumerate(events):
        assert event in KEYS, f"the unknown event {event}"
        assert tuple(data) == KEYS[event], f"event {index}, {event}: keys {tuple(data)}"
        if event in STATUSES:
            assert data["status"] == STATUSES[event]
        if event.startswith("message."):
            assert data["id"] == response_id
        if "usage" in data:
            check_usage(data["usage"])
        walk.take(index, event, data)
    if whole:
        assert walk.ended, f"no ending: {events[-3:]}"


def check_usage(usage: dict[str, Any]) -> None:
    assert tuple(usage) == USAGE_KEYS
    assert all(type(value) is int and value >= 0 for value in usage.values()), usage
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


class _Walk:
    """The grammar's state."""

    def __init__(self, response_id: str) -> None:
        self.response_id = response_id
        self.open: str | None = None
        self.calls: dict[str, bool] = {}
        self.call = ""
        self.input = ""
        self.ended = False

    def take(self, index: int, event: str, data: dict[str, Any]) -> None:
        assert not self.ended, f"{event} after the ending"
        kind, _, what = event.partition(".")
        if kind in ("text", "thinking", "tool_use"):
            self.block(kind, what, data)
        elif event == "message.created":
            assert index == 0, "message.created in the middle"
        else:
            assert self.open is None, f"{event} within a {self.open} block"
            if event == "tool_result":
                self.result(data)
            elif event == "message.resumed":
                assert 0 < data["superseded_from"] <= index
                assert data["reason"] in ("server_restarted", "taken_over", "provider_interrupted")
            else:
                self.end(event, data)

    def block(self, kind: str, what: str, data: dict[str, Any]) -> None:
        if what == "start":
            assert self.open is None, f"{kind}.start within a {self.open} block"
            self.open, self.input = kind, ""
            if kind == "tool_use":
                assert re.fullmatch("call_[0-9a-f]{24}", data["id"])
                assert data["id"] not in self.calls
                self.call = data["id"]
                self.calls[self.call] = False
            return
        assert self.open == kind, f"{kind}.{what} while {self.open} is open"
        if what in ("delta", "input_delta"):
            assert isinstance(data["content"], str)
            assert data["content"], f"an empty {kind}.{what}"
        elif what == "executing":
            assert data["id"] == self.call
            assert isinstance(data["input"], dict)
        elif what == "stop":
            self.open = None

    def result(self, data: dict[str, Any]) -> None:
        assert self.calls.get(data["id"]) is False, f"a result of no open call: {data}"
        assert isinstance(data["content"], str)
        assert isinstance(data["is_error"], bool)
        self.calls[data["id"]] = True

    def end(self, event: str, data: dict[str, Any]) -> None:
        assert event in TERMINAL
        assert all(self.calls.values()), f"{event} with calls that have no result"
        if event == "message.error":
            check_sentence(data["error"])
        self.ended = True


CLASS_NAME = re.compile(
    r"\b[A-Z][a-z]+(?:[A-Z][a-z]*)*(?:Error|Exception|Timeout|Retry)\b|Traceback|\b[a-z_]+\.[a-z_]+\("
)


def check_sentence(text: str) -> None:
    """An error for people: one line of 15–600 characters, without class names."""
    assert 15 <= len(text) <= 600, f"{len(text)} characters: {text}"
    assert text.isprintable(), repr(text)
    assert text == text.strip()
    assert text.endswith("."), text
    assert not CLASS_NAME.search(text), text


def text_of(events: list[Event]) -> str:
    """The text of a turn, joined, superseded events left out."""
    kept = [True] * len(events)
    for index, (event, data) in enumerate(events):
        if event == "message.resumed":
            since = data["superseded_from"]
            kept[since:index] = [False] * (index - since)
    return "".join(
        data["content"] for keep, (event, data) in zip(kept, events, strict=True) if keep and event == "text.delta"
    )


def kinds(events: list[Event]) -> list[str]:
    """The events' types, runs of one delta as one."""
    names: list[str] = []
    for event, _ in events:
        if not (event.endswith("delta") and names and names[-1] == event):
            names.append(event)
    return names
