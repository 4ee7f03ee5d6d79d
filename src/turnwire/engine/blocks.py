"""A model's response in pieces, made into the blocks of the wire.

The wire has one open block at a time. Parts that come one after another are written through as they come. Some
providers let the inputs of parallel calls alternate: then the later ones wait here until the open one is whole.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from turnwire.protocol.codec import decode_json
from turnwire.protocol.events import (
    Event,
    TextDelta,
    TextStart,
    TextStop,
    ThinkingDelta,
    ThinkingStart,
    ThinkingStop,
    ToolUseExecuting,
    ToolUseInputDelta,
    ToolUseStart,
    ToolUseStop,
)
from turnwire.protocol.ids import new_call_id
from turnwire.seams.model import Piece, PieceKind

_STARTS: dict[PieceKind, Event] = {"text": TextStart(), "thinking": ThinkingStart()}
_STOPS: dict[PieceKind, Event] = {"text": TextStop(), "thinking": ThinkingStop(), "call": ToolUseStop()}


class CallInput(msgspec.Struct):
    """A call while its input comes. `value` is the input when it is whole: None where it is no JSON object."""

    part: int
    id: str
    name: str
    pieces: list[str] = []
    value: dict[str, Any] | None = None
    closed: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class BlockWriter:
    """Pieces in, events out: `feed()` for each batch, `finish()` at the end of the response.

    `known_tools`: names of the tools there are; a call of another one gets no `executing`.
    """

    def __init__(self, known_tools: Iterable[str]) -> None:
        self.calls: dict[int, CallInput] = {}
        """The calls by the number of their part, in the order in which they began."""
        self._known = frozenset(known_tools)
        self._kind: PieceKind | None = None
        self._part = -1
        self._waiting: list[Piece] = []

    def was_told_of(self, part: int) -> bool:
        """Whether pieces of this part have come, those that wait included."""
        return part in self.calls or any(piece.part == part for piece in self._waiting)

    def feed(self, pieces: Iterable[Piece]) -> list[Event]:
        """The events that these pieces make."""
        events: list[Event] = []
        kind, part = self._kind, self._part
        for piece in pieces:
            # The hot path: one more delta of the open block.
            if piece.part == part and piece.kind == kind:
                if piece.content:
                    if kind == "text":
                        events.append(TextDelta(piece.content))
                    elif kind == "thinking":
                        events.append(ThinkingDelta(piece.content))
                    else:
                        self._extend_call(piece, events)
                continue
            self._switch(piece, events)
            kind, part = self._kind, self._part
        return events

    def finish(self, inputs: Mapping[int, str | Mapping[str, Any] | None] | None = None) -> list[Event]:
        """The response is whole: what waits is written, and the open block is closed.

        `inputs` names the whole input of calls by their part, where the response has more than its pieces told.
        """
        events: list[Event] = []
        self._close(events, inputs)
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            first = waiting[0].part
            events += self.feed([piece for piece in waiting if piece.part == first])
            self._close(events, inputs)
            self._waiting = [piece for piece in waiting if piece.part != first]
        return events

    def _switch(self, piece: Piece, events: list[Event]) -> None:
        """A piece that does not belong to the open block."""
        if piece.kind == "call" and piece.part in self.calls and self.calls[piece.part].closed:
            return  # its input was a whole object already: what comes behind one is no input
        if self._kind == "call" and not self._is_whole(self.calls[self._part]):
            self._waiting.append(piece)
            return
        if any(waiting.part == piece.part for waiting in self._waiting):
            self._waiting.append(piece)
            return
        if not piece.content and piece.kind != "call":
            return
        self._close(events)
        self._open(piece, events)

    def _open(self, piece: Piece, events: list[Event]) -> None:
        self._kind, self._part = piece.kind, piece.part
        if piece.kind == "call":
            call = CallInput(piece.part, new_call_id(), piece.name)
            self.calls[piece.part] = call
            events.append(ToolUseStart(call.name, call.id))
            if piece.content:
                self._extend_call(piece, events)
        else:
            events.append(_STARTS[piece.kind])
            events.append(TextDelta(piece.content) if piece.kind == "text" else ThinkingDelta(piece.content))

    def _extend_call(self, piece: Piece, events: list[Event]) -> None:
        self.calls[piece.part].pieces.append(piece.content)
        events.append(ToolUseInputDelta(piece.content))

    def _is_whole(self, call: CallInput) -> bool:
        return parse_input(call.text) is not None and call.text.strip() != ""

    def _close(self, events: list[Event], inputs: Mapping[int, str | Mapping[str, Any] | None] | None = None) -> None:
        if self._kind is None:
            return
        if self._kind == "call":
            call = self.calls[self._part]
            whole = (inputs or {}).get(call.part)
            call.value = (
                dict(whole) if isinstance(whole, Mapping) else parse_input(call.text if whole is None else whole)
            )
            call.closed = True
            if call.value is not None and call.name in self._known:
                events.append(ToolUseExecuting(call.name, call.id, call.value))
        events.append(_STOPS[self._kind])
        self._kind, self._part = None, -1


def parse_input(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is; {} for no text at all; None when it is anything else."""
    if not text.strip():
        return {}
    try:
        value = decode_json(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]
