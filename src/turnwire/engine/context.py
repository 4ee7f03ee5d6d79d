"""What the model is given: the session's history in the agent library's messages, and how that is kept.

The history is a list of entries, each as JSON in the library's own format, wrapped with what is ours: the ids of the
calls. A `response` is one whole answer of a model; a `return` is one call's result; consecutive returns, and a prompt
behind them, are one request to the provider.

A conversation that grows too long is compacted (`compaction.py`): old outputs of tools are given shortened, and the
oldest entries are stood for by a summary. Both are a durable row, the `summary`, so that what the model is given stays
the same from step to step and over restarts, which is also what its provider's prompt cache wants.

Every history that this module gives is one that every provider accepts: each call has its result right behind it, a
user's message never follows a user's message, no message is empty. The entries are written so (`agent.py` closes what
a broken turn leaves open in the transaction of its ending), and nothing here repairs them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import msgspec
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)

from turnwire.engine.limits import OLD_OUTPUT_BYTES
from turnwire.seams.store import HistoryEntry

FORMAT = 1
"""pydantic-ai 2's `ModelMessagesTypeAdapter`, one message to an entry, beside the ids of its calls."""

IMAGE_LEFT_OUT = (
    "[An image was here. It is not shown any more: the conversation grew too long for it, or the model's provider "
    "refused it.]"
)
IMAGE_UNSEEN = "[An image is here, which this model can't see.]"

_SURROGATES = re.compile("[\ud800-\udfff]")


def warm_up() -> None:
    """Have the agent library build its validators of messages, some 0.3 s of work, before a turn would wait for it."""
    ModelMessagesTypeAdapter.rebuild()


class _Kept(msgspec.Struct):
    """An entry as stored. `calls`: our ids of the calls of a response, in order, or of the one that is answered."""

    message: msgspec.Raw
    calls: list[str] = []


class Call(msgspec.Struct, frozen=True):
    """A call of a response: our id, the provider's part, and its input, None where it is no JSON object."""

    id: str
    part: ToolCallPart
    input: dict[str, Any] | None


class Compaction(msgspec.Struct, frozen=True):
    """What was done so that the conversation fits into the model's context; numbers are those of entries.

    `text` is the summary of the entries before `upto`, outputs of tools before `shortened` are given shortened, images
    before `images_from` are left out, and `made_at` entries there were when this was done.
    """

    upto: int = 0
    text: str = ""
    shortened: int = 0
    made_at: int = 0
    images_from: int = 0


class Item(NamedTuple):
    """An entry of the history that no summary stands for."""

    n: int
    message: ModelMessage
    is_prompt: bool
    may_cut: bool
    """A summary may stand for what is before it: every call before it has its result before it."""
    image_bytes: int = 0
    """Of the images in it as it is stored, whether or not they are given."""


