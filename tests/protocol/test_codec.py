"""JSON in and out: what msgspec and Python's own module would do differently, and what neither may let through."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire.protocol.codec import (
    NESTING_MAX,
    decode_event,
    decode_frames,
    decode_json,
    encode_frame,
    encode_frames,
    encode_json,
    number,
    skip_frames,
    split_frames,
)
from turnwire.protocol.errors import RemoteProtocolError
from turnwire.protocol.events import Event, TextDelta, ToolUseExecuting
from turnwire.testing.strategies import json_objects, json_values, legal_turns


def executing(input):
    return ToolUseExecuting("t", "call_1", input)


def nested(levels, inner=None):
    for _ in range(levels):
        inner = {"a": inner}
    return inner


# ── Values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(json_values())
def test_any_value_comes_back_as_itself_from_one_printable_line(value):
    data = encode_json(value)

    assert decode_json(data) == decode_json(data.decode()) == json.loads(data) == value
    assert len(data.decode().splitlines()) == 1
    assert not set(data) & set(range(0x20))


@given(json_values())
def test_a_value_is_read_as_python_reads_it_however_it_was_written(value):
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only, indent=1)

        assert decode_json(text) == value


@given(st.text(st.characters()))
def test_text_comes_back_as_javascript_has_it_where_two_surrogates_meet(text):
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")

    assert decode_json(encode_json(text)) == joined


@given(st.one_of(st.binary(), st.text(), st.text(st.sampled_from('[]{}",:\\u0d8e1.-+ NatIy'))))
def test_whatever_comes_is_a_value_or_a_value_error(data):
    try:
        value = decode_json(data)
    except ValueError as exc:
        assert str(exc)
    else:
        assert value == json.loads(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "Expecting value"),
        ("NaN", "NaN is no JSON value"),
        ('{"a":[Infinity]}', "Infinity is no JSON value"),
        ('["\\ud800",-Infinity]', "-Infinity is no JSON value"),
        ("1e999", "too large for a float"),
        ('["\\ud800",-1e999]', "too large for a float"),
        ("9" * 5000, "a number of 5000 digits"),
        ("-" + "9" * 5000, "a number of 5001 digits"),
        ("[" * 100_000, "nested deeper than 200 levels"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 200 levels"),
        ('["\\ud800",' + "[" * 100_000 + "]" * 100_000 + "]", "nested deeper than 200 levels"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested deeper than 200 levels"),
        ('"a\nb"', "Invalid control character"),
        ("[1,]", "Expecting value"),
        ("1 2", "Extra data"),
        ("\ufeff{}", "BOM"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8: byte 0 "),
        ('{"a":1}'.encode("utf-16"), "not UTF-8: byte 0 "),
        ('{"a":1}'.encode("utf-16-le"), "Expecting property name"),
        (b'{"a":"\xff"}', "not UTF-8: byte 6 "),
        (b'"\xed\xa0\x80"', "not UTF-8: byte 1 "),
        (b'"\xc0\x80"', "not UTF-8: byte 1 "),
    ],
    ids=range(23),
)
def test_what_is_no_json_is_refused_with_a_reason(data, why):
    with pytest.raises(ValueError, match=why):
        decode_json(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (str(2**64), 2**64),
        (str(-(2**63) - 1), -(2**63) - 1),
        ("9" * 4300, int("9" * 4300)),
        ("1e308", 1e308),
        ("1e-999", 0.0),
        ('"\\ud800"', "\ud800"),
        ('"\ud800"', "\ud800"),
        ('{"\\udfff":"\\u0000"}', {"\udfff": "\0"}),
        ('"\\ud83d\\ude00"', "😀"),
        ('{"a":1,"a":2}', {"a": 2}),
        ('[["\\ud800"],' + str(10**30) + "]", [["\ud800"], 10**30]),
    ],
    ids=range(11),
)
def test_unusual_json_is_read(data, value):
    assert decode_json(data) == value


@pytest.mark.parametrize("inner", [1, "\ud800", "[" * 500])
def test_as_many_levels_as_are_allowed_are_read_and_written_and_not_one_more(inner):
    deep = nested(NESTING_MAX, inner)

    assert decode_json(encode_json(deep)) == deep
    with pytest.raises(ValueError, match="nested"):
        decode_json(encode_json([deep]))


def test_what_was_decoded_can_be_encoded_far_down_the_stack():
    deep = decode_json(encode_json(nested(NESTING_MAX - 1, "\ud800")))

    def down(frames):
        return encode_frame(executing(deep)) if frames == 0 else down(frames - 1)

    assert down(sys.getrecursionlimit() // 4) == encode_frame(executing(deep))


@pytest.mark.parametrize("text", ["plain", "\ud800"])
def test_what_json_lacks_is_written_as_null_whatever_stands_beside_it(text):
    event = executing({"t": text, "n": float("nan"), "l": [float("inf"), {"m": -float("inf")}], "big": 10**30})

    assert json.loads(encode_json(event))["input"] == {"t": text, "n": None, "l": [None, {"m": None}], "big": 10**30}


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("text.delta", ""),
        ("text.delta", "[]"),
        ("text.delta", "null"),
        ("text.delta", "{}"),
        ("text.delta", '{"content":1}'),
        ("text.delta", '{"content":null}'),
        ("text.delta", '{"content":"a"'),
        ("text.delta", '{"content":"a"}}'),
        ("text.delta", '{"content":"\\ud800"'),
        ("text.delta", '{"contents":"\\ud800"}'),
        ("text.delta", b'{"content":"\xff"}'),
        ("text.delta", b'{"content":"\xed\xa0\x80"}'),
        ("text.start", ""),
        ("text.start", "[]"),
        ("message.created", '{"id":"a","session_id":"b","status":"completed"}'),
        ("message.completed", '{"id":"a","status":"completed"}'),
        ("message.completed", '{"id":"a","status":"completed","usage":{"input_tokens":"1"}}'),
        ("tool_result", '{"id":"a","content":"b","is_error":0}'),
        ("tool_use.executing", '{"name":"a","id":"b","input":[]}'),
        ("tool_use.executing", '{"name":"a","id":"b","input":{"a":NaN}}'),
        ("tool_use.executing", '{"name":"a","id":"b","input":{"a":1e999}}'),
        ("tool_use.executing", '{"name":"a","id":"b","input":{"a":1e999,"b":"\\ud800"}}'),
        ("tool_use.executing", '{"name":"a","id":"b","input":{"a":' + "9" * 5000 + "}}"),
        ("tool_use.executing", '{"name":"a","id":"b","input":{"a":' + "[" * 5000 + "]" * 5000 + "}}"),
        ("tool_use.executing", '{"name":"a","id":"b","input":{"a":"\\ud800","b":' + "[" * 5000 + "]" * 5000 + "}}"),
        ("message.resumed", '{"id":"a","reason":"server_restarted","superseded_from":1.5}'),
    ],
    ids=range(26),
)
def test_data_of_another_shape_is_the_other_sides_error_and_says_which_event(type_, data):
    with pytest.raises(RemoteProtocolError, match=rf"^The data of {type_} is not of its shape: .+"):
        decode_event(type_, data)


@given(legal_turns(), st.dictionaries(st.text(), json_values(), max_size=2))
def test_keys_that_a_later_version_adds_are_passed_over(events, more):
    for event in events:
        data = {"\udc00more": more, **json.loads(encode_json(event)), "sequence_number": 3}

        assert decode_event(event.type, encode_json(data)) == event


def test_an_event_that_a_later_version_adds_is_none():
    assert decode_event("text.annotation", b"whatever") is None
    assert decode_event("", b"{}") is None


@given(json_objects())
def test_an_input_is_the_same_by_each_json_reader(value):
    data = encode_json(executing(value))

    assert json.loads(data)["input"] == value
    assert decode_event("tool_use.executing", data) == executing(value)


# ── Frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(legal_turns(), st.integers(0, 2**40))
def test_frames_split_skip_and_number_by_event(events, first):
    single = [encode_frame(event) for event in events]
    frames = encode_frames(events)

    assert split_frames(frames) == single
    assert [skip_frames(frames, count) for count in range(len(events) + 1)] == [
        b"".join(single[count:]) for count in range(len(events) + 1)
    ]
    assert number(frames, first) == b"".join(number(frame, n) for n, frame in enumerate(single, first))
    assert decode_frames(frames) == events


@given(legal_turns())
def test_a_number_adds_one_line_and_one_key_and_nothing_else(events):
    for n, (plain, numbered) in enumerate(
        zip(split_frames(encode_frames(events)), split_frames(number(encode_frames(events), 0)), strict=True)
    ):
        type_line, data_line = plain.decode().removesuffix("\n\n").split("\n")
        id_line, same_type_line, more_data_line = numbered.decode().removesuffix("\n\n").split("\n")

        assert (id_line, same_type_line) == (f"id: {n}", type_line)
        assert list(json.loads(more_data_line[6:]).items()) == [
            *json.loads(data_line[6:]).items(),
            ("sequence_number", n),
        ]


def test_no_frames_are_no_bytes():
    assert (encode_frames([]), number(b"", 5), split_frames(b""), skip_frames(b"", 0), decode_frames(b"")) == (
        b"", b"", [], b"", [],
    )  # fmt: skip


def test_skipping_more_frames_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="not found"):
        skip_frames(encode_frame(TextDelta("a")), 2)


def test_frames_that_are_none_of_ours_are_refused():
    with pytest.raises(RemoteProtocolError, match=r"nothing\.known"):
        decode_frames(b"event: nothing.known\ndata: {}\n\n")


def test_only_events_of_the_wire_have_frames():
    class Other(Event, frozen=True):
        pass

    with pytest.raises(KeyError):
        encode_frame(Other())
