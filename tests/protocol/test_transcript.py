"""Events folded: what `GET …/messages` shows of a turn."""

import msgspec
import pytest
from hypothesis import given

from turnwire.protocol.events import (
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
from turnwire.protocol.transcript import TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock, Transcript
from turnwire.testing.strategies import legal_turns

CREATED = MessageCreated("msg_1", "sess_1")


def fold(*events):
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript


def text(*pieces):
    return [TextStart(), *map(TextDelta, pieces), TextStop()]


def thinking(*pieces):
    return [ThinkingStart(), *map(ThinkingDelta, pieces), ThinkingStop()]


def call(id_, *pieces, input=None):
    ran = [] if input is None else [ToolUseExecuting("bash", id_, input)]
    return [ToolUseStart("bash", id_), *map(ToolUseInputDelta, pieces), *ran, ToolUseStop()]


def test_a_turn_becomes_its_blocks_in_order():
    transcript = fold(
        CREATED,
        *thinking("h", "m"),
        *text("he", "llo"),
        *call("call_1", '{"a"', ":1}", input={"a": 1}),
        *call("call_2", input={}),
        ToolResult("call_2", "second", True),
        ToolResult("call_1", "first", False),
        *text(),
        MessageCompleted("msg_1", usage=Usage(1, 2)),
    )

    assert transcript.content == [
        ThinkingBlock("hm"),
        TextBlock("hello"),
        ToolUseBlock("call_1", "bash", {"a": 1}),
        ToolUseBlock("call_2", "bash", {}),
        ToolResultBlock("call_2", "second", True),
        ToolResultBlock("call_1", "first", False),
        TextBlock(""),
    ]
    assert (transcript.status, transcript.usage, transcript.error) == ("completed", Usage(1, 2), None)


def test_blocks_are_written_as_the_contract_has_them():
    blocks = [
        TextBlock("a"),
        ThinkingBlock("b"),
        ToolUseBlock("c", "d", {"e": 1}),
        ToolResultBlock("f", "g", False),
    ]

    assert msgspec.json.encode(blocks) == (
        b'[{"type":"text","text":"a"},{"type":"thinking","text":"b"},'
        b'{"type":"tool_use","id":"c","name":"d","input":{"e":1}},'
        b'{"type":"tool_result","id":"f","content":"g","is_error":false}]'
    )


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        (MessageCompleted("msg_1", usage=Usage(3)), "completed", None),
        (MessageCancelled("msg_1", usage=Usage(3)), "cancelled", None),
        (MessageError("msg_1", "It broke."), "error", "It broke."),
    ],
)
def test_the_ending_gives_the_status(ending, status, error):
    transcript = fold(CREATED, *text("a"))
    assert (transcript.status, transcript.usage, transcript.error) == ("in_progress", Usage(), None)

    transcript.add(ending)

    assert (transcript.status, transcript.error) == (status, error)
    assert transcript.usage == (Usage() if status == "error" else Usage(3))


def test_a_block_shows_while_it_is_open():
    transcript = fold(CREATED, TextStart(), TextDelta("hel"))
    assert transcript.content == [TextBlock("hel")]

    transcript.add(TextDelta("lo"))

    assert transcript.content == [TextBlock("hello")]


@pytest.mark.parametrize(
    ("pieces", "input"),
    [
        (['{"a', '": 1}'], {"a": 1}),
        (['{"a": "\ud800"}'], {"a": "\ud800"}),
        (['{"a": "\\ud800"}'], {"a": "\ud800"}),
        ([], {}),
        (['{"a": 1'], {}),
        (["[1]"], {}),
        (["nonsense"], {}),
        (['{"a": NaN}'], {}),
        (['{"a": 1e999}'], {}),
        (['{"a":' + "[" * 50_000], {}),
    ],
    ids=range(10),
)
def test_the_input_of_a_call_that_never_ran_is_what_came_of_it(pieces, input):
    assert fold(CREATED, *call("call_1", *pieces)).content == [ToolUseBlock("call_1", "bash", input)]


