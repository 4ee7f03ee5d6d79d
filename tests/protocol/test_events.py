"""Every event's exact bytes, written by hand from the contract's sections 1, 2 and 6."""

import msgspec
import pytest

from turnwire.protocol.codec import decode_event, decode_frames, encode_frame, encode_frames, number
from turnwire.protocol.events import (
    EVENTS,
    TERMINAL,
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

USAGE = Usage(1, 2, 3, 4, 5, 6, 7)
USAGE_JSON = (
    '{"input_tokens":1,"output_tokens":2,"total_tokens":3,"cache_read_tokens":4,"cache_write_tokens":5,'
    '"requests":6,"tool_calls":7}'
)
NO_USAGE_JSON = (
    '{"input_tokens":0,"output_tokens":0,"total_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0,'
    '"requests":0,"tool_calls":0}'
)

WIRE = [
    (
        MessageCreated("msg_1", "sess_1"),
        "message.created",
        '{"id":"msg_1","session_id":"sess_1","status":"in_progress"}',
    ),
    (TextStart(), "text.start", "{}"),
    (TextDelta('a\n\r\t\0"\\é'), "text.delta", r'{"content":"a\n\r\t\u0000\"\\é"}'),
    (TextDelta("\u2028\u2029\x85"), "text.delta", r'{"content":"\u2028\u2029\u0085"}'),
    (TextDelta("a\ud800b\udfff\u2028"), "text.delta", r'{"content":"a\ud800b\udfff\u2028"}'),
    (TextDelta("\x80\x84\x86\u2027\u202a😀"), "text.delta", '{"content":"\x80\x84\x86\u2027\u202a😀"}'),
    (TextStop(), "text.stop", "{}"),
    (ThinkingStart(), "thinking.start", "{}"),
    (ThinkingDelta("hm"), "thinking.delta", '{"content":"hm"}'),
    (ThinkingStop(), "thinking.stop", "{}"),
    (ToolUseStart("bash", "call_1"), "tool_use.start", '{"name":"bash","id":"call_1"}'),
    (ToolUseInputDelta('{"a":'), "tool_use.input_delta", r'{"content":"{\"a\":"}'),
    (
        ToolUseExecuting("bash", "call_1", {"b": [1, None], "a": {}}),
        "tool_use.executing",
        '{"name":"bash","id":"call_1","input":{"b":[1,null],"a":{}}}',
    ),
    (ToolUseExecuting("bash", "call_1", {}), "tool_use.executing", '{"name":"bash","id":"call_1","input":{}}'),
    (
        ToolUseExecuting("bash", "call_1", {"\ud800\x85": 2**64, "é": -(10**30)}),
        "tool_use.executing",
        r'{"name":"bash","id":"call_1","input":{"\ud800\u0085":18446744073709551616,"é":-1000000000000000000000000000000}}',
    ),
    (ToolUseStop(), "tool_use.stop", "{}"),
    (ToolResult("call_1", "", True), "tool_result", '{"id":"call_1","content":"","is_error":true}'),
    (ToolResult("call_1", "ok", False), "tool_result", '{"id":"call_1","content":"ok","is_error":false}'),
    (
        ToolCallRequested("call_1", "mine", {"q": 1.5}, "tool", 1764026707.5),
        "tool_call.requested",
        '{"id":"call_1","name":"mine","input":{"q":1.5},"kind":"tool","deadline":1764026707.5}',
    ),
    (ToolCallAnswered("call_1", "tool"), "tool_call.answered", '{"id":"call_1","kind":"tool"}'),
    (
        ToolCallAnswered("call_1", "approval", False),
        "tool_call.answered",
        '{"id":"call_1","kind":"approval","approved":false}',
    ),
    (
        ToolCallAnswered("call_1", "approval", True, {}),
        "tool_call.answered",
        '{"id":"call_1","kind":"approval","approved":true,"input":{}}',
    ),
    (
        MessageResumed("msg_1", "server_restarted", 4),
        "message.resumed",
        '{"id":"msg_1","reason":"server_restarted","superseded_from":4}',
    ),
    (
        MessageCompleted("msg_1", usage=USAGE),
        "message.completed",
        '{"id":"msg_1","status":"completed","usage":' + USAGE_JSON + "}",
    ),
    (MessageError("msg_1", "It failed: try again."), "message.error", '{"id":"msg_1","error":"It failed: try again."}'),
    (
        MessageCancelled("msg_1", usage=Usage()),
        "message.cancelled",
        '{"id":"msg_1","status":"cancelled","usage":' + NO_USAGE_JSON + "}",
    ),
]

NAMES = [
    "message.created",
    "text.start",
    "text.delta",
    "text.stop",
    "thinking.start",
    "thinking.delta",
    "thinking.stop",
    "tool_use.start",
    "tool_use.input_delta",
    "tool_use.executing",
    "tool_use.stop",
    "tool_result",
    "tool_call.requested",
    "tool_call.answered",
    "message.resumed",
    "message.completed",
    "message.error",
    "message.cancelled",
]


def test_the_events_are_those_of_the_contract_and_the_table_below_has_them_all():
    assert list(EVENTS) == NAMES
    assert {name for _, name, _ in WIRE} == set(NAMES)
    assert {cls.type for cls in TERMINAL} == {"message.completed", "message.error", "message.cancelled"}


@pytest.mark.parametrize(("event", "name", "data"), WIRE)
def test_an_event_is_exactly_two_lines_and_a_blank_one(event, name, data):
    assert encode_frame(event) == f"event: {name}\ndata: {data}\n\n".encode()


@pytest.mark.parametrize(("event", "name", "data"), WIRE)
def test_a_numbered_event_has_its_id_line_first_and_its_number_last(event, name, data):
    members = data[1:-1] + "," if data != "{}" else ""

    assert number(encode_frame(event), 1234) == (
        f'id: 1234\nevent: {name}\ndata: {{{members}"sequence_number":1234}}\n\n'.encode()
    )


@pytest.mark.parametrize(("event", "name", "data"), WIRE)
def test_an_event_is_read_from_what_it_is_written_as(event, name, data):
    assert decode_event(name, data) == decode_event(name, data.encode()) == event


def test_a_whole_streams_frames_are_those_of_its_events_in_a_row():
    events = [event for event, _, _ in WIRE]

    assert encode_frames(events) == b"".join(map(encode_frame, events))
    assert decode_frames(encode_frames(events)) == events


def test_usage_adds_field_by_field():
    assert USAGE + Usage(10, 20, 30, 40, 50, 60, 70) == Usage(11, 22, 33, 44, 55, 66, 77)
    assert USAGE + Usage() == USAGE


@pytest.mark.parametrize("cls", [*EVENTS.values(), Usage])
def test_events_are_frozen(cls):
    event = USAGE if cls is Usage else next(event for event, _, _ in WIRE if type(event) is cls)

    for field in msgspec.structs.fields(cls):
        with pytest.raises(AttributeError):
            setattr(event, field.name, getattr(event, field.name))
