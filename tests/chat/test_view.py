"""A turn's events as lines on a screen, with a clock of the tests and no terminal."""

import io
import time

import pytest

from turnwire.chat.screen import Screen, make_console
from turnwire.chat.view import Fold, TurnView, input_words
from turnwire.client import (
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
    ToolExecuting,
    ToolResult,
    ToolUseInputDelta,
    ToolUseStart,
    ToolUseStop,
    Unreachable,
    Usage,
    Waiting,
)

from chat.test_blocks import TEXT  # isort: skip

CREATED = MessageCreated("msg_1", "sess_1")
USAGE = Usage(input_tokens=1200, output_tokens=30, total_tokens=1230)


class Shown:
    """A view whose time stands still unless it is moved."""

    def __init__(self, **options: object) -> None:
        self.now = 100.0
        self.file = io.StringIO()
        console = make_console(self.file)
        console.width, console.height = 60, 24
        self.folds: list[Fold] = []
        self.view = TurnView(Screen(console), self.folds, clock=lambda: self.now, **options)  # type: ignore[arg-type]
        self.seq = -1

    def take(self, *events: Event) -> "Shown":
        for event in events:
            self.seq += 1
            self.view.take(event, self.seq)
        self.view.draw()
        return self

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def status(self) -> str:
        return "\n".join("".join(segment.text for segment in row) for row in self.view._rows())


def call(id_: str, name: str, input_: dict[str, object]) -> list[Event]:
    return [ToolUseStart(name, id_), ToolUseInputDelta("{}"), ToolExecuting(name, id_, input_), ToolUseStop()]


def test_a_turn_with_thinking_text_and_a_call() -> None:
    shown = Shown().take(CREATED, ThinkingStart(), ThinkingDelta("Hm.\nYes."))
    assert "thinking" in shown.status and "Yes." in shown.status
    shown.now += 6
    shown.take(ThinkingStop(), TextStart(), TextDelta("I look.\n\nNow: "), TextDelta("here"))
    assert shown.text == "▸ thought for 6.0 s\n\nI look.\n"
    assert shown.status.startswith("\nNow: here\n")
    shown.take(TextStop(), *call("t1", "bash", {"command": "ls\n-la"}))
    shown.now += 14
    assert "bash ls -la  14 s" in shown.status
    shown.take(ToolResult("t1", "\n".join(map(str, range(20))), False))
    shown.take(TextStart(), TextDelta("Done."), TextStop(), MessageCompleted("msg_1", usage=USAGE))

    assert shown.text == (
        "▸ thought for 6.0 s\n\nI look.\n\nNow: here\n\n✓ bash  ls -la  14 s\n  0\n  1\n  2\n"
        "  … 17 more lines · Ctrl-O shows all\n\nDone.\n\n1.2k in · 30 out · 20 s\n"
    )
    assert [fold.text for fold in shown.folds] == ["Hm.\nYes.", "\n".join(map(str, range(20)))]


def test_calls_that_run_together_are_shown_as_they_are_answered() -> None:
    shown = Shown().take(CREATED, *call("a", "read_file", {"path": "a"}), *call("b", "read_file", {"path": "b"}))
    shown.take(ToolResult("b", "B", False), ToolResult("a", "no such file", True))

    assert shown.text == "✓ read_file  b  0.0 s\n  B\n✕ read_file  a  0.0 s\n  no such file\n"


def test_thinking_can_be_shown() -> None:
    shown = Shown(show_thinking=True).take(CREATED, ThinkingStart(), ThinkingDelta("One.\nTw"), ThinkingDelta("o."))
    assert shown.text == "One.\n"

    assert shown.take(ThinkingStop()).text == "One.\nTwo.\n" and not shown.folds


def test_an_approval_waits_until_it_is_answered_by_anybody() -> None:
    asked = ToolCallRequested("t", "bash", {"command": "rm x"}, "approval", 1e12)
    shown = Shown().take(CREATED, *call("t", "bash", {"command": "rm x"}), asked)
    assert list(shown.view.asked) == ["t"]

    shown.take(ToolCallAnswered("t", "approval", approved=True, input={"command": "ls"}))
    assert not shown.view.asked
    shown.take(ToolResult("t", "", False))
    assert shown.text == "✓ bash  ls  0.0 s\n"


def test_a_refused_call_and_one_for_another_program() -> None:
    shown = Shown().take(CREATED, *call("t", "bash", {}), ToolCallRequested("t", "bash", {}, "approval", 1e12))
    shown.take(ToolCallAnswered("t", "approval", approved=False), ToolResult("t", "The user refused this call.", True))
    assert shown.text.startswith("⊘ bash  0.0 s\n")

    shown.take(*call("r", "rate", {}), ToolCallRequested("r", "rate", {}, "tool", 1e12))
    assert "rate waits for the program that offers it" in shown.status


def test_what_is_made_again_is_announced_and_what_hangs_is_dropped() -> None:
    shown = Shown().take(CREATED, TextStart(), TextDelta("Half of a"))
    shown.take(MessageResumed("msg_1", "server_restarted", 1), TextStart(), TextDelta("Whole."), TextStop())

    assert shown.text == "↻ The server restarted; this step is made again.\n\nWhole.\n"


def test_endings_say_what_there_is_to_say() -> None:
    assert (
        Shown().take(CREATED, MessageError("msg_1", "The key \x1b[31m is wrong.")).text == "✕ The key [31m is wrong.\n"
    )
    assert Shown().take(CREATED, TextStart(), TextDelta("a"), MessageCancelled("msg_1", usage=Usage())).text == (
        "a\n\n■ stopped\n"
    )


def test_what_hinders_is_said_until_the_next_event() -> None:
    shown = Shown().take(CREATED)
    shown.view.waits(Waiting("disconnected", 1.0, 0, Unreachable("x")))
    assert "Connection lost. The turn goes on. Reconnecting…" in shown.status

    shown.take(TextStart(), TextDelta("a"))
    assert "Connection" not in shown.status


def test_in_a_replay_no_time_is_claimed() -> None:
    shown = Shown(history_until=10).take(CREATED, ThinkingStart(), ThinkingDelta("x"), ThinkingStop())
    shown.take(*call("t", "bash", {}), ToolResult("t", "", False))

    assert shown.text == "▸ thought\n✓ bash\n"


def test_what_matters_of_an_input() -> None:
    assert input_words({"command": "ls", "timeout": 3}) == "ls"
    assert input_words({"content": "x", "path": "a.txt"}) == "a.txt"
    assert input_words({"n": 1}) == '{"n": 1}' and input_words({}) == ""


def test_a_huge_result_is_cut_before_it_is_looked_at() -> None:
    began = time.process_time()
    shown = Shown().take(CREATED, *call("t", "bash", {}), ToolResult("t", "x" * 5_000_000 + "\n" * 1000, False))

    assert len(shown.text) < 500 and time.process_time() - began < 2


@pytest.mark.slow
def test_a_long_answer_is_drawn_500_times_in_a_time_of_its_length() -> None:
    console = make_console(io.StringIO())
    console.width, console.height, console._force_terminal = 100, 40, True
    view = TurnView(Screen(console), [])
    text = (TEXT + "\n\n") * (100_000 // len(TEXT))
    view.take(TextStart(), 1)
    began, slowest = time.process_time(), 0.0
    for at in range(0, len(text), len(text) // 500):
        view.take(TextDelta(text[at : at + len(text) // 500]), 2)
        before = time.process_time()
        view.draw()
        slowest = max(slowest, time.process_time() - before)

    assert time.process_time() - began < 8 and slowest < 0.5