def test_executing_has_the_last_word_on_the_input():
    assert fold(CREATED, *call("call_1", '{"a":1}', input={"a": 2})).content == [
        ToolUseBlock("call_1", "bash", {"a": 2})
    ]


def test_what_is_superseded_is_dropped_and_what_came_before_stays():
    before = [CREATED, *call("call_1", input={}), ToolResult("call_1", "ok", False)]  # 0 to 4
    step = [*text("half"), *call("call_2", input={}), ToolResult("call_2", "interrupted", True)]  # from 5 on
    after = [*text("whole"), MessageCompleted("msg_1", usage=Usage())]

    transcript = fold(*before, *step, MessageResumed("msg_1", "server_restarted", 5), *after)

    assert transcript.content == [
        ToolUseBlock("call_1", "bash", {}),
        ToolResultBlock("call_1", "ok", False),
        TextBlock("whole"),
    ]
    assert transcript.status == "completed"


def test_a_resume_that_supersedes_nothing_drops_nothing():
    events = [CREATED, *text("a")]

    assert fold(*events, MessageResumed("msg_1", "taken_over", len(events)), *text("b")).content == [
        TextBlock("a"),
        TextBlock("b"),
    ]


def test_a_step_may_be_superseded_again_and_again():
    first = [CREATED, *text("one"), MessageResumed("msg_1", "server_restarted", 1)]  # the next event is number 5
    second = [*text("two"), MessageResumed("msg_1", "provider_interrupted", 5)]

    assert fold(*first, *second, *text("three")).content == [TextBlock("three")]


def test_requests_and_answers_make_no_block():
    events = [*call("call_1", input={}), ToolCallRequested("call_1", "bash", {}, "tool", 1.0)]

    assert fold(CREATED, *events, ToolCallAnswered("call_1", "tool")).content == [ToolUseBlock("call_1", "bash", {})]


def surviving(events):
    """The events that no `message.resumed` supersedes, found from the back: the reference."""
    kept, limit = [], None
    for n in range(len(events) - 1, -1, -1):
        if limit is not None and n >= limit:
            continue
        event = events[n]
        kept.append(event)
        if isinstance(event, MessageResumed):
            limit = event.superseded_from if limit is None else min(limit, event.superseded_from)
    return kept[::-1]


@given(legal_turns())
def test_a_turn_folds_to_what_its_surviving_events_say_one_by_one(events):
    """By another way than the folder's: over the whole list, block by block."""
    events_left = surviving(events)
    expected = []
    for n, event in enumerate(events_left):
        pieces = []
        for later in events_left[n + 1 :]:
            if not isinstance(later, TextDelta | ThinkingDelta | ToolUseInputDelta):
                break
            pieces.append(later.content)
        if isinstance(event, TextStart | ThinkingStart):
            expected.append(("text" if isinstance(event, TextStart) else "thinking", "".join(pieces)))
        elif isinstance(event, ToolUseStart):
            expected.append(("tool_use", event.id, event.name))
        elif isinstance(event, ToolResult):
            expected.append(("tool_result", event.id, event.content, event.is_error))
    inputs = {event.id: event.input for event in events_left if isinstance(event, ToolUseExecuting)}

    content = fold(*events).content

    seen = []
    for block in content:
        match block:
            case TextBlock(text=body):
                seen.append(("text", body))
            case ThinkingBlock(text=body):
                seen.append(("thinking", body))
            case ToolUseBlock(id=id_, name=name):
                seen.append(("tool_use", id_, name))
                assert id_ not in inputs or block.input == inputs[id_]
            case ToolResultBlock():
                seen.append(("tool_result", block.id, block.content, block.is_error))
    assert seen == expected


@given(legal_turns())
def test_each_call_of_an_ended_turn_has_one_result_behind_it(events):
    content = fold(*events).content

    for n, block in enumerate(content):
        if isinstance(block, ToolUseBlock):
            assert [b.id for b in content[n:] if isinstance(b, ToolResultBlock)].count(block.id) == 1
    assert len([b for b in content if isinstance(b, ToolUseBlock)]) == len(
        [b for b in content if isinstance(b, ToolResultBlock)]
    )