class History:
    """The messages so far, and where they leave off."""

    def __init__(self, entries: Iterable[HistoryEntry] = ()) -> None:
        self.items: list[Item] = []
        self.compaction = Compaction()
        self.open_calls: dict[str, Call] = {}
        """Calls of the last response that have no result yet, in their order."""
        self.last_turn_id = ""
        self._output_bytes_max = 0
        self._sees = True
        self._messages: list[ModelMessage] | None = None
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        """How many entries there are, those that a summary stands for included."""
        return self.compaction.upto + len(self.items)

    def add(self, entry: HistoryEntry) -> None:
        """Take the next entry."""
        assert entry.format == FORMAT, f"history of format {entry.format} was written by a newer turnwire"
        if entry.kind == "summary":
            self.compact(msgspec.json.decode(entry.data, type=Compaction))
            return
        kept = msgspec.json.decode(entry.data, type=_Kept)
        [message] = ModelMessagesTypeAdapter.validate_json(bytes(kept.message))
        image_bytes = sum(len(image.data) for image in images_of(message))
        if image_bytes and len(self) < self.compaction.images_from:
            # A long conversation may hold far more of them than this server's memory should.
            message = replace(message, parts=[_without_images(part, IMAGE_LEFT_OUT) for part in message.parts])
        self.last_turn_id = entry.turn_id
        self.items.append(Item(len(self), message, entry.kind == "prompt", not self.open_calls, image_bytes))
        match message:
            case ModelResponse():
                calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
                pairs = zip(kept.calls, calls, strict=True)
                self.open_calls = {id_: Call(id_, part, part.args_as_dict()) for id_, part in pairs}
            case ModelRequest():
                for id_ in kept.calls:
                    self.open_calls.pop(id_, None)
        if self._messages is not None:
            self._give(self._messages, self.items[-1])

    def compact(self, compaction: Compaction) -> None:
        """From now on the model is given the history so."""
        self.items = [item for item in self.items if item.n >= compaction.upto]
        self.compaction = compaction
        self._messages = None

    def limit_outputs(self, bytes_max: int) -> None:
        """From now on the model is given at most so many bytes of the output of one call; 0: all."""
        self._output_bytes_max = bytes_max
        self._messages = None

    def leave_out_images(self) -> None:
        """From now on the model is given no images: it can't see."""
        self._sees = False
        self._messages = None

    @property
    def messages(self) -> list[ModelMessage]:
        """What the model is given."""
        if self._messages is None:
            self._messages = []
            if self.compaction.text:
                self._messages.append(ModelRequest([UserPromptPart(self.compaction.text)]))
            for item in self.items:
                self._give(self._messages, item)
        return self._messages

    def _give(self, messages: list[ModelMessage], item: Item) -> None:
        message, last = item.message, messages[-1] if messages else None
        if not isinstance(message, ModelRequest):
            messages.append(message)
            return
        parts = [self._given(part, item.n) for part in message.parts]
        if isinstance(last, ModelRequest):
            messages[-1] = ModelRequest(list(_joined([*last.parts, *parts])))
        else:
            messages.append(ModelRequest(parts))

    def _given(self, part: ModelRequestPart, n: int) -> ModelRequestPart:
        if not self._sees or n < self.compaction.images_from:
            part = _without_images(part, IMAGE_LEFT_OUT if self._sees else IMAGE_UNSEEN)
        most = OLD_OUTPUT_BYTES if n < self.compaction.shortened else self._output_bytes_max
        return cast(ModelRequestPart, _with_shortened_output(part, most)) if most else part

    @property
    def awaits_model(self) -> bool:
        """The last word is the user's, or a tool's: it is the model's turn."""
        return isinstance(self.items[-1].message, ModelRequest) and not self.open_calls


def images_of(message: ModelMessage) -> list[BinaryContent]:
    """The images that a message carries to the model."""
    if not isinstance(message, ModelRequest):
        return []
    contents: list[Any] = [part.content for part in message.parts if isinstance(part, ToolReturnPart | UserPromptPart)]
    items = [item for content in contents if isinstance(content, list | tuple) for item in cast("list[Any]", content)]
    return [item for item in items if _is_image(item)]


def _is_image(item: Any) -> bool:
    return isinstance(item, BinaryContent) and item.is_image


def _without_images(part: Any, note: str) -> Any:
    """The part with a note in the place of each image."""
    match part:
        case ToolReturnPart(content=list()) if any(map(_is_image, part.files)):
            items: list[Any] = part.content_items()
            texts = [item for item in items if isinstance(item, str)]
            return replace(cast(Any, part), content="\n".join([*texts, note]))
        case UserPromptPart(content=content) if not isinstance(content, str) and any(map(_is_image, content)):
            return replace(part, content=[note if _is_image(item) else item for item in content])
        case _:
            return part


def _with_shortened_output(part: Any, most: int) -> Any:
    if isinstance(part, ToolReturnPart):
        return replace(cast(Any, part), content=_shortened_content(cast(Any, part).content, most))
    return part


def _shortened_content(content: Any, most: int) -> Any:
    match content:
        case str():
            return shortened(content, most)
        case list():
            return [_shortened_content(item, most) for item in cast("list[Any]", content)]
        case _:
            return content


