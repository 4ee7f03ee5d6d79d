"""The driver for threads: flows are run with the HTTP library's blocking client."""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

import httpx2

from turnwire.client import http
from turnwire.client.api import Api, Options
from turnwire.client.errors import ClientError
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


class Wire:
    """The connections of a client."""

    def __init__(
        self,
        url: str,
        key: str | None,
        options: Options,
        on_wait: Callable[[Waiting], object] | None,
        http_client: httpx2.Client | None,
    ) -> None:
        self.api = Api(url, options)
        self.on_wait = on_wait
        self._make = None if http_client is not None else partial(_client, url, key)
        self._inherited: list[httpx2.Client] = []
        self.calls = http_client or _client(url, key, http.LIMITS)
        self.streams = http_client or _client(url, key, http.FRESH)
        self.timeout = http.timeout(options)
        _wires.add(self)

    def after_fork(self) -> None:
        """In a child process: what the parent has open is the parent's, and two would read each other's answers."""
        if self._make is not None:
            self._inherited += [self.calls, self.streams]  # kept, as nobody here is to close them
            self.calls, self.streams = self._make(http.LIMITS), self._make(http.FRESH)

    def run(self, flow: Flow[T]) -> T:
        """The outcome of a flow that yields nothing but steps."""
        line, course = Line(self), Course(flow)
        try:
            while True:
                try:
                    step = course.next()
                except StopIteration as stop:
                    return stop.value
                _perform(line, course, step)
        finally:
            line.hangup()

    def items(self, course: Course[Any], line: "Line") -> Iterator[Any]:
        """What a flow yields beside its steps."""
        while True:
            try:
                out = course.next()
            except StopIteration:
                return
            if isinstance(out, Step):
                _perform(line, course, out)
            else:
                yield out

    def iterate(self, flow: Generator[Any, Any, Any]) -> Iterator[Any]:
        """The same, of a flow from its beginning; leaving it hangs up."""
        line = Line(self)
        try:
            yield from self.items(Course(flow), line)
        finally:
            line.hangup()

    def close(self) -> None:
        if self._make is not None:
            self.calls.close()
            self.streams.close()


_wires: "WeakSet[Wire]" = WeakSet()


def _after_fork() -> None:
    for wire in list(_wires):
        wire.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _client(url: str, key: str | None, limits: httpx2.Limits) -> httpx2.Client:
    return httpx2.Client(**http.settings(url, key, limits))


def _perform(line: "Line", course: Course[Any], step: Step) -> None:
    try:
        with course.taken():
            value = line.perform(step)
        course.done(value)
    except Broken as exc:
        course.broke(exc)


class Line:
    """At most one open answer, and what is done on it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def perform(self, step: Step) -> Any:
        """Do a step. Broken when the connection fails; when it is interrupted the open answer is closed."""
        try:
            match step:
                case Send(request, stream):
                    return self._send(request, stream)
                case Read(timeout_s):
                    return self._read(timeout_s)
                case Wait(seconds):
                    self._wait(step, seconds)
                case Run(calls):
                    return [_outcome(call) for call in calls]
                case _:
                    assert isinstance(step, Hangup), step
                    self.hangup()
        except (httpx2.LocalProtocolError, httpx2.InvalidURL) as exc:
            self.hangup()
            raise ClientError(f"This request can't be sent: {str(exc).rstrip('.')}.") from exc
        except httpx2.RequestError as exc:
            self.hangup()
            raise http.broken(exc) from exc
        except BaseException:
            self.hangup()
            raise
        return None

    def hangup(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            with suppress(httpx2.HTTPError):
                response.close()

    def _send(self, request: Request, stream: bool) -> Reply:
        self.hangup()
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
        response = client.send(sent, stream=True)
        self._response = response
        if stream and response.is_success:
            http.keep_alive(response)
            return http.reply_of(response)
        whole = bytearray()
        for chunk in response.iter_bytes():
            whole += chunk
            if len(whole) > http.BODY_BYTES_MAX:
                raise RemoteProtocolError(f"The server's answer is longer than {http.BODY_BYTES_MAX} bytes.")
        self.hangup()
        return http.reply_of(response, bytes(whole))

    def _read(self, timeout_s: float) -> bytes:
        if self._response is None:
            raise Broken("the connection was closed", sent=True)
        if self._chunks is None:
            http.set_read_timeout(self._response, timeout_s)
            self._chunks = self._response.iter_bytes()
        return next(self._chunks, b"")

    def _wait(self, step: Wait, seconds: float) -> None:
        if self._wire.on_wait is not None:
            self._wire.on_wait(Waiting(step.why, seconds, step.tries, step.error))
        time.sleep(seconds)


def _pieces(source: Source) -> Iterator[bytes]:
    done = 0
    with source.open() as file:
        while piece := file.read(http.piece_bytes(source, done)):
            yield piece
            done += len(piece)
            if source.progress is not None:
                source.progress(done, source.size)
    http.check_whole(source, done)


def _outcome(call: Callable[[], Any]) -> Outcome:
    try:
        return Returned(call())
    except Exception as exc:
        return Raised(exc)
