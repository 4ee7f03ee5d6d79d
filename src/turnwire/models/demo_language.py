"""The demo model's small language: the lines of a message → the answers to it, a step at a time.

A line that begins with a slash and a word is a command; any other line is text to say. `/then` ends a step:
what follows it comes after the results of the step's calls. `COMMANDS` is the whole language; `/help` is made
from it.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

from pydantic_ai.usage import RequestUsage

from turnwire.models.played import Act, Answer, Fail, Part, Wait, slices, words

# More is refused with a sentence: a demo must not be a way to fill a server's disk or to hold a turn for a
# day.
STREAM_DELTAS_MAX = 1_000_000
BIG_CHARACTERS_MAX = 8_000_000
STALL_SECONDS_MAX = 3600.0
RATE_MAX = 1_000_000.0

# Characters that tear lines (LS, PS, NEL, CR LF, FF), change width or direction, are joined, or are half of a
# pair.
AWKWARD = (
    "line\u2028separator ",
    "paragraph\u2029separator ",
    "next\u0085line ",
    "carriage\r\nreturn ",
    "form\x0cfeed ",
    "nul\x00 ",
    "bom\ufeff ",
    "right\u202eto\u202cleft ",
    "emoji \U0001f600 ",
    "family \U0001f469\u200d\U0001f469\u200d\U0001f467 ",
    "combining e\u0301 ",
    "lone\ud83dsurrogate ",
    "quotes \"'\\ ",
    "data: event: id: \n\n",
    "end",
)


class DemoSyntaxError(ValueError):
    """The message is no program; says which line, and what would be right."""


@dataclass
class Step:
    """A step that is being read."""

    acts: list[Act] = field(default_factory=list[Act])
    usage: RequestUsage | None = None
    cut: bool = False
    interleave: bool = False
    # What `/help`, `/tools` and `/history` ask for.
    tools: tuple[str, ...] = ()
    history: tuple[str, ...] = ()

    def has_call(self) -> bool:
        return any(isinstance(act, Part) and act.kind == "call" for act in self.acts)

    def say(self, text: str) -> None:
        self.acts.append(Part("text", words(text)))

    def answer(self) -> Answer:
        finish: Literal["length", "tool_call", "stop"] = (
            "length" if self.cut else "tool_call" if self.has_call() else "stop"
        )
        return Answer(tuple(self.acts), self.usage, finish, self.interleave)


@dataclass(frozen=True)
class Counting:
    """The deltas "1 ", "2 ", … up to `n`."""

    n: int

    def __iter__(self) -> Iterator[str]:
        return (f"{i} " for i in range(1, self.n + 1))


def is_program(message: str) -> bool:
    """Whether any line of the message is a command."""
    return any(_command_of(line) for line in message.splitlines())


def parse(message: str, *, tools: tuple[str, ...] = (), history: tuple[str, ...] = ()) -> list[Answer]:
    """The steps of a message; raises `DemoSyntaxError`."""
    steps = [Step(tools=tools, history=history)]
    for number, line in enumerate(message.splitlines(), 1):
        command = _command_of(line)
        try:
            if command == "then":
                if not steps[-1].has_call():
                    raise DemoSyntaxError("a step without a call ends the turn, so nothing can follow it")
                steps.append(Step(tools=tools, history=history))
            elif command is not None:
                _run(command, line.strip()[len(command) + 1 :].strip(), steps[-1])
            elif line.strip():
                steps[-1].say(line)
        except DemoSyntaxError as error:
            raise DemoSyntaxError(f"Line {number}: {error}.") from None
    return [step.answer() for step in steps]


def help_text() -> str:
    """All commands, a line each."""
    return "\n".join(
        [
            "Commands of the demo model, one a line; any other line is text to say:",
            *(f"{c.usage}: {c.what}." for c in COMMANDS.values()),
        ]
    )


def _command_of(line: str) -> str | None:
    found = re.match(r"\s*/([a-z]+)(?=\s|$)", line)
    return found[1] if found else None


def _run(name: str, rest: str, step: Step) -> None:
    command = COMMANDS.get(name)
    if command is None:
        raise DemoSyntaxError(f"/{name} is no command; /help lists them all")
    command.run(rest, step)


def _usage_error(name: str) -> DemoSyntaxError:
    return DemoSyntaxError(f"it must be {COMMANDS[name].usage}")


def _text(rest: str) -> str:
    """The text as it stands, or, in double quotes, a JSON string, with its escapes."""
    if rest.startswith('"'):
        try:
            value = json.loads(rest)
        except ValueError:
            raise DemoSyntaxError("a text in double quotes must be a JSON string") from None
        if isinstance(value, str):
            return value
    return rest


def _number(name: str, text: str, most: float, least: float = 0.0) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _usage_error(name) from None
    if not least <= value <= most:
        raise DemoSyntaxError(f"the number must be from {least:g} to {most:,.0f}")
    return value


def _whole(name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise _usage_error(name)
    return int(_number(name, text, most))


def _think(rest: str, step: Step) -> None:
    if not rest:
        raise _usage_error("think")
    step.acts.append(Part("thinking", words(_text(rest))))


def _say(rest: str, step: Step) -> None:
    if not rest:
        raise _usage_error("text")
    step.say(_text(rest))


def _call(rest: str, step: Step) -> None:
    tool, _, arguments = rest.partition(" ")
    if not tool:
        raise _usage_error("call")
    step.acts.append(Part("call", slices(arguments.strip() or "{}"), tool))


def _bad_json(rest: str, step: Step) -> None:
    if not rest or " " in rest:
        raise _usage_error("badjson")
    step.acts.append(Part("call", slices('{"path": oops, "content": ]}'), rest))


def _cut_call(rest: str, step: Step) -> None:
    if not rest or " " in rest:
        raise _usage_error("cutcall")
    step.acts.append(Part("call", slices('{"path": "half of a na'), rest))
    step.cut = True


def _unknown(rest: str, step: Step) -> None:
    step.acts.append(Part("call", slices('{"why": "this tool does not exist"}'), "no_such_tool"))


def _fail(rest: str, step: Step) -> None:
    found = re.fullmatch(r"(before|after)?\s*([45]\d\d)?\s*(?:x(\d{1,4}))?", rest)
    if not found:
        raise _usage_error("fail")
    when = cast(Literal["before", "after"], found[1] or "before")
    message = "The demo model failed as it was asked to."
    step.acts.append(Fail(when, message, int(found[2] or 503), int(found[3]) if found[3] else None))


def _stall(rest: str, step: Step) -> None:
    step.acts.append(Wait(_number("stall", rest, STALL_SECONDS_MAX)))


def _stream(rest: str, step: Step) -> None:
    count, _, rate = rest.partition(" ")
    n = _whole("stream", count, STREAM_DELTAS_MAX)
    per_second = _number("stream", rate.strip(), RATE_MAX, 0.001) if rate.strip() else None
    step.acts.append(Part("text", Counting(n), rate=per_second))


def _big(rest: str, step: Step) -> None:
    step.acts.append(Part("text", ("x" * _whole("big", rest, BIG_CHARACTERS_MAX),)))


def _unicode(rest: str, step: Step) -> None:
    step.acts.append(Part("text", AWKWARD))


def _empty(rest: str, step: Step) -> None:
    """Nothing: the step's answer has no part, unless other lines give it one."""


