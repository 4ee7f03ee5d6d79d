"""The strategies that we ship draw all that they promise: a property of turns is worth what its turns hold."""

import itertools
import re

import pytest
from hypothesis import given, settings

from turnwire.protocol.codec import encode_frames
from turnwire.protocol.events import (
    EVENTS,
    MessageResumed,
    ToolCallAnswered,
    ToolResult,
    ToolUseExecuting,
    ToolUseStart,
    ToolUseStop,
)
from turnwire.testing.strategies import legal_turns


@pytest.fixture(scope="module")
def turns():
    drawn = []

    @settings(max_examples=300, derandomize=True, database=None)
    @given(legal_turns())
    def draw(events):
        drawn.append(events)

    draw()
    return drawn


def ids(events, kind):
    return [event.id for event in events if isinstance(event, kind)]


HAPPENINGS = {
    "results in another order than the calls": lambda e: ids(e, ToolUseStart) != ids(e, ToolResult),
    "parallel calls": lambda e: any(
        isinstance(a, ToolUseStop) and isinstance(b, ToolUseStart) for a, b in itertools.pairwise(e)
    ),
    "a call that never ran": lambda e: len(ids(e, ToolUseStart)) > len(ids(e, ToolUseExecuting)),
    "a step superseded": lambda e: any(
        isinstance(x, MessageResumed) and x.superseded_from < n for n, x in enumerate(e)
    ),
    "nothing superseded": lambda e: any(
        isinstance(x, MessageResumed) and x.superseded_from == n for n, x in enumerate(e)
    ),
    "an approval refused": lambda e: any(isinstance(x, ToolCallAnswered) and x.approved is False for x in e),
    "an approval with another input": lambda e: any(isinstance(x, ToolCallAnswered) and x.input for x in e),
    "a turn without anything": lambda e: len(e) == 2,
    "a lone surrogate": lambda e: rb"\ud800" in encode_frames(e),
    "a line separator": lambda e: rb"\u2028" in encode_frames(e),
    "a next line": lambda e: rb"\u0085" in encode_frames(e),
    "a NUL": lambda e: rb"\u0000" in encode_frames(e),
    "a carriage return": lambda e: rb"\r" in encode_frames(e),
    "an emoji": lambda e: "👩".encode() in encode_frames(e),
    "an integer past 64 bits": lambda e: re.search(rb"[:\[,]-?[0-9]{20,}[,}\]]", encode_frames(e)),
    "nested input": lambda e: any(
        isinstance(x, ToolUseExecuting) and any(isinstance(v, dict) and v for v in x.input.values()) for x in e
    ),
}


@pytest.mark.parametrize("happens", HAPPENINGS.values(), ids=HAPPENINGS)
def test_it_happens(turns, happens):
    assert any(happens(events) for events in turns)


def test_every_event_happens(turns):
    assert {type(event) for events in turns for event in events} == set(EVENTS.values())
