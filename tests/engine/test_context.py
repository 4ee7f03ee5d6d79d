"""The history: what is kept can be read again, and is always something that a provider accepts."""

from typing import Any

import pytest
from pydantic_ai.messages import (
    BinaryContent,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from turnwire.engine.context import Call, History, clean_text, note_entry, prompt_entry, response_entry, return_entry
from turnwire.seams.store import HistoryEntry


def call(id_: str, name: str = "look", args: str = "{}") -> tuple[Call, ToolCallPart]:
    part = ToolCallPart(name, args, f"provider_{id_}")
    return Call(id_, part, {}), part


def test_a_turn_with_two_calls_is_four_messages() -> None:
    (one, part_1), (two, part_2) = call("c1"), call("c2")
    history = History(
        [
            prompt_entry("hello"),
            response_entry(ModelResponse([TextPart("let me look"), part_1, part_2]), ["c1", "c2"]),
            return_entry(two, "second", is_error=False),
            return_entry(one, "first", is_error=True),
            response_entry(ModelResponse([TextPart("done")]), []),
            prompt_entry("thanks"),
        ]
    )
    shapes = [[type(part) for part in message.parts] for message in history.messages]

    assert shapes == [
        [UserPromptPart],
        [TextPart, ToolCallPart, ToolCallPart],
        [ToolReturnPart, ToolReturnPart],
        [TextPart],
        [UserPromptPart],
    ]
    returns = history.messages[2].parts
    assert [part.tool_call_id for part in returns] == ["provider_c2", "provider_c1"]  # type: ignore[union-attr]
    assert [part.outcome for part in returns] == ["success", "failed"]  # type: ignore[union-attr]


def test_open_calls_are_those_without_a_result_by_our_ids_and_in_order() -> None:
    (one, part_1), (_, part_2), (_, part_3) = call("c1"), call("c2"), call("c3")
    history = History([prompt_entry("x"), response_entry(ModelResponse([part_1, part_2, part_3]), ["c1", "c2", "c3"])])
    assert list(history.open_calls) == ["c1", "c2", "c3"]
    assert not history.awaits_model

    history.add(return_entry(one, "r", is_error=False))
    assert list(history.open_calls) == ["c2", "c3"]
    assert not history.awaits_model


def test_providers_that_repeat_an_id_do_not_confuse_whose_result_it_is() -> None:
    parts = [ToolCallPart("look", "{}", "call_0"), ToolCallPart("look", "{}", "call_0")]
    history = History([prompt_entry("x"), response_entry(ModelResponse(parts), ["ours_1", "ours_2"])])

    assert list(history.open_calls) == ["ours_1", "ours_2"]


@pytest.mark.parametrize("parts", [[], [TextPart("")], [ThinkingPart("hm")], [ThinkingPart("hm"), TextPart("")]])
def test_a_response_that_says_nothing_is_kept_as_one_that_says_so(parts: list[Any]) -> None:
    history = History([prompt_entry("x"), response_entry(ModelResponse(parts), [])])

    texts = [part.content for part in history.messages[-1].parts if isinstance(part, TextPart)]
    assert texts == ["(no answer)"]


def test_signatures_of_thinking_are_kept() -> None:
    part = ThinkingPart("hm", signature="sig", provider_name="anthropic", provider_details={"a": 1})
    history = History([prompt_entry("x"), response_entry(ModelResponse([part, TextPart("so")]), [])])

    kept = history.messages[1].parts[0]
    assert isinstance(kept, ThinkingPart)
    assert (kept.signature, kept.provider_name, kept.provider_details) == ("sig", "anthropic", {"a": 1})


def test_images_are_kept_as_they_came() -> None:
    history = History([prompt_entry(["look", BinaryContent(b"\x89PNG\xff", media_type="image/png")])])

    part = history.messages[0].parts[0]
    assert isinstance(part, UserPromptPart) and isinstance(part.content[1], BinaryContent)
    assert part.content[1].data == b"\x89PNG\xff"


@pytest.mark.parametrize(
    ("partial", "text"),
    [("", "[Stopped.]"), (" \n", "[Stopped.]"), ("So far", "So far\n\n[Stopped.]")],
)
def test_a_broken_turn_leaves_its_text_and_a_note(partial: str, text: str) -> None:
    history = History([prompt_entry("x"), note_entry("Stopped.", partial), prompt_entry("y")])

    assert [type(message) for message in history.messages] == [ModelRequest, ModelResponse, ModelRequest]
    assert history.messages[1].parts == [TextPart(text)]


def test_lone_surrogates_become_replacement_characters() -> None:
    history = History(
        [
            prompt_entry("x"),
            response_entry(ModelResponse([TextPart("a\ud83db"), ToolCallPart("look", {"k": "\ud83d"}, "c")]), ["c1"]),
        ]
    )

    assert history.messages[1].parts[0] == TextPart("a\ufffdb")
    assert clean_text("\ud83d\ude00 \U0001f600") == "\ufffd\ufffd \U0001f600"


def test_a_format_from_the_future_is_refused() -> None:
    with pytest.raises(AssertionError, match="written by a newer turnwire"):
        History([HistoryEntry("prompt", b"{}", format=99)])