def _joined(parts: Sequence[ModelRequestPart]) -> Iterator[ModelRequestPart]:
    """The parts, a summary and the user's message behind it as one: some chat templates refuse two in a row."""
    before: UserPromptPart | None = None
    for part in parts:
        if isinstance(part, UserPromptPart):
            before = part if before is None else UserPromptPart(_joined_contents(before.content, part.content))
        else:
            if before is not None:
                yield before
            before = None
            yield part
    if before is not None:
        yield before


def _joined_contents(
    first: str | Sequence[UserContent], second: str | Sequence[UserContent]
) -> str | Sequence[UserContent]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*([first] if isinstance(first, str) else first), *([second] if isinstance(second, str) else second)]


def shortened(text: str, most: int, what: str = "left out here; make the call again to see them") -> str:
    """`text`, its middle left out where it is longer than `most` bytes of UTF-8; says what is left out."""
    if len(text) * 4 <= most:
        return text
    data = text.encode(errors="replace")
    if len(data) <= most:
        return text
    head, tail = data[: most * 2 // 3], data[-(most // 3) :]
    left_out = len(data) - len(head) - len(tail)
    return f"{head.decode(errors='ignore')}\n[… {left_out} bytes are {what} …]\n{tail.decode(errors='ignore')}"


def summary_entry(compaction: Compaction) -> HistoryEntry:
    """What makes a compaction durable."""
    return HistoryEntry("summary", msgspec.json.encode(compaction), FORMAT, upto=compaction.upto)


def prompt_entry(content: str | Sequence[UserContent]) -> HistoryEntry:
    """A user's message."""
    return _entry("prompt", ModelRequest([UserPromptPart(content)]), [])


def response_entry(response: ModelResponse, call_ids: list[str]) -> HistoryEntry:
    """A model's whole response. An empty one says so: providers refuse a message without content."""
    parts = [part for part in response.parts if not (isinstance(part, TextPart) and not part.content)]
    if not any(not isinstance(part, ThinkingPart) for part in parts):
        parts.append(TextPart("(no answer)"))
    response.parts = parts
    return _entry("response", response, call_ids)


def return_entry(call: Call, content: str, *, is_error: bool, images: Sequence[BinaryContent] = ()) -> HistoryEntry:
    """The result of a call, with the images that the model is given beside the text."""
    part = ToolReturnPart(
        call.part.tool_name,
        [content, *images] if images else content,
        call.part.tool_call_id,
        outcome="failed" if is_error else "success",
    )
    return _entry("return", ModelRequest([part]), [call.id])


def note_entry(note: str, partial_text: str = "") -> HistoryEntry:
    """What stands for a response that did not come to its end: the text so far, and one note. Thinking that was cut
    off is not signed, so it is left out."""
    text = f"{partial_text}\n\n[{note}]" if partial_text.strip() else f"[{note}]"
    return _entry("response", ModelResponse([TextPart(text)]), [])


def _entry(kind: Any, message: ModelMessage, calls: list[str]) -> HistoryEntry:
    return HistoryEntry(kind, msgspec.json.encode(_Kept(msgspec.Raw(_dump(message)), calls)), FORMAT)


def _dump(message: ModelMessage) -> bytes:
    try:
        return ModelMessagesTypeAdapter.dump_json([message])
    except ValueError:  # lone surrogates, which no provider takes either
        for part in message.parts:
            _clean(part)
        return ModelMessagesTypeAdapter.dump_json([message])


def _clean(part: ModelRequestPart | Any) -> None:
    for name in ("content", "args"):
        value = getattr(part, name, None)
        if isinstance(value, str | dict | list):
            setattr(part, name, clean_value(value))


def clean_value(value: Any) -> Any:
    """A JSON value with U+FFFD in the place of lone surrogates."""
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(str(k)): clean_value(v) for k, v in value.items()}  # pyright: ignore
        case list():
            return [clean_value(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def clean_text(text: str) -> str:
    """`text` with U+FFFD in the place of lone surrogates."""
    return _SURROGATES.sub("\ufffd", text)
