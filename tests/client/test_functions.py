"""Functions of the caller as tools: their definitions, and their calls by a real server."""

import asyncio
import threading
from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal

import pytest

from turnwire import AsyncClient, Client, ClientTool, ToolCallRequested, ToolResult, tool


class Unit(Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


@dataclass
class Place:
    town: str
    country: str = "CH"


def weather(place: Place, unit: Unit = Unit.CELSIUS, days: Annotated[int, "how many"] = 1) -> str:
    """The weather at a place.

    In two lines.

    Args:
        place: Where,
            exactly.
        unit: Of the temperature.

    Returns:
        A sentence.
    """
    return f"{days} days of sun in {place.town}, {place.country}, in {unit.name}"


def test_a_definition_is_made_from_signature_and_docstring() -> None:
    assert tool(weather).definition() == {
        "type": "function",
        "name": "weather",
        "description": "The weather at a place.\n\nIn two lines.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"$ref": "#/$defs/Place", "description": "Where, exactly."},
                "unit": {"$ref": "#/$defs/Unit", "description": "Of the temperature."},
                "days": {"type": "integer", "description": "how many", "default": 1},
            },
            "required": ["place"],
            "additionalProperties": False,
            "$defs": {
                "Place": {
                    "title": "Place",
                    "type": "object",
                    "properties": {"town": {"type": "string"}, "country": {"type": "string", "default": "CH"}},
                    "required": ["town"],
                },
                "Unit": {"title": "Unit", "enum": ["C", "F"]},
            },
        },
    }


def test_arguments_become_what_the_annotations_say() -> None:
    def when(day: date, tags: list[str], kind: Literal["a", "b"], limit: int | None = None, extra: Any = None) -> Any:
        """:param day: The day.
        :param list tags: Tags."""
        return day, tags, kind, limit, extra

    made = tool(when)
    arguments = {"day": "2026-01-02", "tags": ["x"], "kind": "b", "limit": None, "extra": {"a": 1}}

    assert made.call(arguments) == (date(2026, 1, 2), ["x"], "b", None, {"a": 1})
    assert made.parameters["properties"]["day"] == {"type": "string", "format": "date", "description": "The day."}
    assert made.parameters["properties"]["tags"]["description"] == "Tags."
    assert made.parameters["required"] == ["day", "tags", "kind"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"days": "3", "place": {"town": "Bern"}}, "days: Expected `int`, got `str`"),
        ({"planet": 1}, "no parameter 'planet'"),
    ],
)
def test_arguments_that_do_not_fit_are_told(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        tool(weather).call(arguments)


def unfit_star(*args: int) -> None: ...
def unfit_type(x: threading.Lock) -> None: ...
def unfit_name(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (unfit_star, TypeError),
        (unfit_type, TypeError),
        (unfit_name, TypeError),
        (lambda x: x, ValueError),
        (partial(weather, days=2), ValueError),
    ],
)
def test_what_can_be_no_tool_is_refused(function: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        tool(function)


def test_a_name_and_a_description_can_be_given() -> None:
    assert tool(lambda: 1, name="one", description="One.").name == "one"


def test_methods_and_callable_objects_are_tools() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self, n: int) -> int:
            """Add n."""
            self.count += n
            return self.count

        def __call__(self, n: int) -> int:
            return n

    counter = Counter()

    assert tool(counter.add).call({"n": 2}) == 2
    assert tool(counter, name="itself").call({"n": 3}) == 3


def test_two_tools_of_one_name_are_refused(tw: Client) -> None:
    with pytest.raises(ValueError, match="Two tools have the name 'weather'"):
        tw.sessions.create(tools=[weather, weather])


def results(events: Any) -> list[tuple[str, bool]]:
    return [(event.content, event.is_error) for event in events if isinstance(event, ToolResult)]


def test_the_agent_calls_the_function_and_is_answered(tw: Client) -> None:
    session = tw.sessions.create(tools=[weather])

    events = session.send('/call weather {"place": {"town": "Bern"}, "unit": "F"}')
    assert results(events) == [("1 days of sun in Bern, CH, in FAHRENHEIT", False)]


def test_it_runs_in_the_thread_that_reads(tw: Client) -> None:
    names: list[str] = []

    def where() -> None:
        names.append(threading.current_thread().name)

    tw.sessions.create(tools=[where]).send("/call where").result()
    assert names == [threading.current_thread().name]


def test_an_error_of_the_function_becomes_the_result(tw: Client, caplog: pytest.LogCaptureFixture) -> None:
    def divide(a: int, b: int) -> float:
        return a / b

    events = tw.sessions.create(tools=[divide]).send('/call divide {"a": 1, "b": 0}')

    assert results(events) == [("ZeroDivisionError: division by zero", True)]
    assert "The function divide failed" in caplog.text


def test_what_is_no_json_becomes_an_error(tw: Client) -> None:
    def give() -> object:
        return object()

    ((content, is_error),) = results(tw.sessions.create(tools=[give]).send("/call give"))
    assert is_error
    assert content.startswith("TypeError: the function returned what is no JSON")


def test_dataclasses_lists_and_nothing_are_results(tw: Client) -> None:
    def place() -> list[Place]:
        return [Place("Bern")]

    def nothing() -> None:
        return None

    session = tw.sessions.create(tools=[place, nothing])
    assert sorted(results(session.send("/call place\n/call nothing"))) == [
        ("", False),
        ('[{"country":"CH","town":"Bern"}]', False),
    ]


