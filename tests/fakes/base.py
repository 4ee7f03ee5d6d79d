"""What the fake providers share: the steps of a script, and an HTTP/1.1 server that controls every byte.

A script is a list of answers, one a request; when it is used up a request gets a 400 that says so
(`repeat=True` repeats the last one instead). It may also be a function of the request. An answer is made of
steps, and the fake turns each step into the bytes that its vendor would send.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Text:
    """One text delta."""

    content: str


@dataclass(frozen=True)
class Thinking:
    """One thinking delta. Deltas in a row are one block; Anthropic's block ends with its signature."""

    content: str


@dataclass(frozen=True)
class ToolCall:
    """A tool call whose input comes in pieces. `id` is made up when it is None."""

    name: str
    arguments: Sequence[str] = ("{}",)
    id: str | None = None


@dataclass(frozen=True)
class ToolCalls:
    """Several calls at once. Interleaved: first all names, then the pieces of all in turn (chat only)."""

    calls: Sequence[ToolCall]
    interleaved: bool = False


@dataclass(frozen=True)
class Usage:
    """Token counts. `input` is all that was read, the cached and the newly cached included."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Finish:
    """The vendor's own finish or stop reason (None: none is sent). Without it, it follows from the rest."""

    reason: str | None


@dataclass(frozen=True)
class Stall:
    """Nothing is sent for this long."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection is dropped. `in_chunk`: in the middle of an HTTP chunk that was announced as longer."""

    in_chunk: bool = False


@dataclass(frozen=True)
class ErrorEvent:
    """The vendor's error event, in the middle of a stream that began with 200."""

    message: str = "Overloaded"
    type: str = "overloaded_error"
    code: str | None = None


@dataclass(frozen=True)
class Ping:
    """Anthropic's `ping` event. The other vendors have none and send nothing."""


@dataclass(frozen=True)
class Comment:
    """An SSE comment, as OpenRouter sends while it waits."""

    text: str = " OPENROUTER PROCESSING"


@dataclass(frozen=True)
class Raw:
    """These bytes, as they are."""

    data: bytes


Step = Text | Thinking | ToolCall | ToolCalls | Usage | Finish | Stall | Cut | ErrorEvent | Ping | Comment | Raw


@dataclass(frozen=True)
class Answer:
    """A streamed answer.

    `chunk_size`: None sends an event a chunk, as vendors do; 0 joins all that no stall or cut parts into
    one write; n cuts the bytes every n, without regard to events. `ending`: whether the stream is closed as
    the vendor closes it (`[DONE]`, `message_stop`, `response.completed`). `options` go to the fake's own
    renderer.
    """

    steps: Sequence[Step] = ()
    chunk_size: int | None = None
    newline: str = "\n"
    content_type: str = "text/event-stream; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    ending: bool = True
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, *steps: Step | str, **more: Any) -> Self:
        """`Answer.of("Hel", "lo", Usage(3, 2))`: a string is a text delta."""
        return cls(tuple(Text(s) if isinstance(s, str) else s for s in steps), **more)


@dataclass(frozen=True)
class Fault:
    """A whole HTTP answer. `body` None is the vendor's own for the status; str or bytes go as they are."""

    status: int = 500
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json"
    delay_s: float = 0.0

    @classmethod
    def html(cls, status: int = 200) -> "Fault":
        """A page instead of an API's answer: a captive portal, a proxy's login."""
        return cls(status, b"<!doctype html><html><body>Sign in</body></html>", content_type="text/html")


@dataclass
class Request:
    """A request as it came. `body` is the parsed JSON, or the bytes when it is not JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the fake has stopped answering, for whatever reason."""
    client_left: bool = False
    """Whether the client closed the connection before the answer was whole."""
    sent: bytearray = field(default_factory=bytearray)
    """The bytes of the answer's body that were sent so far, without HTTP's own framing."""


Script = Sequence[Answer | Fault] | Callable[[Request], Answer | Fault]


class ClientLeftError(Exception):
    """The client closed the connection while it was being answered."""


class _CutError(Exception):
    """The script wants the connection dropped."""


