"""A model request, read to its end within its time limits; and when one that failed is made again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from turnwire.engine.limits import RETRY_DELAY_MAX_S, RETRY_DELAY_S
from turnwire.engine.pieces import pieces_of
from turnwire.engine.trouble import Silence, Trouble, is_provider_error
from turnwire.protocol.events import Usage
from turnwire.seams.model import ChosenModel, Piece


@dataclass(frozen=True)
class StepLimits:
    """How patient a step is. Seconds; the server's settings."""

    first_token_timeout_s: float = 300.0
    next_token_timeout_s: float = 120.0
    step_retries: int = 2
    """How often a step that had shown something is made again when its provider breaks off."""


async def ask(
    model: ChosenModel,
    messages: list[ModelMessage],
    settings: ModelSettings,
    parameters: ModelRequestParameters,
    context: RunContext[Any],
    limits: StepLimits,
    show: Callable[[list[Piece]], Awaitable[None]],
) -> StreamedResponse:
    """Make a request, and give what comes to `show`. The stream that is the answer has come to its end."""
    scope = asyncio.timeout(limits.first_token_timeout_s)
    first = True
    try:
        async with scope:
            async with model.model.request_stream(messages, settings, parameters, context) as stream:
                async for pieces in _punctual(pieces_of(stream), scope, limits.next_token_timeout_s):
                    first = False
                    await show(pieces)
                return stream
    except TimeoutError as exc:
        if not scope.expired():
            raise
        raise Silence(limits.first_token_timeout_s if first else limits.next_token_timeout_s, first=first) from exc


async def _punctual(
    batches: AsyncIterator[list[Piece]], scope: asyncio.Timeout, limit_s: float
) -> AsyncIterator[list[Piece]]:
    """The batches, each within `limit_s` of the one before. The timer is moved once a second, not for each batch."""
    loop = asyncio.get_running_loop()
    moved = -1.0
    async for batch in _read(batches):
        now = loop.time()
        if now - moved > 1:
            moved = now
            scope.reschedule(now + limit_s + 1)
        yield batch


async def _read(batches: AsyncIterator[list[Piece]]) -> AsyncIterator[list[Piece]]:
    """The batches. The vendors' SDKs stumble over JSON that is not of their format in whatever way: the provider sent
    it, so it is no failure of this program."""
    try:
        async for batch in batches:
            yield batch
    except Exception as exc:
        if is_provider_error(exc):
            raise
        raise UnexpectedModelBehavior(f"What the provider sent could not be read: {exc!r}") from exc


def delay_s(attempts: int, trouble: Trouble) -> float:
    """Seconds to wait before a request is made again."""
    delay = min(RETRY_DELAY_S * 2 ** (attempts - 1), RETRY_DELAY_MAX_S)
    return max(delay, trouble.retry_after_s or 0)


def usage_of(usage: RequestUsage, calls: int = 0) -> Usage:
    """The usage of one request, as the wire has it."""
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        requests=1,
        tool_calls=calls,
    )
