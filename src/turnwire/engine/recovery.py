"""Going on with a turn whose server died: what its log and its history say is all there is to know.

Died while a model request was under way: what it had shown is superseded, and it is made again. Died behind a whole
response: nothing is superseded, results that are there are kept, calls that are safe to repeat run again, and the
others are answered as interrupted before the agent library sees the history.
"""

from typing import Literal

from turnwire.engine.calls import INTERRUPTED, SUPERSEDED, Tools, is_repeatable
from turnwire.engine.context import return_entry
from turnwire.engine.limits import PAGE_BYTES_MAX
from turnwire.engine.supervisor import Running
from turnwire.protocol.codec import decode_frames
from turnwire.protocol.events import Event, MessageCreated, MessageResumed, ToolResult
from turnwire.protocol.grammar import Grammar
from turnwire.protocol.transcript import Transcript
from turnwire.seams.store import HistoryEntry, Store, Turn

Reason = Literal["server_restarted", "taken_over"]


async def rebuild(store: Store, turn: Turn) -> Running:
    """The turn as its log tells it."""
    grammar, transcript, step_seq = Grammar(), Transcript(), 1
    while grammar.next_seq <= turn.last_seq:
        page = await store.read_events(turn.id, grammar.next_seq, bytes_max=PAGE_BYTES_MAX)
        for segment in page.segments:
            for event in decode_frames(segment.frames):
                grammar.check(event)
                transcript.add(event)
                if _ends_step(event, grammar):
                    step_seq = grammar.next_seq
    running = Running(store, turn, grammar, transcript)
    running.recorder.step_seq = step_seq
    return running


def _ends_step(event: Event, grammar: Grammar) -> bool:
    match event:
        case MessageCreated() | MessageResumed():
            return True
        case ToolResult():
            return not grammar.unanswered
        case _:
            return False


def take_up(running: Running, tools: Tools, reason: Reason) -> None:
    """Close what the death left open, and say from where on the turn is made again."""
    recorder, history = running.recorder, running.history
    grammar = recorder.grammar
    events = grammar.closing()
    entries: list[HistoryEntry] = []
    superseded_from: int | None = None
    if history.awaits_model:
        if recorder.next_seq > recorder.step_seq:
            superseded_from = recorder.step_seq
        events += [ToolResult(id_, SUPERSEDED, is_error=True) for id_ in grammar.unanswered]
    else:
        for call in list(history.open_calls.values()):
            if not is_repeatable(call.part.tool_name, tools):
                events.append(ToolResult(call.id, INTERRUPTED, is_error=True))
                entry = return_entry(call, INTERRUPTED, is_error=True)
                history.add(entry)
                entries.append(entry)
    own_seq = recorder.next_seq + len(events)
    events.append(MessageResumed(running.turn.id, reason, own_seq if superseded_from is None else superseded_from))
    recorder.record(events, history=entries)
    recorder.step_seq = recorder.next_seq
