"""The stream as readers see it: WHATWG's algorithm, in a table, and every legal turn, cut anywhere.

Source of the cases: https://html.spec.whatwg.org/multipage/server-sent-events.html (sections 9.2.5 and 9.2.6).
"""

import itertools

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire.protocol import sse
from turnwire.protocol.codec import decode_event, encode_frame, encode_frames, number
from turnwire.protocol.events import TextDelta
from turnwire.protocol.sse import HEARTBEAT, HEARTBEAT_NUMBERED, ServerSentEvent, SSEDecoder
from turnwire.protocol.transcript import Transcript
from turnwire.testing.strategies import legal_turns


def message(data, *, event="message", id=""):
    return ServerSentEvent(event, data, id)


CASES = {
    "one event": (b"event: a\ndata: 1\n\n", [message("1", event="a")]),
    "no type is 'message'": (b"data: 1\n\n", [message("1")]),
    "an empty type is 'message'": (b"event:\ndata: 1\n\n", [message("1")]),
    "the last type counts": (b"event: a\nevent: b\ndata: 1\n\n", [message("1", event="b")]),
    "a type doesn't outlive its event": (b"event: a\ndata: 1\n\ndata: 2\n\n", [message("1", event="a"), message("2")]),
    "a type without data dies with the blank line": (b"event: a\n\ndata: 1\n\n", [message("1")]),
    "the fields' order is free": (b"data: 1\nid: 7\nevent: a\n\n", [message("1", event="a", id="7")]),
    "several data lines": (b"data: 1\ndata: 2\ndata:\ndata: 3\n\n", [message("1\n2\n\n3")]),
    "no data, no event": (b"event: a\nid: 1\n\n", []),
    "an empty data line is data": (b"data\n\ndata\ndata\n\ndata:\n\n", [message(""), message("\n"), message("")]),
    "no space after the colon": (b"event:a\ndata:1\n\n", [message("1", event="a")]),
    "one space goes, the second stays": (b"data:  1 \n\n", [message(" 1 ")]),
    "a tab is no space": (b"data:\t1\n\n", [message("\t1")]),
    "a colon in the value": (b"data: a: b:c\n\n", [message("a: b:c")]),
    "comments": (b": hello\n:\ndata: 1\n:data: 2\n\n", [message("1")]),
    "a comment with a blank line": (b":\n\n:\n\ndata: 1\n\n", [message("1")]),
    "unknown fields, other cases": (b"foo: 1\nData: 2\n data: 3\ndatax: 4\ndata: 5\n\n", [message("5")]),
    "retry is passed over": (b"retry: 1000\ndata: 1\n\nretry: x\n\n", [message("1")]),
    "byte order mark": (b"\xef\xbb\xbfdata: 1\n\n", [message("1")]),
    "only one mark is passed over": (b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n", [message("2")]),
    "a mark later is none": (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", [message("1")]),
    "a mark before a blank line": (b"\xef\xbb\xbf\ndata: 1\n\n", [message("1")]),
    "an id stays": (b"id: 1\ndata: a\n\ndata: b\n\n", [message("a", id="1"), message("b", id="1")]),
    "an empty id takes it away": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [message("a", id="1"), message("b")]),
    "an id with NUL is ignored": (
        b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n",
        [message("a", id="1"), message("b", id="1")],
    ),
    "an id of an event without data stays": (b"id: 1\n\ndata: a\n\n", [message("a", id="1")]),
    "NUL in data stays": (b"data: a\x00b\n\n", [message("a\x00b")]),
    "CR": (b"event: a\rdata: 1\r\rdata: 2\r\r", [message("1", event="a"), message("2")]),
    "CRLF": (b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", [message("1", event="a"), message("2")]),
    "mixed ends": (b"data: 1\r\n\ndata: 2\n\rdata: 3\r\r\n", [message("1"), message("2"), message("3")]),
    "other separators are text": (
        "data: a\u2028b\x85c\x0bd\x0ce\x1cf\n\n".encode(),
        [message("a\u2028b\x85c\x0bd\x0ce\x1cf")],
    ),
    "longer characters": ("data: é€😀\n\n".encode(), [message("é€😀")]),
    "invalid UTF-8 is replaced": (
        b"data: \xff\xc3\ndata: \xed\xa0\x80\n\n",
        [message("\ufffd\ufffd\n\ufffd\ufffd\ufffd")],
    ),
    "an event that is cut off is dropped": (b"data: 1\n\ndata: 2\n", [message("1")]),
    "a line that is cut off is dropped": (b"data: 1\n\ndata: 2", [message("1")]),
    "nothing": (b"", []),
    "blank lines": (b"\n\n\r\n\r", []),
}
OPEN = {"nothing", "an event that is cut off is dropped", "a line that is cut off is dropped"}
"""Cases that end within an event, or before the stream's first byte: more data would join them."""


def feed(*chunks):
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def single(data):
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
def test_whole(data, events):
    assert feed(data) == events


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
def test_byte_by_byte_with_empty_chunks_between(data, events):
    assert feed(*itertools.chain.from_iterable((byte, b"") for byte in single(data))) == events


@pytest.mark.parametrize(("data", "events"), CASES.values(), ids=CASES)
def test_cut_in_two_anywhere(data, events):
    assert all(feed(data[:at], data[at:]) == events for at in range(len(data) + 1))


@pytest.mark.parametrize(("data", "events"), [CASES[name] for name in CASES if name not in OPEN])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_with_trailing_data(data, events, end):
    trailing = end.join([b"id: 99", b"event: last", b"data: x", b"", b"data: never ended"])
    last = message("x", event="last", id="99")

    assert feed(data, trailing) == feed(data + trailing) == feed(*single(data + trailing)) == [*events, last]


def test_where_to_resume_is_behind_the_last_whole_event_only():
    decoder = SSEDecoder()

    decoder.feed(b"id: 4\nevent: a\ndata: 1\n\nid: 5\nevent: a\ndata: 2")
    assert decoder.last_event_id == "4"

    decoder.feed(b"\n")
    assert decoder.last_event_id == "4"

    decoder.feed(b"\n")
    assert decoder.last_event_id == "5"

    assert decoder.feed(b"id: 6\n\n") == []
    assert decoder.last_event_id == "6"


def test_a_line_without_end_and_an_event_without_end_are_refused_before_memory_is_gone(monkeypatch):
    monkeypatch.setattr(sse, "LINE_BYTES_MAX", 100)
    monkeypatch.setattr(sse, "EVENT_SIZE_MAX", 100)

    with pytest.raises(ValueError, match="line of the stream is longer than 100 bytes"):
        feed(*[b"xxxxxxxxxx"] * 11)
    with pytest.raises(ValueError, match="event of the stream is longer than 100 characters"):
        feed(*[b"data: xxxxxxxxx\n"] * 11)
    with pytest.raises(ValueError, match="event of the stream is longer"):
        feed(*[b"data\n"] * 101)


def test_the_bounds_are_of_one_line_and_of_one_event_and_not_of_the_stream(monkeypatch):
    monkeypatch.setattr(sse, "LINE_BYTES_MAX", 100)
    monkeypatch.setattr(sse, "EVENT_SIZE_MAX", 100)

    assert len(feed(*single(b"data: xxxxxxxxxx\n\n" * 50))) == 50
    assert len(feed(*[b":" + b"x" * 50 + b"\n"] * 50, b"data: 1\n\n")) == 1


# ── Whole turns ──────────────────────────────────────────────────────────────────────────────────────────────────────


def stream_of(events, *, numbered, beats=()):
    """The stream's bytes, with a heartbeat before each event whose number is in `beats`, and two behind the last."""
    heartbeat = HEARTBEAT_NUMBERED if numbered else HEARTBEAT
    parts = []
    for n, event in enumerate(events):
        parts += [heartbeat] * (n in beats)
        parts.append(number(encode_frame(event), n) if numbered else encode_frame(event))
    return b"".join([*parts, heartbeat, heartbeat])


def folded(events):
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript.status, transcript.usage, transcript.error, transcript.content


@st.composite
def streams(draw, newlines=(b"\n",)):
    """A legal turn, whether it is numbered, and its bytes in chunks cut anywhere."""
    events = draw(legal_turns())
    numbered = draw(st.booleans())
    beats = draw(st.sets(st.integers(0, len(events))))
    data = stream_of(events, numbered=numbered, beats=beats).replace(b"\n", draw(st.sampled_from(newlines)))
    match draw(st.sampled_from(["whole", "bytes", "cut"])):
        case "whole":
            return events, numbered, [data]
        case "bytes":
            return events, numbered, single(data)
        case _:
            cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
            return events, numbered, [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]


@given(streams(newlines=[b"\n", b"\r", b"\r\n"]))
def test_any_legal_turn_comes_back_as_itself_and_folds_to_itself(drawn):
    events, numbered, chunks = drawn

    got = feed(*chunks)

    assert [decode_event(item.event, item.data) for item in got] == events
    assert [item.id for item in got] == ([str(n) for n in range(len(events))] if numbered else [""] * len(events))
    assert folded(decode_event(item.event, item.data) for item in got) == folded(events)


@given(streams())
def test_httpx_sse_reads_the_same_events(drawn):
    events, numbered, chunks = drawn
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(chunks))

    got = list(httpx_sse.EventSource(response).iter_sse())

    assert [(item.event, item.data, item.id) for item in got] == [tuple(item) for item in feed(*chunks)]
    assert [decode_event(item.event, item.data) for item in got] == events
    assert [item.id for item in got] == ([str(n) for n in range(len(events))] if numbered else [""] * len(events))


def founding_reader(lines):
    """How the founding page's example reads."""
    event = None
    for line in lines:
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            yield decode_event(event, line[5:].strip())


@given(streams())
def test_readers_that_split_like_splitlines_tear_nothing(drawn):
    events, numbered, chunks = drawn
    text = b"".join(chunks).decode()
    response = httpx.Response(200, content=iter(chunks))

    assert list(founding_reader(text.splitlines())) == events
    assert list(founding_reader(response.iter_lines())) == events
    assert {line.partition(" ")[0] for line in text.splitlines()} <= {"event:", "data:", ":", ""} | (
        {"id:"} if numbered else set()
    )


@given(legal_turns())
def test_a_reader_that_parses_on_blank_lines_finds_two_lines_in_each_event(events):
    frames = encode_frames(events).decode().split("\n\n")

    assert frames.pop() == ""
    assert [frame.count("\n") for frame in frames] == [1] * len(events)


def test_a_delta_of_every_character_of_the_first_plane_is_one_line():
    text = "".join(map(chr, range(0xFFFF, -1, -1)))  # downwards, or two lone surrogates would make a pair
    frame = encode_frame(TextDelta(text))

    assert len(frame.decode().splitlines()) == 3
    assert [decode_event(item.event, item.data) for item in feed(frame)] == [TextDelta(text)]