class Fake(ABC):
    """An HTTP server on a free port of 127.0.0.1, used as `async with FakeOpenAIChat(script) as fake:`."""

    path: ClassVar[str]
    root: ClassVar[str] = ""

    def __init__(self, script: Script = (), *, repeat: bool = False) -> None:
        self.script = script
        self.repeat = repeat
        self.context_tokens: int | None = None
        """The model's context: a longer request (4 characters to a token) is refused as the vendor refuses it."""
        self.requests: list[Request] = []
        """Those for an answer of the model, in their order; the ones refused as invalid too."""
        self.connections = 0
        """How many connections are open."""
        self.connections_made = 0
        self._served = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    @property
    def url(self) -> str:
        assert self._server is not None, "the fake is not running: use `async with`"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def base_url(self) -> str:
        """What the vendor's SDK takes as its `base_url`."""
        return self.url + self.root

    # What a vendor's fake fills in.

    @abstractmethod
    def render(self, answer: Answer, request: Request) -> Iterator[bytes | Stall | Cut]:
        """The answer's SSE events, as bytes with LF, an event each, with the stalls and cuts between them."""

    @abstractmethod
    def error_body(self, status: int, message: str | None = None, **more: Any) -> dict[str, Any]:
        """The vendor's error body."""

    def refuse(self, body: dict[str, Any]) -> Fault | None:
        """What the vendor answers to a request that it would not take; None for one that it would."""
        return None

    def too_long(self, tokens: int, most: int) -> dict[str, Any]:
        """The vendor's error body for a request that is longer than the model's context."""
        raise NotImplementedError

    def get(self, request: Request) -> Fault | None:
        """The answer to a GET; None is 404."""
        return None

    # HTTP.

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.connections_made += 1
        try:
            await self._serve(_Connection(reader, writer))
        except (ClientLeftError, _CutError, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the fake is being closed
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, connection: "_Connection") -> None:
        while (request := await connection.request()) is not None:
            chosen = self._choose(request)
            try:
                async with connection.watched(request):
                    if isinstance(chosen, Fault):
                        await self._send_whole(connection, chosen)
                    else:
                        await self._send_stream(connection, chosen, request)
            finally:
                request.ended.set()

    def _choose(self, request: Request) -> Answer | Fault:
        if request.method == "GET":
            return self.get(request) or Fault(404)
        self.requests.append(request)
        if request.path.split("?")[0] != self.root + self.path:
            return Fault(404, self.error_body(404, f"Unknown path {request.path}"))
        if not isinstance(request.body, dict):
            return Fault(400, self.error_body(400, "The body is not a JSON object."))
        if (refusal := self.refuse(request.body)) is not None:
            return refusal
        if self.context_tokens is not None and (tokens := prompt_tokens(request.body)) > self.context_tokens:
            return Fault(400, self.too_long(tokens, self.context_tokens))
        self._served += 1
        if callable(self.script):
            return self.script(request)
        if self._served > len(self.script) and not (self.repeat and self.script):
            return Fault(400, self.error_body(400, "The fake's script is used up."))
        return self.script[min(self._served, len(self.script)) - 1]

    async def _send_whole(self, connection: "_Connection", fault: Fault) -> None:
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        body = fault.body if fault.body is not None else self.error_body(fault.status)
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else dump(body)
        headers = {"content-type": fault.content_type, "content-length": str(len(data)), **fault.headers}
        await connection.send(head(fault.status, headers) + data)

    async def _send_stream(self, connection: "_Connection", answer: Answer, request: Request) -> None:
        headers = {"content-type": answer.content_type, "transfer-encoding": "chunked", **answer.headers}
        await connection.send(head(200, headers))
        for item in cut_up(self._bytes(answer, request), answer.chunk_size):
            if isinstance(item, Stall):
                await asyncio.sleep(item.seconds)
            elif isinstance(item, Cut):
                if item.in_chunk:
                    await connection.send(b"ff\r\n" + b"data: {")
                await connection.drop()
            else:
                await connection.send(b"%x\r\n%b\r\n" % (len(item), item))
                request.sent += item
        await connection.send(b"0\r\n\r\n")

    def _bytes(self, answer: Answer, request: Request) -> Iterator[bytes | Stall | Cut]:
        for item in self.render(answer, request):
            if isinstance(item, bytes) and answer.newline != "\n":
                item = item.replace(b"\n", answer.newline.encode())
            yield item


class _Connection:
    """One client's connection: reads requests, and notices when the client leaves during an answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ahead = b""

    async def request(self) -> Request | None:
        """The next request, or None when the client closed the connection between two."""
        try:
            raw = self._ahead + await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        self._ahead = b""
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if "chunked" in headers.get("transfer-encoding", ""):
            data = b""
            while size := int(await self._reader.readline(), 16):
                data += (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readline()
        else:
            data = await self._reader.readexactly(int(headers.get("content-length", 0)))
        try:
            body: Any = json.loads(data)
        except ValueError:
            body = data
        return Request(method, path, headers, body)

    @contextlib.asynccontextmanager
    async def watched(self, request: Request) -> AsyncIterator[None]:
        """The body is interrupted by `ClientLeftError` as soon as the client closes its side."""
        answering = asyncio.current_task()
        assert answering is not None

        async def watch() -> None:
            with contextlib.suppress(ConnectionError):
                self._ahead = await self._reader.read(1)
            if not self._ahead:
                request.client_left = True
                answering.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if request.client_left:
                raise ClientLeftError from None
            raise
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def drop(self) -> None:
        self._writer.close()  # what was written goes out, then the connection ends without HTTP's last chunk
        raise _CutError


def head(status: int, headers: dict[str, str]) -> bytes:
    """An HTTP/1.1 head."""
    lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def prompt_tokens(body: dict[str, Any]) -> int:
    """Tokens of what a request says, 4 characters each."""
    said = [body.get(name) for name in ("system", "instructions", "messages", "input", "tools")]
    return len(json.dumps(said, ensure_ascii=False)) // 4


def dump(value: Any) -> bytes:
    """Compact JSON, as the vendors send it: UTF-8, nothing escaped that need not be."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(data: Any, name: str | None = None) -> bytes:
    """An SSE event with LF."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + dump(data) + b"\n\n"


def cut_up(items: Iterator[bytes | Stall | Cut], chunk_size: int | None) -> Iterator[bytes | Stall | Cut]:
    """The same bytes in the pieces in which they are sent; see `Answer.chunk_size`."""
    if chunk_size is None:
        yield from items
        return
    held = b""
    for item in items:
        if isinstance(item, bytes):
            held += item
            while chunk_size and len(held) >= chunk_size:
                yield held[:chunk_size]
                held = held[chunk_size:]
        else:
            if held:
                yield held
            held = b""
            yield item
    if held:
        yield held


def sign(thinking: str) -> str:
    """The fake's signature of a thinking block: it says which text it belongs to, as the real one does."""
    return base64.b64encode(hashlib.sha256(b"fake" + thinking.encode()).digest()).decode()
