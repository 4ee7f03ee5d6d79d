"""The grammar of a turn: the table, the rules about ids, and every turn with a fault in it."""

import copy
import re
from collections import defaultdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwire.protocol.errors import LocalProtocolError
from turnwire.protocol.events import (
    EVENTS,
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
from turnwire.protocol.grammar import DELTAS, STOPS, TABLE, Grammar, State
from turnwire.testing.strategies import legal_turns

CREATED = MessageCreated("m", "s")
COMPLETED = MessageCompleted("m", usage=Usage())


def call(id, *, ran=True):
    return [ToolUseStart("t", id), *([ToolUseExecuting("t", id, {})] if ran else []), ToolUseStop()]


def requested(id, name="t"):
    return ToolCallRequested(id, name, {}, "tool", 1.0)


def after(*events):
    grammar = Grammar()
    grammar.check_all(events)
    return grammar


def everything(grammar):
    return copy.deepcopy(vars(grammar))


def refuse(grammar, event, why="."):
    before = everything(grammar)
    with pytest.raises(LocalProtocolError, match=why):
        grammar.check(event)
    assert everything(grammar) == before


# ── The table ────────────────────────────────────────────────────────────────────────────────────────────────────────

BETWEEN = "text.start thinking.start tool_use.start message.resumed message.error message.cancelled message.completed"
PLACES = {
    "new": (State.NEW, [], "message.created"),
    "between": (State.BETWEEN, [CREATED], BETWEEN),
    "between, after an answered call": (State.BETWEEN, [CREATED, *call("old"), ToolResult("old", "", False)], BETWEEN),
    "between, with a call that waits": (
        State.BETWEEN,
        [CREATED, *call("call")],
        "text.start thinking.start tool_use.start message.resumed tool_result tool_call.requested",
    ),
    "between, with a call that was requested": (
        State.BETWEEN,
        [CREATED, *call("call"), requested("call")],
        "text.start thinking.start tool_use.start message.resumed tool_result tool_call.answered",
    ),
    "text": (State.TEXT, [CREATED, TextStart()], "text.delta text.stop"),
    "text, begun": (State.TEXT, [CREATED, TextStart(), TextDelta("a")], "text.delta text.stop"),
    "thinking": (State.THINKING, [CREATED, ThinkingStart()], "thinking.delta thinking.stop"),
    "input": (
        State.INPUT,
        [CREATED, ToolUseStart("t", "call")],
        "tool_use.input_delta tool_use.executing tool_use.stop",
    ),
    "called": (
        State.CALLED,
        [CREATED, ToolUseStart("t", "call"), ToolUseExecuting("t", "call", {})],
        "tool_use.stop",
    ),
    "ended": (State.ENDED, [CREATED, COMPLETED], ""),
}
"""A place, how a turn comes there, and what may follow: written by hand from the contract."""


def any_of(type_, seq):
    """An event of this type that obeys every rule about ids that its place allows it to obey."""
    return {
        "message.created": CREATED,
        "text.start": TextStart(),
        "text.delta": TextDelta("a"),
        "text.stop": TextStop(),
        "thinking.start": ThinkingStart(),
        "thinking.delta": ThinkingDelta("a"),
        "thinking.stop": ThinkingStop(),
        "tool_use.start": ToolUseStart("t", "another"),
        "tool_use.input_delta": ToolUseInputDelta("{"),
        "tool_use.executing": ToolUseExecuting("t", "call", {}),
        "tool_use.stop": ToolUseStop(),
        "tool_result": ToolResult("call", "", False),
        "tool_call.requested": requested("call"),
        "tool_call.answered": ToolCallAnswered("call", "tool"),
        "message.resumed": MessageResumed("m", "taken_over", seq),
        "message.completed": COMPLETED,
        "message.error": MessageError("m", "It broke."),
        "message.cancelled": MessageCancelled("m", usage=Usage()),
    }[type_]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("type_", EVENTS)
def test_what_may_follow_where(place, type_):
    state, events, allowed = PLACES[place]
    grammar = after(*events)
    event = any_of(type_, len(events))

    assert (grammar.state, grammar.next_seq) == (state, len(events))
    if type_ in allowed.split():
        grammar.check(event)
        assert grammar.next_seq == len(events) + 1
        assert grammar.state is TABLE[state][type(event)]
        assert grammar.ended == (type_ in {"message.completed", "message.error", "message.cancelled"})
    else:
        refuse(grammar, event)
        assert grammar.ended == (place == "ended")


def test_every_state_has_its_place_here_and_every_event_its_place_in_the_table():
    assert {state for state, _, _ in PLACES.values()} == set(State) == set(TABLE)
    assert {cls for row in TABLE.values() for cls in row} == set(EVENTS.values())


def test_deltas_leave_the_state_as_it_is():
    assert {
        cls for state, row in TABLE.items() for cls, to in row.items() if to is state and state is not State.BETWEEN
    } == set(DELTAS)


@pytest.mark.parametrize("place", PLACES)
def test_what_closes_a_block_can_stand_there_and_leaves_none_open(place):
    state, events, _ = PLACES[place]
    grammar = after(*events)

    closing = grammar.closing()
    grammar.check_all(closing)

    assert len(closing) == (state in STOPS)
    assert grammar.state in {State.NEW, State.BETWEEN, State.ENDED}
    assert grammar.closing() == []


def test_the_state_names_itself_in_the_error():
    refuse(after(CREATED), TextDelta("a"), r"^text\.delta can't follow in the state between$")


# ── The rules about ids and contents ─────────────────────────────────────────────────────────────────────────────────

RULES = {
    "an empty text delta": ([CREATED, TextStart()], TextDelta(""), "never empty"),
    "an empty thinking delta": ([CREATED, ThinkingStart()], ThinkingDelta(""), "never empty"),
    "an empty input delta": ([CREATED, ToolUseStart("t", "a")], ToolUseInputDelta(""), "never empty"),
    "a call's id twice": ([CREATED, *call("a")], ToolUseStart("t", "a"), "a was started before"),
    "a call's id twice, answered": (
        [CREATED, *call("a"), ToolResult("a", "", True)],
        ToolUseStart("u", "a"),
        "a was started before",
    ),
    "executing another call": (
        [CREATED, *call("a"), ToolUseStart("t", "b")],
        ToolUseExecuting("t", "a", {}),
        "open call",
    ),
    "executing another tool": ([CREATED, ToolUseStart("t", "b")], ToolUseExecuting("u", "b", {}), "open call"),
    "a result for nobody": ([CREATED], ToolResult("a", "", True), "a is unknown"),
    "a second result": (
        [CREATED, *call("a"), ToolResult("a", "", False)],
        ToolResult("a", "", False),
        "answered before",
    ),
    "success of a call that never ran": ([CREATED, *call("a", ran=False)], ToolResult("a", "", False), "never ran"),
    "a request for nobody": ([CREATED], requested("a"), "no call a of t"),
    "a request of a call that can't run": ([CREATED, *call("a", ran=False)], requested("a"), "no call a of t"),
    "a request of an answered call": (
        [CREATED, *call("a"), ToolResult("a", "", True)],
        requested("a"),
        "no call a of t",
    ),
    "a request of another tool": ([CREATED, *call("a")], requested("a", "u"), "no call a of u"),
    "a second request": ([CREATED, *call("a"), requested("a")], requested("a"), "requested before"),
    "an answer without request": ([CREATED, *call("a")], ToolCallAnswered("a", "tool"), "not requested"),
    "an answer of another kind": (
        [CREATED, *call("a"), requested("a")],
        ToolCallAnswered("a", "approval"),
        "no request of the kind",
    ),
    "a second answer": (
        [CREATED, *call("a"), requested("a"), ToolCallAnswered("a", "tool")],
        ToolCallAnswered("a", "tool"),
        "not requested",
    ),
    "an answer after the result": (
        [CREATED, *call("a"), requested("a"), ToolResult("a", "", True)],
        ToolCallAnswered("a", "tool"),
        "not requested",
    ),
    "another turn resumed": ([CREATED], MessageResumed("x", "taken_over", 1), "x is another turn"),
    "another turn completed": ([CREATED], MessageCompleted("x", usage=Usage()), "x is another turn"),
    "another turn failed": ([CREATED], MessageError("x", "It broke."), "x is another turn"),
    "another turn cancelled": ([CREATED], MessageCancelled("x", usage=Usage()), "x is another turn"),
    "completed with an open call": ([CREATED, *call("a"), *call("b")], COMPLETED, "calls a, b have no result"),
    "failed with an open call": ([CREATED, *call("a")], MessageError("m", "It broke."), "calls a have no result"),
    "cancelled with an open call": (
        [CREATED, *call("a")],
        MessageCancelled("m", usage=Usage()),
        "calls a have no result",
    ),
    "superseded: the beginning": ([CREATED], MessageResumed("m", "taken_over", 0), "no step began at the event 0"),
    "superseded: less than nothing": ([CREATED], MessageResumed("m", "taken_over", -1), "no step began"),
    "superseded: the future": ([CREATED], MessageResumed("m", "taken_over", 2), "no step began"),
    "superseded: half a block": (
        [CREATED, TextStart(), TextDelta("a"), TextStop()],
        MessageResumed("m", "taken_over", 2),
        "no step began",
    ),
    "superseded: a result without its call": (
        [CREATED, *call("a"), ToolResult("a", "", True)],
        MessageResumed("m", "taken_over", 4),
        "no step began",
    ),
    "superseded: between calls": (
        [CREATED, *call("a"), *call("b"), ToolResult("a", "", True), ToolResult("b", "", True)],
        MessageResumed("m", "taken_over", 4),
        "no step began",
    ),
    "superseded: an unanswered call": ([CREATED, *call("a")], MessageResumed("m", "taken_over", 1), "a are superseded"),
}


@pytest.mark.parametrize(("events", "event", "why"), RULES.values(), ids=RULES)
def test_a_rule_is_kept_and_nothing_is_changed(events, event, why):
    refuse(after(*events), event, why)


def test_results_come_in_any_order_and_calls_wait_over_a_resume():
    grammar = after(CREATED, *call("a"), *call("b"), *call("c", ran=False), requested("a"), requested("b"))
    assert (list(grammar.unanswered), list(grammar.requested)) == (["a", "b", "c"], ["a", "b"])

    grammar.check_all([ToolResult("c", "", True), ToolCallAnswered("b", "tool")])
    grammar.check(MessageResumed("m", "server_restarted", grammar.next_seq))
    assert (list(grammar.unanswered), list(grammar.requested)) == (["a", "b"], ["a"])

    grammar.check_all([ToolResult("b", "", False), ToolResult("a", "", True), COMPLETED])
    assert (grammar.ended, grammar.unanswered, grammar.requested) == (True, {}, {})


def test_a_call_is_known_as_started_and_then_as_executing():
    start, executing = ToolUseStart("t", "a"), ToolUseExecuting("t", "a", {"x": 1})
    grammar = after(CREATED, start)
    assert grammar.unanswered == {"a": start}

    grammar.check(executing)

    assert grammar.unanswered == {"a": executing}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_any_step_may_be_the_one_that_is_made_again(steps):
    events = [CREATED]
    begun = []
    for n in range(steps):
        begun.append(len(events))
        events += [TextStart(), TextStop(), *call(f"call {n}"), ToolResult(f"call {n}", "", False)]

    for first in begun:
        assert after(*events, MessageResumed("m", "taken_over", first), COMPLETED).ended


# ── Whole turns ──────────────────────────────────────────────────────────────────────────────────────────────────────

LETTERS = dict(zip(EVENTS, "C<t>[k]{i!}rqaRE" + "EE", strict=True))
TURN = re.compile(r"C(<t*>|\[k*\]|\{i*!?\}|[rqaR])*E")
CALL = re.compile(r"\{(r|![qa]*r)")
ASKED = re.compile(r"(qa)*q?")


def legal(events):
    """Whether events are a whole turn, by looking at the list as a whole and from the rules' text alone."""
    if not TURN.fullmatch("".join(LETTERS[event.type] for event in events)):
        return False
    calls, names, tools = defaultdict(str), defaultdict(set), {}
    waiting = []  # how many calls are unanswered before each event
    count = 0
    for n, event in enumerate(events):
        waiting.append(count)
        count += isinstance(event, ToolUseStart) - isinstance(event, ToolResult)
        if isinstance(event, DELTAS) and not event.content:
            return False
        if isinstance(event, ToolUseExecuting):
            opened = next(e for e in reversed(events[:n]) if isinstance(e, ToolUseStart))
            if (opened.id, opened.name) != (event.id, event.name):
                return False
        if isinstance(event, ToolUseStart | ToolUseExecuting | ToolResult | ToolCallRequested | ToolCallAnswered):
            calls[event.id] += LETTERS[event.type]
        if isinstance(event, ToolUseStart | ToolCallRequested):
            names[event.id].add(event.name)
        if isinstance(event, ToolResult):
            tools[event.id] = event.is_error
    for id_, letters in calls.items():
        asked = "".join(letter for letter in letters if letter in "qa")
        if not CALL.fullmatch(letters) or not ASKED.fullmatch(asked) or len(names[id_]) != 1:
            return False
        if "!" not in letters and not tools[id_]:
            return False
    if {event.id for event in events if LETTERS[event.type] in "CRE"} != {events[0].id}:
        return False
    return all(
        event.superseded_from == n
        or (
            0 < event.superseded_from < n
            and LETTERS[events[event.superseded_from].type] in "<[{"
            and waiting[event.superseded_from] == waiting[n] == 0
        )
        for n, event in enumerate(events)
        if isinstance(event, MessageResumed)
    )


def accepted(events):
    grammar = Grammar()
    try:
        grammar.check_all(events)
    except LocalProtocolError:
        return False
    return grammar.ended


@given(legal_turns())
def test_every_legal_turn_is_taken_event_by_event(events):
    grammar = Grammar()

    for n, event in enumerate(events):
        assert (grammar.next_seq, grammar.ended) == (n, False)
        grammar.check(event)

    assert grammar.ended
    assert legal(events)


@st.composite
def faulty_turns(draw):
    """A legal turn with one fault, or two: an event deleted, doubled, moved, or changed in one field."""
    events = draw(legal_turns())
    for _ in range(draw(st.integers(1, 2))):
        at = st.integers(0, len(events) - 1)
        n = draw(at)
        match draw(st.sampled_from(["delete", "double", "swap", "move", "cut", "field", "insert"])):
            case "delete":
                del events[n]
            case "double":
                events.insert(n, events[n])
            case "swap":
                m = draw(at)
                events[n], events[m] = events[m], events[n]
            case "move":
                events.insert(draw(at), events.pop(n))
            case "cut":
                events = events[: n + 1]
            case "insert":
                events.insert(n, any_of(draw(st.sampled_from(list(EVENTS))), n))
            case "field":
                events[n] = draw(changed(events[n], events))
        if not events:
            break
    return events


@st.composite
def changed(draw, event: Event, events):
    """The event with another value in one of the fields that rules speak of; as it is when it has none."""
    others = {
        "id": [e.id for e in events if hasattr(e, "id")],
        "name": ["bash", "other"],
        "content": [""],
        "is_error": [True, False],
        "superseded_from": list(range(-1, len(events) + 2)),
    }
    fields = [field for field in others if field in event.__struct_fields__]
    if not fields:
        return event
    field = draw(st.sampled_from(fields))
    return msgspec.structs.replace(event, **{field: draw(st.sampled_from(others[field]))})


@pytest.mark.slow
@settings(max_examples=300)
@given(faulty_turns())
def test_a_turn_with_a_fault_in_it_is_refused_unless_it_is_still_legal(events):
    assert accepted(events) == (bool(events) and legal(events))


@given(legal_turns(), st.data())
def test_a_refused_event_changes_nothing_wherever_it_comes(events, data):
    n = data.draw(st.integers(0, len(events)))
    grammar = after(*events[:n])
    before = everything(grammar)
    intruder = any_of(data.draw(st.sampled_from(list(EVENTS))), n)

    try:
        grammar.check(intruder)
    except LocalProtocolError:
        assert everything(grammar) == before
        grammar.check_all(events[n:])
        assert grammar.ended
    else:
        assert grammar.next_seq == n + 1
