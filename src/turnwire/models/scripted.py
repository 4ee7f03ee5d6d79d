"""The scripted model: `scripted:FILE.yaml` plays a written scenario, for tests of clients.

A scenario is a list of steps; a step is one response of the model. The step that answers a request is the one whose
number is the count of the model's responses in the conversation, so a restart changes nothing, and a new session
begins at the first. After the last step the model says that the scenario has ended, or begins again with
`repeat: true`. The format, whole:

    name: weather                 # optional; shown when the scenario has ended
    repeat: false                 # optional
    steps:
      - play:                     # what the response is made of, in order; may be empty
          - thinking: Let me look.
          - text: One moment.
            rate: 20              # optional, also for thinking: deltas per second
          - deltas: ["Os", "lo"]  # text in exactly these deltas
          - delay: 0.5            # seconds of silence
          - call: get_weather
            input: {city: Oslo}   # or raw_input: the text of the input as it stands, valid JSON or not
          - error: Overloaded.    # the provider fails
            when: after           # `before` any output (the default), or `after` what stands above
            status: 529           # of a failure `before`
            times: 1              # only so many attempts at this step fail; without it, all
        usage: {input_tokens: 12, output_tokens: 5, cache_read_tokens: 0, cache_write_tokens: 0}
        finish: stop              # optional: stop, length, content_filter, tool_call
        interleave: false         # optional: the pieces of neighbouring calls come in turns

`docs/guides/scripted.md` says the same with an example.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
import yaml
from msgspec import Meta, Struct
from pydantic_ai.messages import FinishReason, ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.usage import RequestUsage

from turnwire.models.errors import ModelUnavailable
from turnwire.models.played import Act, Answer, Fail, Part, PlayedModel, Wait, slices, words

# A scenario is written by hand; anything larger is a slip, and would be read into memory whole.
FILE_BYTES_MAX = 16 * 1024 * 1024

Rate = Annotated[float, Meta(gt=0)] | None
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Tokens = Annotated[int, Meta(ge=0)]
T = TypeVar("T")
NotEmpty = Annotated[str, Meta(min_length=1)]


class Text(Struct, forbid_unknown_fields=True):
    """`text`, a word a delta."""

    text: NotEmpty
    rate: Rate = None

    def act(self) -> Act:
        return Part("text", words(self.text), rate=self.rate)


class Deltas(Struct, forbid_unknown_fields=True):
    """`deltas`: text, in just these pieces."""

    deltas: Annotated[list[NotEmpty], Meta(min_length=1)]
    rate: Rate = None

    def act(self) -> Act:
        return Part("text", tuple(self.deltas), rate=self.rate)


class Thinking(Struct, forbid_unknown_fields=True):
    """`thinking`, a word a delta."""

    thinking: NotEmpty
    rate: Rate = None

    def act(self) -> Act:
        return Part("thinking", words(self.thinking), rate=self.rate)


class Delay(Struct, forbid_unknown_fields=True):
    """`delay`: silence, in seconds."""

    delay: Seconds

    def act(self) -> Act:
        return Wait(self.delay)


class Call(Struct, forbid_unknown_fields=True):
    """`call`: a tool, with its input as a mapping or as the text that it is to have."""

    call: NotEmpty
    input: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    raw_input: str | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.input is not msgspec.UNSET and self.raw_input is not msgspec.UNSET:
            raise ValueError("`input` and `raw_input` exclude each other")
        self.text()

    def text(self) -> str:
        if isinstance(self.raw_input, str):
            return self.raw_input
        try:
            return msgspec.json.encode({} if self.input is msgspec.UNSET else self.input).decode()
        except TypeError as error:
            raise ValueError(f"`input` can't be written as JSON: {error}") from None

    def act(self) -> Act:
        return Part("call", slices(self.text()), self.call)


class Error(Struct, forbid_unknown_fields=True):
    """`error`: the provider fails with this message."""

    error: NotEmpty
    when: Literal["before", "after"] = "before"
    status: Annotated[int, Meta(ge=400, le=599)] = 503
    times: Annotated[int, Meta(ge=1)] | None = None

    def act(self) -> Act:
        return Fail(self.when, self.error, self.status, self.times)


class Usage(Struct, forbid_unknown_fields=True):
    """What the response is said to have cost."""

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cache_read_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0

    def request_usage(self) -> RequestUsage:
        return RequestUsage(**msgspec.structs.asdict(self))


class Step(Struct, forbid_unknown_fields=True):
    """One response. `play` is checked act by act, so that an error names what kind of act it is in."""

    play: list[Any]
    usage: Usage | None = None
    finish: Literal["stop", "length", "content_filter", "tool_call"] | None = None
    interleave: bool = False


class Scenario(Struct, forbid_unknown_fields=True):
    """The file."""

    steps: Annotated[list[Step], Meta(min_length=1)]
    name: str = ""
    repeat: bool = False


ActModel = Text | Deltas | Thinking | Delay | Call | Error
# The key that says which kind of act a mapping is.
ACTS: dict[str, type[ActModel]] = {
    "text": Text,
    "deltas": Deltas,
    "thinking": Thinking,
    "delay": Delay,
    "call": Call,
    "error": Error,
}


class ScriptedModel(PlayedModel):
    """`scripted:FILE`. Reads the file at once, and raises `ModelUnavailable` with the place of what is wrong in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"scripted:{path.name}")
        scenario, self._answers = read_scenario(path)
        self._repeat = scenario.repeat
        self._title = scenario.name or path.name

    def answer(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> Answer:
        done = sum(isinstance(message, ModelResponse) for message in messages)
        steps = len(self._answers)
        if done < steps or self._repeat:
            return self._answers[done % steps]
        text = f"The scenario “{self._title}” has ended: it has {steps} step{'s' if steps > 1 else ''}."
        return Answer((Part("text", words(text)),))


def read_scenario(path: Path) -> tuple[Scenario, list[Answer]]:
    """The scenario and its steps as answers; raises `ModelUnavailable`."""
    text = _read(path)
    try:
        node = _compose(text)
        if node is not None:
            _check_keys(path, node)
        data: object = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ModelUnavailable(f"The scenario {path} is no valid YAML: {_one_line(error)}.") from None
    scenario = _convert(path, node, data, Scenario, "$")
    answers = [_answer(path, node, step, f"$.steps[{i}]") for i, step in enumerate(scenario.steps)]
    return scenario, answers


def _compose(text: str) -> yaml.Node | None:
    # The stubs leave this function untyped.
    compose = cast("Callable[..., yaml.Node | None]", yaml.compose)  # pyright: ignore[reportUnknownMemberType]
    return compose(text, Loader=yaml.SafeLoader)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ModelUnavailable(f"The scenario {path} can't be read: {error.strerror}.") from error
    if len(data) > FILE_BYTES_MAX:
        raise ModelUnavailable(f"The scenario {path} is larger than {FILE_BYTES_MAX >> 20} MiB.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ModelUnavailable(f"The scenario {path} is not UTF-8.") from None


def _answer(path: Path, root: yaml.Node | None, step: Step, place: str) -> Answer:
    acts = [_act(path, root, raw, f"{place}.play[{i}]") for i, raw in enumerate(step.play)]
    finish: FinishReason = "tool_call" if any(isinstance(a, Part) and a.kind == "call" for a in acts) else "stop"
    usage = step.usage.request_usage() if step.usage else None
    return Answer(tuple(acts), usage, step.finish or finish, step.interleave)


def _act(path: Path, root: yaml.Node | None, raw: object, place: str) -> Act:
    keys = cast("dict[object, object]", raw) if isinstance(raw, dict) else {}
    kinds = [kind for kind in ACTS if kind in keys]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none"
        raise _wrong(path, root, place, f"an act has exactly one of {', '.join(ACTS)}; here is {found}")
    return _convert(path, root, cast(object, raw), ACTS[kinds[0]], place).act()


def _convert(path: Path, root: yaml.Node | None, data: object, into: type[T], place: str) -> T:
    try:
        return msgspec.convert(data, into)
    except msgspec.ValidationError as error:
        found = re.fullmatch(r"(.*?)(?: - at (?:`key` in )?`\$(.*)`)?", str(error), re.DOTALL)
        reason, inner = (found[1], found[2] or "") if found else (str(error), "")
        raise _wrong(path, root, place + inner, _one_line(reason)) from None


def _wrong(path: Path, root: yaml.Node | None, place: str, reason: str) -> ModelUnavailable:
    steps = _path_of(place)
    line = _line_of(root, steps)
    shown = place.removeprefix("$").removeprefix(".") or "the file"
    reason = reason.rstrip(".")
    return ModelUnavailable(f"The scenario {path} is wrong at {shown}{f' (line {line})' if line else ''}: {reason}.")


def _path_of(place: str) -> Iterator[str | int]:
    """`$.steps[0].play[2]` → steps, 0, play, 2."""
    for part in place.replace("[", ".[").split(".")[1:]:
        yield int(part[1:-1]) if part.startswith("[") and part[1:-1].isdigit() else part


def _line_of(node: yaml.Node | None, path: Iterator[str | int]) -> int | None:
    """The line of the deepest node on the path that is in the file."""
    for step in path:
        inner = _child(node, step)
        if inner is None:
            break
        node = inner
    return node.start_mark.line + 1 if node is not None else None


def _child(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]
    return None


def _check_keys(path: Path, node: yaml.Node) -> None:
    """A key that stands twice is refused: YAML readers keep the last in silence."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(path, item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise ModelUnavailable(f"The scenario {path} has the key {key.value!r} twice (line {line}).")
            seen.add(str(key.value))
            _check_keys(path, value)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")
