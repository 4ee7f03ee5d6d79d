"""The driver for asyncio: flows are run with the HTTP library's asynchronous client."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

import httpx2

from turnwire.client import http
from turnwire.client.api import Api, Options
from turnwire.client.errors import ClientError
from turnwire.client.functions import is_async
from turnwire.client.records import Waiting
from turnwire.client.steps import (
    Broken,
    Course,
    Flow,
    Hangup,
    Outcome,
    Raised,
    Read,
    Reply,
    Request,
    Returned,
    Run,
    Send,
    Source,
    Step,
    Wait,
)
from turnwire.protocol.errors import RemoteProtocolError

T = TypeVar("T")


class AsyncWire:
    """The connections of a client."""

    def __init__(
        self,
        url: str,
        key: str | None,
        options: Options,
        on_wait: Callable[[Waiting], object] | None,
        http_client: httpx2.AsyncClient | None,
    ) -> None:
        self.api = Api(url, options)
        self.on_wait = on_wait
        self._owned = http_client is None
        self.calls = http_client or _client(url, key, http.LIMITS)
        self.streams = http_client or _client(url, key, http.FRESH)
        self.timeout = http.timeout(options)

    async def run(self, flow: Flow[T]) -> T:
        """The outcome of a flow that yields nothing but steps."""
        line, course = AsyncLine(self), Course(flow)
        try:
            while True:
                try:
                    step = course.next()
                except StopIteration as stop:
                    return stop.value
                await _perform(line, course, step)
        finally:
            await line.hangup()

    async def items(self, course: Course[Any], line: "AsyncLine") -> AsyncGenerator[Any, None]:
        """What a flow yields beside its steps."""
        while True:
            try:
                out = course.next()
            except StopIteration:
                return
            if isinstance(out, Step):
                await _perform(line, course, out)
            else:
                yield out

    async def iterate(self, flow: Generator[Any, Any, Any]) -> AsyncGenerator[Any, None]:
        """The same, of a flow from its beginning; leaving it hangs up."""
        line = AsyncLine(self)
        try:
            async for item in self.items(Course(flow), line):
                yield item
        finally:
            await line.hangup()

    async def close(self) -> None:
        if self._owned:
            await self.calls.aclose()
            await self.streams.aclose()


def _client(url: str, key: str | None, limits: httpx2.Limits) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(**http.settings(url, key, limits))


async def _perform(line: "AsyncLine", course: Course[Any], step: Step) -> None:
    try:
        with course.taken():
            value = await line.perform(step)
        course.done(value)
    except Broken as exc:
        course.broke(exc)


class AsyncLine:
    """At most one open answer, and what is done on it."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step) -> Any:
        """Do a step. Broken when the connection fails; when it is interrupted the open answer is closed."""
        try:
            match step:
                case Send(request, stream):
                    return await self._send(request, stream)
                case Read(timeout_s):
                    return await self._read(timeout_s)
                case Wait(seconds):
                    await self._wait(step, seconds)
                case Run(calls):
                    return await _outcomes(calls)
                case _:
                    assert isinstance(step, Hangup), step
                    await self.hangup()
        except (httpx2.LocalProtocolError, httpx2.InvalidURL) as exc:
            await self.hangup()
            raise ClientError(f"This request can't be sent: {str(exc).rstrip('.')}.") from exc
        except httpx2.RequestError as exc:
            await self.hangup()
            raise http.broken(exc) from exc
        except BaseException:
            await self.hangup()
            raise
        return None

    async def hangup(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            with suppress(httpx2.HTTPError):
                await response.aclose()

    async def _send(self, request: Request, stream: bool) -> Reply:
        await self.hangup()
        wire = self._wire
        client = wire.streams if stream else wire.calls
        body, headers = request.body, request.headers
        if isinstance(body, Source):
            headers = headers | ({} if body.size is None else {"Content-Length": str(body.size)})
        sent = client.build_request(
            request.method,
            wire.api.url + request.path,
            params=request.params or None,
            headers=headers,
            content=_pieces(body) if isinstance(body, Source) else body,
            timeout=wire.timeout,
        )
        response = await client.send(sent, stream=True)
        self._response = response
        if stream and response.is_success:
            http.keep_alive(response)
            return http.reply_of(response)
        whole = bytearray()
        async for chunk in response.aiter_bytes():
            whole += chunk
            if len(whole) > http.BODY_BYTES_MAX:
                raise RemoteProtocolError(f"The server's answer is longer than {http.BODY_BYTES_MAX} bytes.")
        await self.hangup()
        return http.reply_of(response, bytes(whole))

    async def _read(self, timeout_s: float) -> bytes:
        if self._response is None:
            raise Broken("the connection was closed", sent=True)
        if self._chunks is None:
            http.set_read_timeout(self._response, timeout_s)
            self._chunks = self._response.aiter_bytes()
        return await anext(self._chunks, b"")

    async def _wait(self, step: Wait, seconds: float) -> None:
        if self._wire.on_wait is not None:
            told = self._wire.on_wait(Waiting(step.why, seconds, step.tries, step.error))
            if inspect.isawaitable(told):
                await told
        await asyncio.sleep(seconds)


async def _pieces(source: Source) -> AsyncGenerator[bytes, None]:
    done = 0
    with await asyncio.to_thread(source.open) as file:
        while piece := await asyncio.to_thread(file.read, http.piece_bytes(source, done)):
            yield piece
            done += len(piece)
            if source.progress is not None:
                source.progress(done, source.size)
    http.check_whole(source, done)


async def _outcomes(calls: list[Callable[[], Any]]) -> list[Outcome]:
    """All at once; functions that are not async in threads. When this is cancelled, so are they."""
    tasks = [asyncio.ensure_future(_outcome(call)) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _outcome(call: Callable[[], Any]) -> Outcome:
    # In a thread the call's error is caught there: a StopIteration is none that a future can hold, and its await would
    # never end.
    outcome = _returned(call) if is_async(call) else await asyncio.to_thread(_returned, call)
    if isinstance(outcome, Raised) or not inspect.isawaitable(outcome.value):
        return outcome
    try:
        return Returned(await outcome.value)
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Raised(exc)  # of something that the function waited for: nobody has cancelled us
    except Exception as exc:
        return Raised(exc)


def _returned(call: Callable[[], Any]) -> Outcome:
    try:
        return Returned(call())
    except Exception as exc:
        return Raised(exc)
