"""What was missed of a turn, made from its folded message: where the events themselves can't be read any more."""

from turnwire.client.records import AnyBlock, MessageRecord
from turnwire.protocol.codec import encode_json
from turnwire.protocol.events import (
    Event,
    MessageCancelled,
    MessageCompleted,
    MessageError,
    TextDelta,
    TextStart,
    TextStop,
    ThinkingDelta,
    ThinkingStart,
    ThinkingStop,
    ToolResult,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
    ToolUseStop,
    Usage,
)
from turnwire.protocol.transcript import Block, TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock

INSIDE = (TextStart, TextDelta, ThinkingStart, ThinkingDelta, ToolUseStart, ToolUseInputDelta, ToolUseExecuting)
"""Events after which a block is open."""


def missed_events(seen: list[Block], last: Event | None, message: MessageRecord, error: str) -> list[Event] | None:
    """The events that lead from `seen` to the message, and its ending; None when they don't fit.

    `last`: the last event that was seen, by which it is known whether a block is open. `error`: what to say of a turn
    that failed.
    """
    whole = message.content
    if len(seen) > len(whole):
        return None
    events: list[Event] = []
    for index, block in enumerate(whole):
        if index >= len(seen):
            events += _events_of(block)
        elif index == len(seen) - 1 and isinstance(last, INSIDE):
            rest = _rest(seen[index], last, block)
            if rest is None:
                return None
            events += rest
        elif type(seen[index]) is not type(block):
            return None
    return [*events, _ending(message, error)]


def _events_of(block: AnyBlock) -> list[Event]:
    match block:
        case TextBlock(text):
            return [TextStart(), *([TextDelta(text)] if text else []), TextStop()]
        case ThinkingBlock(text):
            return [ThinkingStart(), *([ThinkingDelta(text)] if text else []), ThinkingStop()]
        case ToolUseBlock(id_, name, input_):
            text = encode_json(input_).decode()
            return [
                ToolUseStart(name, id_),
                ToolUseInputDelta(text),
                ToolUseExecuting(name, id_, input_),
                ToolUseStop(),
            ]
        case ToolResultBlock(id_, content, is_error):
            return [ToolResult(id_, content, is_error)]
        case _:
            return []


def _rest(seen: Block, last: Event, whole: AnyBlock) -> list[Event] | None:
    """What is missing of a block that was open."""
    match seen, whole:
        case TextBlock(part), TextBlock(text) if text.startswith(part):
            return [*([TextDelta(text[len(part) :])] if len(text) > len(part) else []), TextStop()]
        case ThinkingBlock(part), ThinkingBlock(text) if text.startswith(part):
            return [*([ThinkingDelta(text[len(part) :])] if len(text) > len(part) else []), ThinkingStop()]
        case ToolUseBlock(id_), ToolUseBlock(whole_id, name, input_) if id_ == whole_id:
            executing = [] if isinstance(last, ToolUseExecuting) else [ToolUseExecuting(name, id_, input_)]
            return [*executing, ToolUseStop()]
        case _:
            return None


def _ending(message: MessageRecord, error: str) -> Event:
    match message.status:
        case "error":
            return MessageError(message.id, error)
        case "cancelled":
            return MessageCancelled(message.id, usage=message.usage or Usage())
        case _:
            return MessageCompleted(message.id, usage=message.usage or Usage())
