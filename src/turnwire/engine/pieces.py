"""Any model's stream, as batches of pieces."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic_ai.messages import (
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.models import StreamedResponse

from turnwire.protocol.codec import encode_json
from turnwire.seams.model import Piece, PiecewiseStream


def pieces_of(stream: StreamedResponse) -> AsyncIterator[list[Piece]]:
    """The stream's own batches, if it has any; else one piece for each event of the agent library."""
    return stream.pieces() if isinstance(stream, PiecewiseStream) else _pieces_of_events(stream)


async def _pieces_of_events(stream: StreamedResponse) -> AsyncIterator[list[Piece]]:
    async for event in stream:
        piece = _piece_of(event)
        if piece is not None:
            yield [piece]


def _piece_of(event: ModelResponseStreamEvent) -> Piece | None:
    match event:
        # A part that starts may already carry its first content.
        case PartStartEvent(index=index, part=TextPart(content=content)):
            return Piece(index, "text", content)
        case PartStartEvent(index=index, part=ThinkingPart(content=content)):
            return Piece(index, "thinking", content)
        case PartStartEvent(index=index, part=ToolCallPart(tool_name=name, args=args)):
            return Piece(index, "call", _json_of(args), name)
        case PartDeltaEvent(index=index, delta=TextPartDelta(content_delta=content)):
            return Piece(index, "text", content)
        case PartDeltaEvent(index=index, delta=ThinkingPartDelta(content_delta=content)) if content:
            return Piece(index, "thinking", content)
        case PartDeltaEvent(index=index, delta=ToolCallPartDelta(args_delta=args)):
            return Piece(index, "call", _json_of(args))
        case _:
            return None


def _json_of(args: str | Mapping[str, Any] | None) -> str:
    match args:
        case None:
            return ""
        case str():
            return args
        case _:
            return encode_json(args).decode() if args else ""
