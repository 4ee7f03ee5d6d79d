"""Events folded into the message that they make: what `GET …/messages` shows of a turn."""

from typing import Any, Literal

import msgspec

from turnwire.protocol.codec import decode_json
from turnwire.protocol.events import (
    Event,
    MessageCancelled,
    MessageCompleted,
    MessageError,
    MessageResumed,
    TextDelta,
    TextStart,
    ThinkingDelta,
    ThinkingStart,
    ToolResult,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
    Usage,
)


class TextBlock(msgspec.Struct, frozen=True, tag="text"):
    text: str


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking"):
    text: str


class ToolUseBlock(msgspec.Struct, frozen=True, tag="tool_use"):
    """A call. Where it never ran, `input` is what its pieces make, or {} when that is no JSON object."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(msgspec.Struct, frozen=True, tag="tool_result"):
    id: str
    content: str
    is_error: bool


Block = TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock


class _Draft:
    """A block while its events come: where it began, and its pieces."""

    __slots__ = ("pieces", "seq", "start", "whole")

    def __init__(self, seq: int, start: Event) -> None:
        self.seq = seq
        self.start = start
        self.pieces: list[str] = []
        self.whole: dict[str, Any] | None = None

    def block(self) -> Block:
        match self.start:
            case TextStart():
                return TextBlock("".join(self.pieces))
            case ThinkingStart():
                return ThinkingBlock("".join(self.pieces))
            case ToolUseStart(name=name, id=id_):
                return ToolUseBlock(id_, name, _input_of(self))
            case ToolResult(id=id_, content=content, is_error=is_error):
                return ToolResultBlock(id_, content, is_error)
            case _:
                raise AssertionError(self.start)


def _input_of(draft: _Draft) -> dict[str, Any]:
    if draft.whole is not None:
        return draft.whole
    try:
        value = decode_json("".join(draft.pieces))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


class Transcript:
    """A turn folded event by event; `add()` takes them in order, from number 0 on.

    What a `message.resumed` supersedes is dropped.
    """

    def __init__(self) -> None:
        self.next_seq = 0
        self.status: Literal["in_progress", "completed", "error", "cancelled"] = "in_progress"
        self.usage = Usage()
        self.error: str | None = None
        self._drafts: list[_Draft] = []

    def add(self, event: Event) -> None:
        match event:
            case TextDelta(content=content) | ThinkingDelta(content=content) | ToolUseInputDelta(content=content):
                self._drafts[-1].pieces.append(content)
            case TextStart() | ThinkingStart() | ToolUseStart() | ToolResult():
                self._drafts.append(_Draft(self.next_seq, event))
            case ToolUseExecuting(input=whole):
                self._drafts[-1].whole = whole
            case MessageResumed(superseded_from=superseded_from):
                self._drafts = [draft for draft in self._drafts if draft.seq < superseded_from]
            case MessageCompleted(status=status, usage=usage) | MessageCancelled(status=status, usage=usage):
                self.status, self.usage = status, usage
            case MessageError(error=error):
                self.status, self.error = "error", error
            case _:
                pass
        self.next_seq += 1

    def text_since(self, seq: int) -> str:
        """The text of the blocks that began at `seq` or later."""
        texts = ["".join(d.pieces) for d in self._drafts if d.seq >= seq and isinstance(d.start, TextStart)]
        return "\n\n".join(texts)

    @property
    def content(self) -> list[Block]:
        """The blocks so far, in order."""
        return [draft.block() for draft in self._drafts]
