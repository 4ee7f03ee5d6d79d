"""The strategies that we ship draw all that they promise: a property of turns is worth what its turns hold."""

import itertools
import re

import pytest
from hypothesis import Phase, find, settings

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

# Enough for the rarest, which one turn in a hundred holds; drawing ends at the first that is found.
DRAWN = settings(max_examples=5_000, derandomize=True, database=None, phases=[Phase.generate], deadline=None)


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


@pytest.mark.slow
@pytest.mark.parametrize("happens", HAPPENINGS.values(), ids=HAPPENINGS)
def test_it_happens(happens):
    find(legal_turns(), happens, settings=DRAWN)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_every_event_happens(kind):
    find(legal_turns(), lambda events: any(isinstance(event, kind) for event in events), settings=DRAWN)
