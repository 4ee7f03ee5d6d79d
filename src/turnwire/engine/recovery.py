"""Going on with a turn whose server died: what its log and its history say is all there is to know.

Died while a model request was under way: what it had shown is superseded, and it is made again. Died behind a whole
response: nothing is superseded, results that are there are kept, calls that are safe to repeat run again, and the
others are answered as interrupted before the agent library sees the history.
"""

import asyncio
from typing import Literal, NamedTuple

import structlog

from turnwire.engine.agent import TurnParts
from turnwire.engine.calls import INTERRUPTED, SUPERSEDED, is_repeatable
from turnwire.engine.context import Call, note_entry, return_entry
from turnwire.engine.limits import PAGE_BYTES_MAX
from turnwire.engine.supervisor import Running
from turnwire.protocol.codec import decode_frames, encode_frame
from turnwire.protocol.errors import ProtocolError
from turnwire.protocol.events import Event, MessageError, MessageResumed, ToolResult, ToolUseStart
from turnwire.protocol.grammar import Grammar
from turnwire.seams.store import Append, Ending, HistoryEntry, Store, StoreDamaged, Turn

log = structlog.get_logger(__name__)

Reason = Literal["server_restarted", "taken_over"]


class TakeOver(NamedTuple):
    """Turns that are taken up together."""

    reason: Reason
    done: asyncio.Event
    """All of them are. Only then are models asked, so that a turn is seen to go on before another's request is made."""


async def rebuild(store: Store, turn: Turn) -> Running:
    """The turn as its log tells it. StoreDamaged when no turn is told there."""
    events: list[Event] = []
    try:
        while len(events) <= turn.last_seq:
            page = await store.read_events(turn.id, len(events), bytes_max=PAGE_BYTES_MAX)
            for segment in page.segments:
                events += decode_frames(segment.frames)
        events = events[: turn.last_seq + 1]
        running = Running(store, turn, events)
    except ProtocolError as exc:
        raise StoreDamaged(f"the events of {turn.id} are no turn: {exc}") from exc
    running.recorder.step_seq = _step_seq(events)
    return running


def _step_seq(events: list[Event]) -> int:
    """The first event of the step that was under way: behind the last one that ends a step."""
    unanswered: set[str] = set()
    step_seq = 1
    for seq, event in enumerate(events):
        match event:
            case ToolUseStart(id=id_):
                unanswered.add(id_)
            case ToolResult(id=id_):
                unanswered.discard(id_)
                if not unanswered:
                    step_seq = seq + 1
            case MessageResumed():
                step_seq = seq + 1
            case _:
                pass
    return step_seq


def take_up(running: Running, parts: TurnParts, reason: Reason) -> None:
    """Close what the death left open, and say from where on the turn is made again; a turn that only waits for its
    caller goes on waiting, and nothing is said."""
    recorder, history = running.recorder, running.history
    grammar = recorder.grammar
    if history.open_calls and all(id_ in grammar.requested for id_ in history.open_calls):
        return
    events = grammar.closing()
    entries: list[HistoryEntry] = []
    superseded_from: int | None = None
    if history.awaits_model:
        if recorder.next_seq > recorder.step_seq:
            superseded_from = recorder.step_seq
        events += [ToolResult(id_, SUPERSEDED, is_error=True) for id_ in grammar.unanswered]
    else:
        for call in list(history.open_calls.values()):
            if _may_have_run(call, grammar, parts):
                events.append(ToolResult(call.id, INTERRUPTED, is_error=True))
                entry = return_entry(call, INTERRUPTED, is_error=True)
                history.add(entry)
                entries.append(entry)
    own_seq = recorder.next_seq + len(events)
    events.append(MessageResumed(running.turn.id, reason, own_seq if superseded_from is None else superseded_from))
    recorder.record(events, history=entries)
    recorder.step_seq = recorder.next_seq


def _may_have_run(call: Call, grammar: Grammar, parts: TurnParts) -> bool:
    """Whether the call may have taken effect, so that it must not be made again."""
    name = call.part.tool_name
    if is_repeatable(name, parts.tools) or call.id in grammar.requested:
        return False
    tool = parts.tools.get(name)
    asks_first = name in parts.approvals or (tool is not None and tool.tool_def.kind == "external")
    return not asks_first or call.id in grammar.answered


def give_up(store: Store, turn: Turn) -> None:
    """End a turn whose log is damaged: nothing can be gone on with, and its session must not stay busy."""
    event = MessageError(turn.id, "What was stored of this turn is damaged, so it can't go on: send the message again.")
    seq = turn.last_seq + 1
    store.append(
        Append(
            session_id=turn.session_id,
            turn_id=turn.id,
            epoch=turn.epoch,
            first_seq=seq,
            last_seq=seq,
            frames=encode_frame(event),
            history=(note_entry(event.error),),
            ending=Ending("error", turn.usage, b"[]", event.error),
        ),
        lambda result: log.info("turn_given_up", response_id=turn.id, result=str(result)),
    )
