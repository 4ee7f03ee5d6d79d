"""What feeds the vendor's class for streams of Chat Completions: the socket, or what is handed over."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from json import loads as json_loads
from typing import Any, Final, cast

import httpx2
import msgspec
from openai import APIError, AsyncStream
from openai.types.chat import ChatCompletionChunk
from pydantic_ai.exceptions import ModelAPIError, ModelConnectionError, ModelTimeoutError
from pydantic_ai.messages import PartEndEvent, TextPart

from turnwire.models.aiohttp_transport import BODY_EXTENSION, ResponseBody
from turnwire.models.openai_chat_wire import ErrorPayload, EventSplitter, TooLongError

DRAIN_TIMEOUT_S = 0.1
"""How long the end of the body is waited for after `[DONE]`, so that the connection can be used again."""


class ChunkSource:
    """What the vendor's class reads instead of the SDK's `AsyncStream`: the socket's chunks, or the inbox's.

    Iterated, it reads the socket and gives chunk after chunk. When `FastStreamedResponse.pieces()` does the
    reading, it puts what is not plain into the inbox, followed by a `MARK`, before it asks the vendor's
    class for events.
    """

    def __init__(
        self, stream: AsyncStream[ChatCompletionChunk], model_name: str, scrub: Callable[[bytes], bytes]
    ) -> None:
        self.inbox: deque[bytes | ChatCompletionChunk] = deque()
        self.last: ChatCompletionChunk | None = None
        """The chunk that was handed over last."""
        self._stream = stream
        # The SDK's own decoding would look into the request's options; ours does not, and they hold the conversation.
        vars(stream).pop("_options", None)
        self._body: ResponseBody = stream.response.extensions[BODY_EXTENSION]
        self._model_name = model_name
        self._scrub = scrub
        self._splitter = EventSplitter()
        self._unread: list[bytes] = []
        self._over = False
        self._has_finish_reason = False

    async def check_content_type(self) -> None:
        """A page or a JSON object with status 200 is not an answer."""
        came = self._stream.response.headers.get("content-type", "")
        if came and came.split(";")[0].strip().lower() != "text/event-stream":
            raise self._error(f"The provider answered with {came[:80]!r} instead of an event stream.")

    async def read(self) -> list[bytes]:
        """The data of the events that came with one read; empty when the stream is over."""
        if self._unread:
            unread, self._unread = self._unread, []
            return unread
        while not self._over:
            try:
                block = await self._body.read()
                payloads = self._splitter.feed(block)
            except httpx2.TimeoutException as exc:
                raise ModelTimeoutError(self._model_name, str(exc), phase="read") from exc
            except httpx2.TransportError as exc:
                raise ModelConnectionError(self._model_name, str(exc), phase="read") from exc
            except TooLongError as exc:
                raise self._error("The provider sent an event of more than 16 MiB.") from exc
            self._over = not block or self._splitter.done
            if payloads:
                return payloads
        if not self._splitter.done and not self._has_finish_reason:
            raise self._error("The provider's stream broke off before it was complete.")
        await self._drain()
        return []

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while await self._body.read():
                    pass

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        if not self.inbox:
            self._unread = await self.read()
            if not self._unread:
                raise StopAsyncIteration
            self.inbox.append(self._unread.pop(0))
        item = self.inbox.popleft()
        if not isinstance(item, bytes):
            return item
        self.last = chunk = self._chunk(item)
        if chunk.choices and chunk.choices[0].finish_reason:
            self._has_finish_reason = True
        return chunk

    async def close(self) -> None:
        await self._stream.close()

    def _chunk(self, payload: bytes) -> ChatCompletionChunk:
        """As the SDK's `AsyncStream` decodes it."""
        try:
            data: object = json_loads(payload.decode())
        except (ValueError, RecursionError) as exc:
            raise self._error("The provider sent a data line that is not JSON.") from exc
        if not isinstance(data, dict):
            raise self._error("The provider sent a data line that is not a JSON object.")
        fields = cast("dict[str, Any]", data)
        if fields.get("error") or isinstance(payload, ErrorPayload):
            raise self._provider_error(fields)
        return ChatCompletionChunk.model_construct(**fields)

    def _provider_error(self, fields: dict[str, Any]) -> APIError:
        clean = cast("dict[str, Any]", json_loads(self._scrub(msgspec.json.encode(fields))))
        error = clean.get("error") or clean
        message = cast("dict[str, Any]", error).get("message") if isinstance(error, dict) else error
        if not message or not isinstance(message, str):
            message = "An error occurred during streaming"
        return APIError(message, self._stream.response.request, body=cast("object", error))

    def _error(self, message: str) -> ModelAPIError:
        return ModelAPIError(self._model_name, message)


def _mark_chunk() -> ChatCompletionChunk:
    return ChatCompletionChunk.model_construct(
        id="", created=0, model="", object="chat.completion.chunk", choices=[{"index": 0, "delta": {}}]
    )


MARK: Final = _mark_chunk()
"""A chunk that says nothing. The vendor's class has handled all before it when it comes to its choice …"""
MARK_EVENT: Final = PartEndEvent(index=-1, part=TextPart(""))
"""… and this event, which passes all of pydantic-ai's stages unchanged, comes out at their end."""
