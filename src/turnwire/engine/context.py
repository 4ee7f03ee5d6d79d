"""What the model is given: the session's history in the agent library's messages, and how that is kept.

The history is a list of entries, each as JSON in the library's own format, wrapped with what is ours: the ids of the
calls. A `response` is one whole answer of a model; a `return` is one call's result; consecutive returns, and a prompt
behind them, are one request to the provider.

Every history that this module gives is one that every provider accepts: each call has its result right behind it, a
user's message never follows a user's message, no message is empty. The entries are written so (`agent.py` closes what
a broken turn leaves open in the transaction of its ending), and nothing here repairs them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pydantic_ai.messages import (
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

from turnwire.seams.store import HistoryEntry

FORMAT = 1
"""pydantic-ai 2's `ModelMessagesTypeAdapter`, one message to an entry, beside the ids of its calls."""

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


class History:
    """The messages so far, and where they leave off."""

    def __init__(self, entries: Iterable[HistoryEntry] = ()) -> None:
        self.messages: list[ModelMessage] = []
        self.open_calls: dict[str, Call] = {}
        """Calls of the last response that have no result yet, in their order."""
        self.last_turn_id = ""
        for entry in entries:
            self.add(entry)

    def add(self, entry: HistoryEntry) -> None:
        """Take the next entry."""
        assert entry.format == FORMAT, f"history of format {entry.format} was written by a newer turnwire"
        kept = msgspec.json.decode(entry.data, type=_Kept)
        [message] = ModelMessagesTypeAdapter.validate_json(bytes(kept.message))
        self.last_turn_id = entry.turn_id
        match message:
            case ModelResponse():
                self.messages.append(message)
                calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
                pairs = zip(kept.calls, calls, strict=True)
                self.open_calls = {id_: Call(id_, part, part.args_as_dict()) for id_, part in pairs}
            case ModelRequest():
                for id_ in kept.calls:
                    self.open_calls.pop(id_, None)
                self._add_request(message)

    def _add_request(self, message: ModelRequest) -> None:
        last = self.messages[-1] if self.messages else None
        if isinstance(last, ModelRequest):
            last.parts = [*last.parts, *message.parts]
        else:
            self.messages.append(message)

    @property
    def awaits_model(self) -> bool:
        """The last word is the user's, or a tool's: it is the model's turn."""
        return isinstance(self.messages[-1], ModelRequest) and not self.open_calls


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


def return_entry(call: Call, content: str, *, is_error: bool) -> HistoryEntry:
    """The result of a call."""
    part = ToolReturnPart(
        call.part.tool_name, content, call.part.tool_call_id, outcome="failed" if is_error else "success"
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
            setattr(part, name, _clean_value(value))


def _clean_value(value: Any) -> Any:
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(str(k)): _clean_value(v) for k, v in value.items()}  # pyright: ignore
        case list():
            return [_clean_value(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def clean_text(text: str) -> str:
    """`text` with U+FFFD in the place of lone surrogates."""
    return _SURROGATES.sub("\ufffd", text)
