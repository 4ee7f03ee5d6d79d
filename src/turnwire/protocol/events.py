"""The events of a turn, as frozen values. Field names and their order are those of the wire (PROTOCOL.md).

An event's place in its turn, the sequence number, is not part of the event: event n of a turn has the number n.
"""

from typing import Any, ClassVar, Literal

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens and counts of a turn: the sum over its model requests; 0 where a provider doesn't say."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    requests: int = 0
    tool_calls: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            *(a + b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )


class Event(msgspec.Struct, frozen=True):
    """Any event. `type` is its name on the wire."""

    type: ClassVar[str]


class MessageCreated(Event, frozen=True):
    """The first event, always. `id` is the response id."""

    type: ClassVar[str] = "message.created"
    id: str
    session_id: str
    status: Literal["in_progress"] = "in_progress"


class TextStart(Event, frozen=True):
    type: ClassVar[str] = "text.start"


class TextDelta(Event, frozen=True, gc=False):
    type: ClassVar[str] = "text.delta"
    content: str


class TextStop(Event, frozen=True):
    type: ClassVar[str] = "text.stop"


class ThinkingStart(Event, frozen=True):
    type: ClassVar[str] = "thinking.start"


class ThinkingDelta(Event, frozen=True, gc=False):
    type: ClassVar[str] = "thinking.delta"
    content: str


class ThinkingStop(Event, frozen=True):
    type: ClassVar[str] = "thinking.stop"


class ToolUseStart(Event, frozen=True):
    """The model calls a tool. `id` is the server's own, and new in its turn."""

    type: ClassVar[str] = "tool_use.start"
    name: str
    id: str


class ToolUseInputDelta(Event, frozen=True, gc=False):
    """A piece of the JSON text of the call's input."""

    type: ClassVar[str] = "tool_use.input_delta"
    content: str


class ToolUseExecuting(Event, frozen=True):
    """The input is whole and is a JSON object; durable before the tool starts."""

    type: ClassVar[str] = "tool_use.executing"
    name: str
    id: str
    input: dict[str, Any]


class ToolUseStop(Event, frozen=True):
    type: ClassVar[str] = "tool_use.stop"


class ToolResult(Event, frozen=True):
    """The answer to the call with this id: one for each `tool_use.start`."""

    type: ClassVar[str] = "tool_result"
    id: str
    content: str
    is_error: bool


class ToolCallRequested(Event, frozen=True):
    """The caller is asked: to run its own tool (`tool`), or to allow the server's (`approval`).

    `deadline`: epoch seconds.
    """

    type: ClassVar[str] = "tool_call.requested"
    id: str
    name: str
    input: dict[str, Any]
    kind: Literal["tool", "approval"]
    deadline: float


class ToolCallAnswered(Event, frozen=True, omit_defaults=True):
    """What the caller answered, for the log and for a second reader."""

    type: ClassVar[str] = "tool_call.answered"
    id: str
    kind: Literal["tool", "approval"]
    approved: bool | None = None
    input: dict[str, Any] | None = None


class MessageResumed(Event, frozen=True):
    """The turn goes on after a break: events from `superseded_from` up to this one are superseded."""

    type: ClassVar[str] = "message.resumed"
    id: str
    reason: Literal["server_restarted", "taken_over", "provider_interrupted"]
    superseded_from: int


class _Ending(Event, frozen=True):
    id: str


class MessageCompleted(_Ending, frozen=True, kw_only=True):
    """Terminal: the turn came to its end."""

    type: ClassVar[str] = "message.completed"
    status: Literal["completed"] = "completed"
    usage: Usage


class MessageError(_Ending, frozen=True):
    """Terminal: the turn failed. `error` is one line for people: what was wrong and what to do."""

    type: ClassVar[str] = "message.error"
    error: str


class MessageCancelled(_Ending, frozen=True, kw_only=True):
    """Terminal: the turn was cancelled by its caller."""

    type: ClassVar[str] = "message.cancelled"
    status: Literal["cancelled"] = "cancelled"
    usage: Usage


EVENTS: dict[str, type[Event]] = {
    cls.type: cls
    for cls in (
        MessageCreated,
        TextStart,
        TextDelta,
        TextStop,
        ThinkingStart,
        ThinkingDelta,
        ThinkingStop,
        ToolUseStart,
        ToolUseInputDelta,
        ToolUseExecuting,
        ToolUseStop,
        ToolResult,
        ToolCallRequested,
        ToolCallAnswered,
        MessageResumed,
        MessageCompleted,
        MessageError,
        MessageCancelled,
    )
}
"""Every event by its name on the wire."""

Terminal = MessageCompleted | MessageError | MessageCancelled
TERMINAL = (MessageCompleted, MessageError, MessageCancelled)
