"""Leaving out the oldest of a conversation, for models whose context is short."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic_ai.messages import ModelMessage, ModelRequest, SystemPromptPart, UserPromptPart

from turnwire.models.played import texts

# English is some 4 characters a token, code 3, other scripts fewer characters but more bytes each.
BYTES_PER_TOKEN = 3
# A message's role and its marks in the chat template.
TOKENS_PER_MESSAGE = 8


def fitted(messages: list[ModelMessage], tokens: int) -> list[ModelMessage]:
    """The latest turns of the conversation that fit into so many tokens, by a rough estimate; at least the last.

    A turn goes as a whole, from a user's message to the next, so that no call is parted from its result. System prompts
    stay.
    """
    turns = list(_turns(messages))
    if not turns:
        return messages
    kept = [turns.pop()]
    left = tokens - _tokens(kept[0])
    while turns and (left := left - _tokens(turns[-1])) >= 0:
        kept.insert(0, turns.pop())
    if not turns:
        return messages
    first, *rest = (message for turn in kept for message in turn)
    prompts = [part for turn in turns for m in turn for part in m.parts if isinstance(part, SystemPromptPart)]
    if prompts and isinstance(first, ModelRequest):
        first = replace(first, parts=[*prompts, *first.parts])
    return [first, *rest]


def _turns(messages: Sequence[ModelMessage]) -> Iterator[list[ModelMessage]]:
    turn: list[ModelMessage] = []
    for message in messages:
        if turn and any(isinstance(part, UserPromptPart) for part in message.parts):
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn


def _tokens(turn: list[ModelMessage]) -> int:
    size = sum(len(text.encode(errors="replace")) for message in turn for text in texts(message))
    return size // BYTES_PER_TOKEN + TOKENS_PER_MESSAGE * len(turn)
