"""What can happen in a turn, for property tests: hypothesis strategies.

Only for those who have hypothesis, which turnwire itself does not ask for: `pip install hypothesis`, then

    @given(legal_turns())
    def test_…(events): …

The text is awkward on purpose: line separators of every kind, NUL, lone surrogates, emoji, empty JSON keys, integers
past 64 bits. What a turn holds never depends on chance outside of hypothesis, so that a failure shrinks and repeats.
"""

import json
from typing import Any, Literal

from hypothesis import strategies as st

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
    Usage,
)

AWKWARD = [
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b\x0c\x1c\x1d\x1e",
    "\ud800",
    "\udfff tail",
    "\x00",
    "\r",
    "\n",
    "\r\n\r\n",
    "\n\ndata: {}\n\n",
    "event: message.completed",
    ": no comment",
    '"\\"\\u2028{}',
    "\ufeff",
    "👩‍👩‍👧 é\u0301 ﷽",
    " ",
]
"""Text at which framing, escaping or line splitting has been seen to break."""


def texts(*, min_size: int = 0, max_size: int = 12) -> st.SearchStrategy[str]:
    """Any text that JSON can carry: lone surrogates too, never an unjoined pair of them (it would come back joined)."""
    free = st.text(st.characters(), min_size=min_size, max_size=max_size)
    return st.one_of(free, st.sampled_from(AWKWARD)).map(_joined)


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def json_values() -> st.SearchStrategy[Any]:
    """Any JSON value, a few levels deep."""
    integers = st.one_of(st.integers(), st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**30, -(10**300)]))
    leaves = st.one_of(
        st.none(), st.booleans(), integers, st.floats(allow_nan=False, allow_infinity=False), texts(max_size=6)
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts(max_size=4), inner, max_size=3)),
        max_leaves=6,
    )


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON object: what a tool is called with."""
    return st.dictionaries(texts(max_size=6), json_values(), max_size=3)


def usages() -> st.SearchStrategy[Usage]:
    count = st.integers(min_value=0, max_value=2**40)
    return st.builds(Usage, count, count, count, count, count, count, count)


def legal_turns() -> st.SearchStrategy[list[Event]]:
    """The events of one whole turn, `message.created` to the ending: any that the grammar lets happen.

    Steps of text, thinking and parallel calls; calls that never ran; calls that the caller is asked for, answered or
    given up; results in any order; breaks in mid-step and between results, superseding the step or nothing; and all
    three endings, of which an error or a cancel may come in the middle of a block.
    """
    return st.composite(_legal_turn)()


def _legal_turn(draw: st.DrawFn) -> list[Event]:
    turn = _Turn(draw)
    for _ in range(draw(st.integers(0, 3))):
        turn.step()
    return turn.end()


class _Turn:
    """A turn while it is drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.id = f"msg_{draw(st.integers(0, 2**96 - 1)):024x}"
        self.events: list[Event] = [MessageCreated(self.id, f"sess_{draw(st.integers(0, 2**48 - 1)):012x}")]
        self.open: dict[str, ToolUseStart | ToolUseExecuting] = {}
        self.calls = 0

    def step(self) -> None:
        """One model request and what comes of it, broken off or not."""
        first = len(self.events)
        self.blocks()
        if self.draw(_rarely):
            self.cut_block()
            self.give_up(list(self.open))
            self.resume(first)
        else:
            self.answer()

    def blocks(self) -> None:
        for kind in self.draw(st.lists(st.sampled_from(["text", "thinking", "call"]), max_size=4)):
            match kind:
                case "text":
                    self.events += [TextStart(), *map(TextDelta, self.draw(_pieces)), TextStop()]
                case "thinking":
                    self.events += [ThinkingStart(), *map(ThinkingDelta, self.draw(_pieces)), ThinkingStop()]
                case _:
                    self.call()

    def call(self) -> None:
        start = self.new_call()
        value = self.draw(json_objects())
        text = _joined(json.dumps(value, ensure_ascii=self.draw(st.booleans())))
        cut = self.draw(st.integers(0, len(text)))
        self.events += [start, *(ToolUseInputDelta(piece) for piece in (text[:cut], text[cut:]) if piece)]
        if not self.draw(_rarely):
            executing = ToolUseExecuting(start.name, start.id, value)
            self.events.append(executing)
            self.open[start.id] = executing
        self.events.append(ToolUseStop())

    def new_call(self) -> ToolUseStart:
        self.calls += 1
        start = ToolUseStart(self.draw(_names), f"call_{self.calls:024x}")
        self.open[start.id] = start
        return start

    def cut_block(self) -> None:
        """A block that a break or a cancel closes before its time."""
        match self.draw(st.sampled_from(["none", "text", "thinking", "call"])):
            case "text":
                self.events += [TextStart(), *map(TextDelta, self.draw(_pieces)), TextStop()]
            case "thinking":
                self.events += [ThinkingStart(), ThinkingStop()]
            case "call":
                self.events += [self.new_call(), ToolUseInputDelta('{"a": "cut o'), ToolUseStop()]
            case _:
                pass

    def answer(self) -> None:
        """Requests in the order of the calls, then answers and results as they come."""
        asked: list[ToolCallRequested] = []
        for call in self.open.values():
            if isinstance(call, ToolUseExecuting) and self.draw(st.booleans()):
                kind: Literal["tool", "approval"] = self.draw(st.sampled_from(["tool", "approval"]))
                asked.append(ToolCallRequested(call.id, call.name, call.input, kind, self.draw(_deadlines)))
        self.events += asked
        requests = {request.id: request for request in asked}
        for id_ in self.draw(st.permutations(list(self.open))):
            if self.draw(_rarely):
                self.resume(len(self.events))
            if id_ in requests and self.draw(st.booleans()):
                self.events.append(self.answered(requests[id_]))
            self.result(id_)

    def answered(self, request: ToolCallRequested) -> ToolCallAnswered:
        if request.kind == "tool":
            return ToolCallAnswered(request.id, "tool")
        return ToolCallAnswered(
            request.id, "approval", self.draw(st.booleans()), self.draw(st.one_of(st.none(), json_objects()))
        )

    def result(self, id_: str, *, error: bool = False) -> None:
        never_ran = isinstance(self.open.pop(id_), ToolUseStart)
        self.events.append(ToolResult(id_, self.draw(texts()), error or never_ran or self.draw(st.booleans())))

    def give_up(self, ids: list[str]) -> None:
        for id_ in ids:
            self.result(id_, error=True)

    def resume(self, superseded_from: int) -> None:
        reason: Literal["server_restarted", "taken_over", "provider_interrupted"] = self.draw(
            st.sampled_from(["server_restarted", "taken_over", "provider_interrupted"])
        )
        self.events.append(MessageResumed(self.id, reason, superseded_from))

    def end(self) -> list[Event]:
        kind = self.draw(st.sampled_from(["completed", "error", "cancelled"]))
        if kind == "completed":
            return [*self.events, MessageCompleted(self.id, usage=self.draw(usages()))]
        self.blocks()
        self.cut_block()
        self.give_up(list(self.open))
        if kind == "error":
            return [*self.events, MessageError(self.id, self.draw(texts(min_size=1)))]
        return [*self.events, MessageCancelled(self.id, usage=self.draw(usages()))]


_rarely = st.sampled_from([False, False, True])
_pieces = st.lists(texts(min_size=1), max_size=3)
_names = st.one_of(st.sampled_from(["bash", "read_file"]), texts(min_size=1))
_deadlines = st.floats(min_value=0, max_value=2**40)