def _usage(rest: str, step: Step) -> None:
    numbers = rest.split()
    if len(numbers) not in (2, 4):
        raise _usage_error("usage")
    values = [_whole("usage", n, 10**9) for n in numbers]
    step.usage = RequestUsage(
        input_tokens=values[0],
        output_tokens=values[1],
        cache_read_tokens=values[2] if len(values) == 4 else 0,
        cache_write_tokens=values[3] if len(values) == 4 else 0,
    )


def _interleave(rest: str, step: Step) -> None:
    step.interleave = True


def _tools(rest: str, step: Step) -> None:
    step.say("Tools on offer: " + (", ".join(step.tools) or "none") + ".")


def _history(rest: str, step: Step) -> None:
    step.say("\n".join([f"Messages before this one: {len(step.history)}.", *step.history]))


def _help(rest: str, step: Step) -> None:
    step.say(help_text())


@dataclass(frozen=True)
class Command:
    """How a command is written, what it does, and the function that does it."""

    usage: str
    what: str
    run: Callable[[str, Step], None]


def _then(rest: str, step: Step) -> None:
    raise AssertionError("`parse` takes /then itself")


COMMANDS: dict[str, Command] = {
    "text": Command("/text TEXT", "says TEXT, a word a delta; in double quotes it is a JSON string", _say),
    "think": Command("/think TEXT", "thinks TEXT", _think),
    "call": Command("/call TOOL {JSON}", "calls a tool; several in one step are parallel", _call),
    "then": Command("/then", "what follows comes after the results of the calls above", _then),
    "stream": Command("/stream N [RATE]", 'streams the deltas "1 ", "2 ", … to N, RATE a second', _stream),
    "big": Command("/big N", "says N characters in one delta", _big),
    "unicode": Command("/unicode", "says awkward characters", _unicode),
    "stall": Command("/stall SECONDS", "is silent for so long", _stall),
    "fail": Command(
        "/fail [before|after] [STATUS] [xTIMES]",
        "the provider fails, before any output or after what stands above; with x2 only the first two times",
        _fail,
    ),
    "badjson": Command("/badjson TOOL", "calls a tool with input that is no JSON", _bad_json),
    "cutcall": Command("/cutcall TOOL", "calls a tool and is cut off by the length limit in its input", _cut_call),
    "unknown": Command("/unknown", "calls a tool that does not exist", _unknown),
    "interleave": Command("/interleave", "the pieces of this step's parallel calls come in turns", _interleave),
    "empty": Command("/empty", "an empty answer", _empty),
    "usage": Command("/usage IN OUT [CACHE_READ CACHE_WRITE]", "reports these tokens for the step", _usage),
    "tools": Command("/tools", "says which tools are on offer", _tools),
    "history": Command("/history", "says what came before this message", _history),
    "help": Command("/help", "lists the commands", _help),
}
