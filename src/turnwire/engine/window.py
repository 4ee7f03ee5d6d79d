"""How much of a model's context a conversation fills: by what the provider said of the last request, and an estimate
of what came since."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from turnwire.engine.context import History
from turnwire.engine.limits import (
    CONTEXT_SHARE_KEPT,
    CONTEXT_SHARE_MAX,
    MEDIA_BYTES,
    OUTPUT_SHARE_MAX,
    SUMMARY_SHARE_KEPT,
    SUMMARY_SHARE_MAX,
    TOKENS_PER_BYTE,
)


class Window:
    """The context of one model, in tokens, and what one turn's requests fill of it.

    `fixed_bytes`: what each request carries beside the messages: instructions and tools. `on_smaller` is told when
    the provider shows that the context is smaller than was thought.
    """

    def __init__(
        self,
        tokens: int,
        fixed_bytes: int,
        answer_tokens: int = 0,
        on_smaller: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.tokens = tokens
        self._fixed_bytes = fixed_bytes
        self._on_smaller = on_smaller
        # An answer that was asked to be long needs its room; but never so much that no conversation is left.
        self._limit = max(min(tokens * CONTEXT_SHARE_MAX, tokens - answer_tokens), tokens * 0.3)
        self._known_rate = TOKENS_PER_BYTE

    @property
    def output_bytes_max(self) -> int:
        """Bytes of the output of one tool call."""
        return int(self.tokens * OUTPUT_SHARE_MAX / TOKENS_PER_BYTE)

    @property
    def shown_bytes_max(self) -> int:
        """Bytes that the model is shown at once when it sums up."""
        return int(self.tokens * SUMMARY_SHARE_MAX / TOKENS_PER_BYTE)

    @property
    def summary_bytes_max(self) -> int:
        """Bytes of a summary."""
        return int(self.tokens * SUMMARY_SHARE_KEPT / TOKENS_PER_BYTE)

    def has_room(self, history: History) -> bool:
        """Whether it will be a while until the requests are too long."""
        return self.fill(history) < self._limit * 0.7

    def is_over(self, history: History) -> bool:
        """Whether the next request would be too long."""
        return self.fill(history) > self._limit

    def kept_bytes(self, history: History) -> int:
        """Bytes of the newest messages that stay as they are when the older ones are summed up."""
        room = self._limit * CONTEXT_SHARE_KEPT / self._rate(history) - self._fixed_bytes
        return max(int(room), 0)

    def was_too_long(self, history: History) -> None:
        """The provider refused this conversation: the context is smaller than was thought."""
        filled = self.fill(history)
        self._limit = min(self._limit, filled * 0.75)
        if filled < self.tokens:
            self.tokens = int(filled)
            self._on_smaller(self.tokens)

    def fill(self, history: History) -> float:
        """Tokens of the next request, about."""
        at = _last_told(history)
        if at is None:
            return (self._fixed_bytes + size(history.messages)) * self._known_rate
        response = history.messages[at]
        assert isinstance(response, ModelResponse)
        told = response.usage.input_tokens + response.usage.output_tokens
        return told + size(history.messages[at + 1 :]) * self._rate(history)

    def _rate(self, history: History) -> float:
        """Tokens to a byte of this conversation."""
        at = _last_told(history)
        if at is not None:
            response = history.messages[at]
            assert isinstance(response, ModelResponse)
            said = self._fixed_bytes + size(history.messages[:at])
            # A provider that counts otherwise, or images, must not lead far from what is possible.
            self._known_rate = min(max(response.usage.input_tokens / max(said, 1), 0.15), 1.0)
        return self._known_rate


def _last_told(history: History) -> int | None:
    """The last response whose provider said how long the request was, if that was with the history as it is now."""
    made_at = history.compaction.made_at
    newer = sum(isinstance(item.message, ModelResponse) for item in history.items if item.n >= made_at)
    for index in range(len(history.messages) - 1, -1, -1):
        message = history.messages[index]
        if isinstance(message, ModelResponse):
            if newer <= 0:
                return None
            if message.usage.input_tokens:
                return index
            newer -= 1
    return None


def size(messages: Sequence[ModelMessage]) -> int:
    """Bytes of what the messages say, about."""
    return sum(_size_of(part) for message in messages for part in message.parts)


def size_of_tools(schemas: Iterable[Any]) -> int:
    """Bytes of tool definitions."""
    return sum(len(json.dumps(schema, default=str)) for schema in schemas)


def _size_of(part: Any) -> int:
    match part:
        case TextPart(content=text) | ThinkingPart(content=text) | SystemPromptPart(content=text):
            return _bytes(text) + 8
        case ToolCallPart():
            return _bytes(part.args_as_json_str()) + len(part.tool_name) + 40
        case ToolReturnPart():
            return _size_of_content(part.content) + 40
        case UserPromptPart(content=content):
            return _size_of_content(content) + 8
        case _:
            return MEDIA_BYTES


def _size_of_content(content: Any) -> int:
    if isinstance(content, str):
        return _bytes(content)
    if isinstance(content, list | tuple):
        return sum(_size_of_content(item) for item in content)  # pyright: ignore[reportUnknownVariableType]
    return MEDIA_BYTES


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
