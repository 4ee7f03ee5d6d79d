"""A model's pieces as blocks of the wire: one open at a time, whatever order the pieces come in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire.engine.blocks import BlockWriter, parse_input
from turnwire.protocol.events import (
    Event,
    MessageCreated,
    TextDelta,
    ThinkingDelta,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
)
from turnwire.protocol.grammar import Grammar
from turnwire.seams.model import Piece


def T(content: str, part: int = 0) -> Piece:  # noqa: N802
    return Piece(part, "text", content)


def C(part: int, content: str, name: str = "") -> Piece:  # noqa: N802
    return Piece(part, "call", content, name)


def short(events: list[Event]) -> list[str]:
    """Events as words, calls by the order of their starts: `start:look`, `+text`, `run:{…}`."""
    words: list[str] = []
    for event in events:
        match event:
            case ToolUseStart(name=name):
                words.append(f"start:{name}")
            case ToolUseExecuting(input=value):
                words.append(f"run:{value}")
            case TextDelta(content=content) | ThinkingDelta(content=content) | ToolUseInputDelta(content=content):
                words.append(f"+{content}")
            case _:
                words.append(event.type)
    return words


def written(batches: list[list[Piece]], inputs: dict[int, Any] | None = None) -> list[str]:
    writer = BlockWriter(["look", "count"])
    events: list[Event] = []
    for batch in batches:
        events += writer.feed(batch)
    return short(events + writer.finish(inputs))


LOOK = ["start:look", "+{}", "run:{}", "tool_use.stop"]
COUNT = ["start:count", "+{}", "run:{}", "tool_use.stop"]

TABLE = {
    "nothing at all": ([], []),
    "text": ([[T("a"), T("b")]], ["text.start", "+a", "+b", "text.stop"]),
    "empty text opens no block": ([[T("")]], []),
    "empty text inside a block is no delta": ([[T("a"), T(""), T("b")]], ["text.start", "+a", "+b", "text.stop"]),
    "thinking, then text": (
        [[Piece(0, "thinking", "hm")], [T("so", 1)]],
        ["thinking.start", "+hm", "thinking.stop", "text.start", "+so", "text.stop"],
    ),
    "two text parts are two blocks": (
        [[T("a", 0), T("b", 1)]],
        ["text.start", "+a", "text.stop", "text.start", "+b", "text.stop"],
    ),
    "a call": (
        [[C(0, "", "look"), C(0, '{"a"'), C(0, ":1}")]],
        ["start:look", '+{"a"', "+:1}", "run:{'a': 1}", "tool_use.stop"],
    ),
    "a call without input": ([[C(0, "", "look")]], ["start:look", "run:{}", "tool_use.stop"]),
    "an unknown tool is never executing": ([[C(0, "{}", "nope")]], ["start:nope", "+{}", "tool_use.stop"]),
    "input that is no JSON": ([[C(0, "{oops", "look")]], ["start:look", "+{oops", "tool_use.stop"]),
    "input that is no object": ([[C(0, "[1]", "look")]], ["start:look", "+[1]", "tool_use.stop"]),
    "parallel calls, one after another": (
        [[C(0, "{}", "look"), C(1, "{}", "count")]],
        [*LOOK, *COUNT],
    ),
    "parallel calls whose pieces alternate": (
        [[C(0, "{", "look")], [C(1, "{", "count")], [C(0, "}")], [C(1, "}")]],
        ["start:look", "+{", "+}", "run:{}", "tool_use.stop", "start:count", "+{", "+}", "run:{}", "tool_use.stop"],
    ),
    "three calls that alternate": (
        [[C(0, "", "look"), C(1, "", "count"), C(2, "", "look")], [C(2, "{}"), C(1, "{}"), C(0, "{}")]],
        [*LOOK, *COUNT, *LOOK],
    ),
    "text between calls": (
        [[C(0, "{}", "look"), T("and", 1), C(2, "{}", "count")]],
        [*LOOK, "text.start", "+and", "text.stop", *COUNT],
    ),
    "text while a call's input still comes waits": (
        [[C(0, "{", "look"), T("later", 1), C(0, "}")]],
        ["start:look", "+{", "+}", "run:{}", "tool_use.stop", "text.start", "+later", "text.stop"],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_pieces_become_blocks(name: str) -> None:
    batches, expected = TABLE[name]

    assert written(batches) == expected


@pytest.mark.parametrize("name", TABLE)
def test_where_a_batch_ends_changes_nothing(name: str) -> None:
    batches, _ = TABLE[name]
    pieces = [piece for batch in batches for piece in batch]

    assert written([pieces]) == written([[piece] for piece in pieces])


def test_the_response_may_know_more_of_an_input_than_its_pieces() -> None:
    assert written([[C(0, "", "look")]], {0: {"a": 1}}) == ["start:look", "run:{'a': 1}", "tool_use.stop"]


PIECES = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "{", "}", '{"a":', "1}", "{}", "x"])), max_size=25)


@given(PIECES, st.lists(st.sampled_from(["text", "thinking", "call"]), min_size=4, max_size=4))
def test_any_pieces_obey_the_grammar_and_none_is_lost_from_a_text(
    pieces: list[tuple[int, str]], kinds: list[Any]
) -> None:
    began: set[int] = set()
    batch: list[Piece] = []
    for part, content in pieces:
        name = "look" if kinds[part] == "call" and part not in began else ""
        began.add(part)
        batch.append(Piece(part, kinds[part], content, name))
    writer = BlockWriter(["look"])
    events = writer.feed(batch) + writer.finish()

    grammar = Grammar()
    grammar.check_all([MessageCreated("msg_1", "sess_1"), *events])
    assert not grammar.closing()
    for kind, cls in (("text", TextDelta), ("thinking", ThinkingDelta)):
        for part in range(4):
            if kinds.count(kind) == 1 and kinds[part] == kind:
                expected = "".join(content for p, content in pieces if p == part)
                assert "".join(e.content for e in events if isinstance(e, cls)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("", {}), (" \n", {}), ("{}", {}), ('{"a":1}', {"a": 1}), ("[]", None), ("1", None), ("null", None), ("{", None),
     ("NaN", None), ("[" * 100_000, None), ('{"a":1} x', None)],
)  # fmt: skip
def test_inputs(text: str, value: object) -> None:
    assert parse_input(text) == value


def test_ids_of_calls_are_new_and_the_servers_own() -> None:
    writer = BlockWriter(["look"])
    events = writer.feed([C(n, "{}", "look") for n in range(20)]) + writer.finish()
    ids = [event.id for event in events if isinstance(event, ToolUseStart)]

    assert len(set(ids)) == 20
    assert all(id_.startswith("call_") and len(id_) == 29 for id_ in ids)
