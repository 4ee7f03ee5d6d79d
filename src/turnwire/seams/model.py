"""What the engine asks of a model beside pydantic-ai's own `Model`: its answer in pieces, a batch at a time.

A model is any pydantic-ai `Model`. Its `request_stream()` gives a `StreamedResponse`; the engine reads that event
by event, which costs tens of microseconds a delta. A model that can do better returns a `StreamedResponse` that is
also a `PiecewiseStream`: all that came with one read of the socket is one list.
"""

from collections.abc import AsyncIterator
from typing import Literal, Protocol, runtime_checkable

import msgspec
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

ThinkingLevel = Literal["off", "low", "medium", "high"]
PieceKind = Literal["text", "thinking", "call"]


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A piece of a model's response, as it came.

    `part` numbers the parts of the response, from 0, in the order in which they began; pieces of several parts may
    alternate. `content` is text, or (kind `call`) a piece of the JSON text of the call's input; it may be empty.
    The first piece of a call carries its `name`.
    """

    part: int
    kind: PieceKind
    content: str
    name: str = ""


@runtime_checkable
class PiecewiseStream(Protocol):
    """A pydantic-ai `StreamedResponse` that also gives itself in batches.

    `pieces()` is iterated instead of the stream itself, to its end; after that `get()` and `usage` are those of the
    whole response, as with any `StreamedResponse`, and `get().parts[piece.part]` is the part a piece belongs to.
    It raises what `request_stream()` would raise; a stream that ends before the provider said it was complete raises
    `pydantic_ai.exceptions.ModelAPIError`.
    """

    def pieces(self) -> AsyncIterator[list[Piece]]:
        """All that came with one read, as one list, never empty."""
        ...


class ChosenModel(Protocol):
    """A model that a turn uses, and what is known of it."""

    @property
    def spec(self) -> str:
        """As its caller named it."""
        ...

    @property
    def model(self) -> Model: ...

    @property
    def tools(self) -> bool:
        """Whether it is offered tools."""
        ...

    @property
    def images(self) -> bool:
        """Whether it takes images."""
        ...

    @property
    def files(self) -> bool:
        """Whether it takes other files."""
        ...

    @property
    def context_tokens(self) -> int | None:
        """Tokens of its context, the answer included; None: it takes a conversation of any length."""
        ...

    def settings(self, thinking: ThinkingLevel | None) -> ModelSettings:
        """The provider's settings for a level of thinking; None: the server's default."""
        ...


class Models(Protocol):
    """The models of this server."""

    async def choose(self, spec: str | None) -> ChosenModel:
        """The model that a caller names, or the server's own for None. `InvalidRequest` when it can't be had."""
        ...


class ModelEntry(msgspec.Struct, frozen=True):
    """A model as `GET /v1/models` lists it. `thinking`: it can show its reasoning."""

    id: str
    provider: str
    default: bool
    tools: bool
    thinking: bool
    images: bool
