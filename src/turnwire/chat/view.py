"""A turn on the screen: event by event into lines that stay, and rows that are drawn while something goes on."""

import json
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from rich.text import Text

from turnwire.chat.blocks import Blocks, Piece
from turnwire.chat.plain import one_line, plain, visible
from turnwire.chat.screen import Row, Screen, styled
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
    Usage,
    Waiting,
)

RESULT_LINES = 3
"""Lines of a tool's result that are shown."""

INPUT_LINES_MAX = 200
"""Lines of a call that are shown when a person is asked to allow it. Of more, the number is said."""

SHOWN_KEYS = ("command", "path", "url", "pattern", "query", "code")
"""What of a call's input is shown in one line, the first of these that is there; else all of it."""

RESUMED = {
    "server_restarted": "The server restarted; this step is made again.",
    "taken_over": "Another server took the turn over; this step is made again.",
    "provider_interrupted": "The model's provider broke off; this step is made again.",
}


class Fold(NamedTuple):
    """What was shown shortened, for Ctrl-O."""

    title: str
    text: str


class Call:
    """A tool's call as it goes on."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.since = now
        self.state: Literal["writing", "running", "asking", "elsewhere", "refused"] = "writing"
        self.input: dict[str, Any] | None = None
        self.written = 0
        self.live = True


class TurnView:
    """`take` each event, and `draw` some ten times a second. `asked`: the approvals that wait for a person here.

    `history_until`: events up to this number are no news, so how long things took isn't known.
    """

    def __init__(
        self,
        screen: Screen,
        folds: list[Fold],
        *,
        show_thinking: bool = False,
        history_until: int = -1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.screen, self._folds, self._clock = screen, folds, clock
        self._show_thinking = show_thinking
        self._history_until = history_until
        self._blocks: Blocks | None = None
        self._fresh = True
        """Nothing of this text is printed yet."""
        self._thinking: list[str] | None = None
        self._thought_line = ""
        self._calls: dict[str, Call] = {}
        self._call: Call | None = None
        self._last: Literal["nothing", "text", "line"] = "nothing"
        self._began = self._since = clock()
        self._status = "working"
        self._live = True
        self.asked: dict[str, ToolCallRequested] = {}
        self.question: list[Text] = []
        """Rows that ask something, above the status."""
        self.note = ""
        """What hinders: shown instead of what goes on, until the next event."""
        self.stopping = False
        self.typed, self.typed_ready = "", False
        self.ending: Event | None = None

    # Events

    def take(self, event: Event, seq: int) -> None:
        self.note = ""
        self._live = seq > self._history_until
        match event:
            case MessageCreated():
                self._state("working")
            case TextStart():
                self._blocks, self._fresh = Blocks(), True
                self._state("writing")
            case TextDelta(content=content) if self._blocks is not None:
                self._blocks.feed(plain(content))
            case TextStop() if self._blocks is not None:
                self._pieces(self._blocks.close())
                self._blocks = None
                self._state("working")
            case ThinkingStart():
                self._thinking = []
                self._state("thinking")
            case ThinkingDelta(content=content) if self._thinking is not None:
                self._think(plain(content))
            case ThinkingStop() if self._thinking is not None:
                self._thought()
            case ToolUseStart(name=name, id=id_):
                self._call = self._calls[id_] = Call(one_line(name, 60), self._clock())
            case ToolUseInputDelta(content=content) if self._call is not None:
                self._call.written += len(content)
            case ToolExecuting(id=id_, input=input_) if id_ in self._calls:
                call = self._calls[id_]
                call.input, call.state, call.since, call.live = input_, "running", self._clock(), self._live
            case ToolCallRequested():
                self._requested(event)
            case ToolCallAnswered():
                self._answered(event)
            case ToolResult(id=id_):
                self._result(self._calls.pop(id_, None), event)
                self.asked.pop(id_, None)
                self._state("working")
            case MessageResumed(reason=reason):
                self._resumed(reason)
            case MessageCompleted() | MessageCancelled() | MessageError():
                self._ended(event)
            case _:
                pass

    def waits(self, waiting: Waiting) -> None:
        """The client sleeps before it tries again."""
        match waiting.why:
            case "disconnected":
                self.note = "Connection lost. The turn goes on. Reconnecting" + self.screen.marks.more
            case "busy":
                self.note = "Another turn runs in this session: waiting for its end"
            case "refused":
                self.note = f"The server can't take it now: {one_line(str(waiting.error), 200)}"

    def _state(self, status: str) -> None:
        self._status, self._since = status, self._clock()

    def _requested(self, event: ToolCallRequested) -> None:
        call = self._calls.setdefault(event.id, Call(one_line(event.name, 60), self._clock()))
        call.input = event.input
        if event.kind == "approval":
            call.state = "asking"
            self.asked[event.id] = event
        else:
            call.state = "elsewhere"

    def _answered(self, event: ToolCallAnswered) -> None:
        call = self._calls.get(event.id)
        self.asked.pop(event.id, None)
        if call is None:
            return
        call.since, call.live = self._clock(), self._live
        if event.kind == "approval":
            if event.input is not None:
                call.input = event.input
            call.state = "running" if event.approved else "refused"
        else:
            call.state = "running"

    def _resumed(self, reason: str) -> None:
        self._blocks = self._thinking = self._call = None
        self._calls.clear()
        self.asked.clear()
        self._line(styled((f"{self.screen.marks.again} {RESUMED.get(reason, 'This step is made again.')}", "yellow")))
        self._state("working")

    def _ended(self, event: Event) -> None:
        self.ending = event
        if self._blocks is not None:
            self._pieces(self._blocks.close())
            self._blocks = None
        if self._thinking is not None:
            self._thought()
        marks = self.screen.marks
        match event:
            case MessageError(error=error):
                self._wrapped(styled((f"{marks.failed} {plain(error)}", "red")))
            case MessageCancelled():
                self._line(styled((f"{marks.stopped} stopped", "yellow")))
            case MessageCompleted(usage=usage):
                if words := self._spent(usage):
                    self._line(styled((words, "dim")))
            case _:
                pass

    def _spent(self, usage: Usage) -> str:
        words = [f"{_short(usage.input_tokens)} in", f"{_short(usage.output_tokens)} out"]
        if self._history_until < 0:
            words.append(_seconds(self._clock() - self._began))
        return f" {self.screen.marks.dot} ".join(words) if usage.total_tokens else ""

    # Thinking

    def _think(self, text: str) -> None:
        assert self._thinking is not None
        self._thinking.append(text)
        self._thought_line += text
        *lines, self._thought_line = self._thought_line.split("\n")
        if self._show_thinking:
            for line in lines:
                self._wrapped(styled((line, "dim italic")))

    def _thought(self) -> None:
        text = "".join(self._thinking or []).strip()
        if self._show_thinking and self._thought_line:
            self._wrapped(styled((self._thought_line, "dim italic")))
        self._thinking, self._thought_line = None, ""
        how_long = f" for {_seconds(self._clock() - self._since)}" if self._live else ""
        self._state("working")
        if text and not self._show_thinking:
            title = f"thought{how_long}"
            self._folds.append(Fold(title, text))
            self._line(styled((f"{self.screen.marks.folded} {title}", "dim")))

    # Calls

    def _result(self, call: Call | None, event: ToolResult) -> None:
        marks = self.screen.marks
        name = call.name if call else "?"
        if call is not None and call.state == "refused":
            mark, style = marks.refused, "yellow"
        else:
            mark, style = (marks.failed, "red") if event.is_error else (marks.done, "green")
        took = f"  {_seconds(self._clock() - call.since)}" if call and call.live and self._live else ""
        said = one_line(input_words(call.input), 300) if call and call.input is not None else ""
        head = styled((f"{mark} ", style), (name, "bold"))
        if said:
            room = self.screen.width - head.cell_len - len(took) - 2
            words = Text("  " + said, "dim")
            words.truncate(max(8, room), overflow="ellipsis")
            head.append_text(words)
        head.append(took, "dim")
        self._line(head)
        self._shortened(f"{name}  {said}".strip(), event.content, "red" if event.is_error else "dim")

    def _shortened(self, title: str, content: str, style: str) -> None:
        text = plain(content).strip("\n")
        first = text[: self.screen.width * (RESULT_LINES + 1)].split("\n")[:RESULT_LINES]
        rest = text.count("\n") + 1 - len(first)
        if text:
            self.screen.print_cut(*(styled((f"  {line}", style)) for line in first))
        if rest > 0 or any(len(line) + 2 > self.screen.width for line in first):
            self._folds.append(Fold(title, text))
        if rest > 0:
            more = f"  {self.screen.marks.more} {rest} more line{'s' * (rest > 1)}"
            self.screen.print(styled((f"{more} {self.screen.marks.dot} Ctrl-O shows all", "dim")))

    def ask(self, call: ToolCallRequested) -> None:
        """Print all of a call that a person is to allow: nobody should say yes to what they can't see."""
        self._line(styled(("? ", "bold yellow"), (one_line(call.name, 60), "bold"), " waits for your word:"))
        lines = visible(approval_words(call.input)).split("\n")
        for line in lines[:INPUT_LINES_MAX]:
            self.screen.print(Text(f"  {line}"))
        if len(lines) > INPUT_LINES_MAX:
            self.screen.print(styled((f"  {len(lines) - INPUT_LINES_MAX} more lines are not shown.", "bold red")))

    def say(self, text: str, style: str = "dim") -> None:
        """A line between the others."""
        self._wrapped(styled((plain(text), style)))

    # The screen

    def draw(self) -> None:
        """Print what has been finished, and draw the rest."""
        if self._blocks is not None:
            self._pieces(self._blocks.take())
        if self.screen.live:
            self.screen.draw(self._rows())

    def _rows(self) -> list[Row]:
        screen = self.screen
        below = [screen.cut(line) for line in [*self.question, *self._status_lines()]]
        room = screen.rows_max - len(below)
        rows: list[Row] = []
        if self._blocks is not None and room > 0:
            from turnwire.chat.markdown import preview_rows

            piece = self._blocks.open()
            if piece is not None:
                gap: list[Row] = [[]] if (self._last != "nothing" if self._fresh else piece.gap) else []
                rows = [*gap, *preview_rows(piece, screen.console, screen.width, room)]
        elif self._thinking is not None and room > 0:
            end = (self._thought_line if self._show_thinking else "".join(self._thinking[-400:])).strip()
            text = styled((end[-screen.width * (room + 1) :], "dim italic"))
            rows = screen.console.render_lines(text, screen.console.options.update(width=screen.width), pad=False)
        return [*rows[-room:], *below] if room > 0 else below

    def _status_lines(self) -> list[Text]:
        marks, now = self.screen.marks, self._clock()
        spinner = marks.spinner[int(now * 10) % len(marks.spinner)]
        typed: list[Text] = []
        if self.typed:
            how = "  (sent next)" if self.typed_ready else ""
            room = self.screen.width - len(how) - 3
            typed = [styled((f"{marks.prompt} {one_line(self.typed[-room:])}{how}", "dim"))]
        if self.stopping:
            return [styled((f"{spinner} stopping{marks.more} Ctrl-C again leaves", "yellow")), *typed]
        if self.note:
            return [styled((f"{spinner} {self.note}", "yellow")), *typed]
        what, since = self._status, self._since
        calls = [call for call in self._calls.values() if call.state in ("running", "writing", "elsewhere")]
        if calls and self._blocks is None and self._thinking is None:
            what, since = ", ".join(dict.fromkeys(map(self._call_words, calls))), min(call.since for call in calls)
        elif self.question:
            return typed
        line = styled((spinner, "cyan"), f" {what}  ", (f"{_seconds(now - since)} {marks.dot} Ctrl-C stops", "dim"))
        if line.cell_len > self.screen.width:
            line = styled((spinner, "cyan"), f" {what}")
        return [line, *typed]

    def _call_words(self, call: Call) -> str:
        match call.state:
            case "writing":
                return f"{call.name}: writing its input" + (f", {_short(call.written)}" if call.written > 999 else "")
            case "elsewhere":
                return f"{call.name} waits for the program that offers it"
            case _:
                said = one_line(input_words(call.input or {}), 60)
                return f"{call.name} {said}" if said and said != "{}" else call.name

    def _pieces(self, pieces: list[Piece]) -> None:
        if not pieces:
            return
        from turnwire.chat.markdown import rows_of

        rows = [row for piece in pieces for row in rows_of(piece, self.screen.console)]
        if rows:
            if self._fresh and self._last != "nothing":
                rows = [[], *rows]
            self.screen.print_rows(rows)
            self._last, self._fresh = "text", False

    def _line(self, line: Text) -> None:
        if self._last == "text":
            self.screen.print("")
        self.screen.print_cut(line)
        self._last = "line"

    def _wrapped(self, line: Text) -> None:
        if self._last == "text":
            self.screen.print("")
        self.screen.print(line)
        self._last = "line"


def input_words(input_: dict[str, Any]) -> str:
    """The input of a call in a few words: what matters most of it."""
    for key in SHOWN_KEYS:
        value = input_.get(key)
        if isinstance(value, str):
            return value
    return _json(input_) if input_ else ""


def approval_words(input_: dict[str, Any]) -> str:
    """All of a call's input, as a person reads it."""
    if set(input_) == {"command"} and isinstance(input_["command"], str):
        return input_["command"]
    return json.dumps(input_, ensure_ascii=False, indent=2)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _short(number: int) -> str:
    return str(number) if number < 1000 else f"{number / 1000:.1f}k" if number < 100_000 else f"{number // 1000}k"