def test_calls_of_a_definition_without_a_function_are_answered_by_hand(tw: Client) -> None:
    session = tw.sessions.create(tools=[{"type": "function", "name": "ask", "description": "", "parameters": {}}])

    events = []
    for event in session.send("/call ask"):
        events.append(event)
        if isinstance(event, ToolCallRequested):
            session.answer(event.id, {"answer": 42})
    assert results(events) == [('{"answer":42}', False)]


def test_tools_given_at_get_answer_for_a_turn_of_another_client(demo, tw: Client) -> None:
    calls: list[str] = []

    def ask(what: str) -> str:
        calls.append(what)
        return "yes"

    definition = tool(ask).definition()
    session = tw.sessions.create(tools=[definition])
    for event in session.send('/call ask {"what": "1"}\n/then\n/call ask {"what": "2"}'):
        if isinstance(event, ToolCallRequested):
            break

    with Client(demo.url, demo.key) as other:
        assert results(other.sessions.get(session.id, tools=[ask]).follow()) == [("yes", False), ("yes", False)]
        assert calls == ["1", "2"]
        # Followed again, it is history: nothing is called.
        assert results(other.sessions.get(session.id, tools=[ask]).follow()) == [("yes", False), ("yes", False)]
    assert calls == ["1", "2"]


def test_an_async_function_needs_the_asynchronous_client(tw: Client) -> None:
    async def later() -> None: ...

    with pytest.raises(TypeError, match="needs AsyncClient"):
        tw.sessions.create(tools=[later])


async def test_async_functions_run_at_once_and_others_in_threads(atw: AsyncClient) -> None:
    both = asyncio.Barrier(2)

    async def first() -> str:
        await both.wait()
        return "first"

    async def second() -> str:
        await both.wait()
        return "second"

    def third() -> bool:
        return threading.current_thread() is threading.main_thread()

    session = await atw.sessions.create(tools=[first, second, third])
    events = [event async for event in session.send("/call first\n/call second\n/call third")]
    assert sorted(results(events)) == [("false", False), ("first", False), ("second", False)]


APPROVED = '/call write_file {"path": "a.txt", "content": "hi"}'


@pytest.mark.parametrize(
    ("said", "written", "is_error"),
    [
        (True, b"hi", False),
        (False, None, True),
        ((False, "not today"), None, True),
        ({"path": "a.txt", "content": "else"}, b"else", False),
    ],
)
def test_approvals_are_asked_for(tw: Client, said: Any, written: bytes | None, is_error: bool) -> None:
    asked: list[ToolCallRequested] = []

    def on_approval(call: ToolCallRequested) -> Any:
        asked.append(call)
        return said

    session = tw.sessions.create(workspace="private", approvals=["write_file"], on_approval=on_approval)
    ((content, was_error),) = results(session.send(APPROVED))

    assert was_error == is_error
    assert [call.input for call in asked] == [{"path": "a.txt", "content": "hi"}]
    assert not isinstance(said, tuple) or content == "not today"
    assert (session.files.read("a.txt") if written else None) == written


def test_an_error_in_on_approval_comes_through_and_nothing_is_approved(tw: Client) -> None:
    def on_approval(call: ToolCallRequested) -> bool:
        raise LookupError("no terminal")

    session = tw.sessions.create(workspace="private", approvals=["write_file"], on_approval=on_approval)
    with pytest.raises(LookupError, match="no terminal"):
        session.send(APPROVED).result()

    assert session.refresh().pending_calls == 1
    session.cancel()


def test_what_is_no_answer_approves_nothing(tw: Client) -> None:
    session = tw.sessions.create(workspace="private", approvals=["write_file"], on_approval=lambda call: "yes")

    with pytest.raises(TypeError, match="on_approval must return"):
        session.send(APPROVED).result()
    session.cancel()


def test_an_approval_is_given_by_hand(tw: Client) -> None:
    session = tw.sessions.create(workspace="private", approvals=["write_file"])
    for event in session.send(APPROVED):
        if isinstance(event, ToolCallRequested):
            session.approve(event.id)

    assert session.files.read("a.txt") == b"hi"


async def test_an_approval_may_be_awaited(atw: AsyncClient) -> None:
    async def on_approval(call: ToolCallRequested) -> tuple[bool, str]:
        await asyncio.sleep(0)
        return False, "no"

    session = await atw.sessions.create(approvals=["write_file"], on_approval=on_approval)
    assert results([event async for event in session.send(APPROVED)]) == [("no", True)]


def test_a_client_tool_can_be_written_out() -> None:
    made = ClientTool("x", "X.", {"type": "object", "properties": {"a": {}}}, lambda a: a, {"a": int})

    assert made.call({"a": 1}) == 1


def test_a_result_that_the_server_does_not_take_is_told_to_the_model(tw: Client) -> None:
    def much() -> str:
        return "x" * (5 * 1024 * 1024)

    def little() -> str:
        return "y"

    session = tw.sessions.create(tools=[much, little])
    first, second = sorted(results(session.send("/call much\n/call little")))
    assert first[0].startswith("The result can't be sent: ")
    assert (first[1], second) == (True, ("y", False))
