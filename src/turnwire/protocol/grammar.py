"""The grammar of a turn, as a table: which event may follow which.

PROTOCOL.md says the same to people; the two change in one commit. The shape is that of h11's `_state.py`: a state,
an event, the next state. What a table of states can't say, the rules about ids, stands in the small functions below.

    message.created, then blocks and tool results, then one terminal event, then nothing
"""

from collections.abc import Iterable
from enum import Enum, auto

from turnwire.protocol.errors import LocalProtocolError
from turnwire.protocol.events import (
    Event,
    MessageCancelled,
    MessageCompleted,
    MessageCreated,
    MessageError,
    MessageResumed,
    TextDelta,
    TextStart,
    TextStop,
    ThinkingDelta,
    ThinkingStart,
    ThinkingStop,
    ToolCallAnswered,
    ToolCallRequested,
    ToolResult,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
    ToolUseStop,
)


class State(Enum):
    """Where a turn stands between two events."""

    NEW = auto()
    """Nothing has been recorded."""
    BETWEEN = auto()
    """No block is open."""
    TEXT = auto()
    THINKING = auto()
    INPUT = auto()
    """A tool block is open, and its input still comes."""
    CALLED = auto()
    """A tool block is open, and its input is whole."""
    ENDED = auto()


TABLE: dict[State, dict[type[Event], State]] = {
    State.NEW: {MessageCreated: State.BETWEEN},
    State.BETWEEN: {
        TextStart: State.TEXT,
        ThinkingStart: State.THINKING,
        ToolUseStart: State.INPUT,
        ToolResult: State.BETWEEN,
        ToolCallRequested: State.BETWEEN,
        ToolCallAnswered: State.BETWEEN,
        MessageResumed: State.BETWEEN,
        MessageCompleted: State.ENDED,
        MessageError: State.ENDED,
        MessageCancelled: State.ENDED,
    },
    State.TEXT: {TextDelta: State.TEXT, TextStop: State.BETWEEN},
    State.THINKING: {ThinkingDelta: State.THINKING, ThinkingStop: State.BETWEEN},
    State.INPUT: {
        ToolUseInputDelta: State.INPUT,
        ToolUseExecuting: State.CALLED,
        ToolUseStop: State.BETWEEN,
    },
    State.CALLED: {ToolUseStop: State.BETWEEN},
    State.ENDED: {},
}

DELTAS = (TextDelta, ThinkingDelta, ToolUseInputDelta)
"""These leave the state as it is."""

STOPS: dict[State, Event] = {
    State.TEXT: TextStop(),
    State.THINKING: ThinkingStop(),
    State.INPUT: ToolUseStop(),
    State.CALLED: ToolUseStop(),
}
"""What closes the block that is open in a state."""


class Grammar:
    """The state of one turn: `check()` takes its events in order."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.next_seq = 0
        self._next = TABLE[State.NEW]
        self.response_id = ""
        self.unanswered: dict[str, ToolUseStart | ToolUseExecuting] = {}
        """Calls without a result, by id, in the order of their blocks: as started, or as executing."""
        self.requested: dict[str, ToolCallRequested] = {}
        """Calls that wait for the caller's answer, by id."""
        self.answered: set[str] = set()
        """Ids of calls that the caller answered."""
        self._open_call: ToolUseStart | None = None
        self._seen: set[str] = set()
        self._fresh: set[int] = set()
        """Where a step can have begun: the numbers of blocks' starts when no call was unanswered."""

    def check(self, event: Event) -> None:
        """Take the next event. LocalProtocolError, and nothing changed, when it can't stand here."""
        cls = type(event)
        state = self._next.get(cls)
        if state is None:
            raise LocalProtocolError(f"{cls.type} can't follow in the state {self.state.name.lower()}")
        if isinstance(event, DELTAS):  # nearly all events: neither the state nor an id changes
            if not event.content:
                raise LocalProtocolError("a delta is never empty")
        else:
            self._obey(event)
            self.state, self._next = state, TABLE[state]
        self.next_seq += 1

    def check_all(self, events: Iterable[Event]) -> None:
        """Take several events in order."""
        for event in events:
            self.check(event)

    @property
    def ended(self) -> bool:
        return self.state is State.ENDED

    def closing(self) -> list[Event]:
        """What closes the open block, if one is open."""
        stop = STOPS.get(self.state)
        return [] if stop is None else [stop]

    def _obey(self, event: Event) -> None:
        """The rules about ids and contents: what an event asks for beside its place."""
        match event:
            case TextStart() | ThinkingStart():
                self._note_fresh()
            case ToolUseStart(id=id_):
                _require(id_ not in self._seen, f"the call {id_} was started before")
                self._note_fresh()
                self._seen.add(id_)
                self.unanswered[id_] = event
                self._open_call = event
            case ToolUseExecuting(name, id_):
                start = self._open_call
                _require(
                    start == ToolUseStart(name, id_), f"tool_use.executing names {id_}, which is not the open call"
                )
                self.unanswered[id_] = event
            case ToolResult(id_, is_error=is_error):
                call = self.unanswered.get(id_)
                _require(call is not None, f"the call {id_} is unknown, or was answered before")
                _require(
                    is_error or isinstance(call, ToolUseExecuting), f"the call {id_} never ran: an error answers it"
                )
                del self.unanswered[id_]
                self.requested.pop(id_, None)
            case ToolCallRequested(id_, name):
                call = self.unanswered.get(id_)
                _require(
                    isinstance(call, ToolUseExecuting) and call.name == name, f"no call {id_} of {name} waits to be run"
                )
                _require(id_ not in self.requested, f"the call {id_} was requested before")
                self.requested[id_] = event
            case ToolCallAnswered(id_, kind):
                request = self.requested.get(id_)
                _require(request is not None, f"the call {id_} was not requested")
                _require(request is None or request.kind == kind, f"the call {id_} was no request of the kind {kind}")
                del self.requested[id_]
                self.answered.add(id_)
            case MessageCreated(id_):
                self.response_id = id_
            case MessageResumed(id_, superseded_from=start_seq):
                _require(id_ == self.response_id, f"{id_} is another turn")
                if start_seq != self.next_seq:
                    # Else the fold would keep half a block, or a call whose result it drops.
                    _require(start_seq in self._fresh, f"no step began at the event {start_seq}")
                    _require(not self.unanswered, f"the calls {', '.join(self.unanswered)} are superseded unanswered")
            case MessageCompleted(id_) | MessageError(id_) | MessageCancelled(id_):
                _require(id_ == self.response_id, f"{id_} is another turn")
                _require(not self.unanswered, f"the calls {', '.join(self.unanswered)} have no result")
            case _:
                pass

    def _note_fresh(self) -> None:
        if not self.unanswered:
            self._fresh.add(self.next_seq)


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise LocalProtocolError(why)
