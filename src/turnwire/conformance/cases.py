"""Cases as values, read from the TOML files in `cases/`. A file that is not of this form is refused, and says where.

A case is a list of steps, done in order. Steps share variables: what one saves, later ones use as `${name}`. What a
stream is called by its step (`as`), later ones read on, hang up or compare.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta


class StepBase(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True, kw_only=True):
    """Any step. `rule`: the rule that is broken when it fails, where that is not the case's first."""

    rule: str | None = None


class Send(StepBase, frozen=True, tag="send", kw_only=True):
    """A request and its whole answer."""

    request: str
    """Method and path."""
    body: Any = msgspec.UNSET
    """Sent as JSON."""
    text: str | None = None
    """Sent as it stands."""
    hex: str | None = None
    padding: int = 0
    """So many bytes of white space are sent behind the body."""
    chunked: bool = False
    headers: dict[str, str] = {}
    auth: Annotated[str, Meta(pattern="^(key|none|other|wrong)$")] = "key"
    status: int | list[int]
    error: str | None = None
    """The short name of an error."""
    json: Any = msgspec.UNSET
    """What the answer must match."""
    content: str | None = None
    """What the body must be, to the byte."""
    has_headers: dict[str, str] = {}
    save: dict[str, str] = {}
    """Variables from the answer's JSON: name → path, such as `results.0.id`."""
    save_headers: dict[str, str] = {}
    may_be_missing: bool = False
    """A 404 or 405 here means that the server does not offer what the case is about."""


class Has(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events of this type that a stream must hold: `data` is matched by each, or by one at least."""

    event: str
    data: Any = msgspec.UNSET
    count: int | None = None
    save: dict[str, str] = {}
    """Variables from the first one's data: name → path."""


class StreamStep(StepBase, frozen=True, kw_only=True):
    """What a step that reads a stream expects of it, beside all that every stream must be."""

    name: str = msgspec.field(default="main", name="as")
    until: str | None = None
    """Read to this event, and leave the stream open; else to its end."""
    until_heartbeat: bool = False
    events: str | None = None
    """The types of all events so far: names, with `*`, `+`, `?`, `|` and brackets as in a regular expression."""
    text: str | None = None
    """The text of all text blocks, joined."""
    has: list[Has] = []


class Message(StreamStep, frozen=True, tag="message", kw_only=True):
    """A message to the session, whose stream is read."""

    say: str = ""
    """The behaviour whose message is sent."""
    body: dict[str, Any] = {}
    """Further fields of the body."""
    headers: dict[str, str] = {}
    path: str = "/v1/sessions/${session}/messages"


class Replay(StreamStep, frozen=True, tag="replay", kw_only=True):
    """A response's events, after one of them."""

    path: str = "/v1/sessions/${session}/responses/${response}/events"
    after: str | None = None
    by: Annotated[str, Meta(pattern="^(header|query)$")] = "header"
    auth: Annotated[str, Meta(pattern="^(key|none)$")] = "key"


class Read(StreamStep, frozen=True, tag="read", kw_only=True):
    """Reads on a stream that was left open."""


class HangUp(StepBase, frozen=True, tag="hang_up", kw_only=True):
    name: str = msgspec.field(default="main", name="as")


class CutOff(StepBase, frozen=True, tag="cut_off", kw_only=True):
    """The open stream ends with message.cancelled, or its connection breaks: never a clean end without an ending."""

    name: str = msgspec.field(default="main", name="as")


class Wait(StepBase, frozen=True, tag="wait", kw_only=True):
    """A request made again and again until its answer matches."""

    request: str
    json: Any


class Parallel(StepBase, frozen=True, tag="parallel", kw_only=True):
    """The same request from several clients at once: how often each status must come back."""

    request: str
    body: Any
    headers: dict[str, str] = {}
    times: int
    statuses: dict[str, int]
    same_response: bool = False
    """Whether the X-Response-Id of all answers with 200 must be one."""


class Same(StepBase, frozen=True, tag="same", kw_only=True):
    """Streams that must show the same events, where they show the same numbers; `from_`: where the second begins."""

    streams: list[str]
    starts_at: str = "0"


class Fold(StepBase, frozen=True, tag="fold", kw_only=True):
    """The conversation must be what the events of a stream fold to."""

    name: str = msgspec.field(default="main", name="as")


class RawBytes(StepBase, frozen=True, tag="raw", kw_only=True):
    """Bytes that are no request."""

    send: str
    status: int
    error: str


Step = Send | Message | Replay | Read | HangUp | CutOff | Wait | Parallel | Same | Fold | RawBytes


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One case."""

    id: Annotated[str, Meta(pattern="^[a-z0-9-]+$")]
    title: str
    rules: Annotated[list[Annotated[str, Meta(pattern=r"^P-\d+\.\d+$")]], Meta(min_length=1)]
    """The rules of PROTOCOL.md that it shows; the first is the one it is about."""
    needs: list[str] = []
    """Behaviours of the model."""
    session: dict[str, Any] | bool = {}
    """The body that makes its session; false: it needs none."""
    other_tenant: bool = False
    limit_s: float = 20.0
    """Seconds that it may take."""
    steps: list[Step]


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: list[Case]


class Behaviours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to say to a model so that it behaves in a certain way."""

    behaviours: dict[str, dict[str, Any]]
    """Name → `message`, and what the cases expect beside."""
    model: str | None = None
    """The model that they are for; the sessions ask for it."""


class CaseFileError(Exception):
    """A file is not of its form: one sentence."""

    exit_code = 2


def load_cases() -> list[Case]:
    """All cases that the kit comes with, by file and in their order."""
    folder = resources.files("turnwire.conformance") / "cases"
    cases: list[Case] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            cases += _convert(file.name, file.read_text("utf-8"), CaseFile).case
    return cases


def load_behaviours(path: Path | None) -> Behaviours:
    """The behaviours in a file; without one, those of the demo model."""
    if path is None:
        text = (resources.files("turnwire.conformance") / "demo.toml").read_text("utf-8")
        return _convert("demo.toml", text, Behaviours)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CaseFileError(f"{path} can't be read: {exc}.") from exc
    found = _convert(str(path), text, Behaviours)
    for name, behaviour in found.behaviours.items():
        if not isinstance(behaviour.get("message"), str):
            raise CaseFileError(f"{path}: behaviours.{name} has no message.")
    return found


def _convert(name: str, text: str, type_: type[Any]) -> Any:
    try:
        return msgspec.convert(tomllib.loads(text), type_)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise CaseFileError(f"{name}: {exc}.") from exc
