"""Ways to MCP servers. Import this when the first is used: the MCP library takes its time.

Sources: modelcontextprotocol.io/specification, basic/transports (stdio: a message is a line of JSON; HTTP).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, cast

import anyio
import httpx2
import mcp_types
import msgspec
import structlog
from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport
from fastmcp.client.transports.base import ClientTransport, TransportOptions, VersionAwareClientSession
from fastmcp.mcp_config import infer_transport_type_from_url
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.message import SessionMessage

from turnwire.seams.sandbox import Conversation, Ending, SandboxError, Sink
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer

log = structlog.get_logger(__name__)

Start = Callable[[Sink], Awaitable[Conversation]]


class _Session(VersionAwareClientSession):
    """Doesn't hold results against the server's own schema of them: its patterns would be matched by Python's `re`,
    which a hostile one freezes, and the whole server with it. What a result is said to be plays no part here."""

    async def validate_tool_result(self, name: str, result: Any) -> None:
        return


_OPTIONS = TransportOptions(session_class=_Session)


def transport_to(server: McpServer) -> ClientTransport:
    """To a server that has an address, or is a program that runs as this server's own user."""
    if not server.url:
        # Its environment is made of what the library passes on (PATH, HOME and the like) and what the operator gives:
        # this server's own keys are not in it.
        return _Stdio(server.command, list(server.args), env=dict(server.env) or None, keep_alive=False)
    headers = dict(server.headers)
    if infer_transport_type_from_url(server.url) == "sse":
        transport = _Sse(server.url, headers=headers)
    else:
        transport = _Http(server.url, headers=headers, max_sse_event_size=limits.MCP_MESSAGE_BYTES_MAX)
    transport.httpx_client_factory = cast(Any, transport.http_client)
    return transport


class _Stdio(StdioTransport):
    def connect_session(self, *, transport_options: Any = None, **session_kwargs: Any) -> Any:
        return super().connect_session(transport_options=_OPTIONS, **session_kwargs)


class _Refusals:
    """What HTTP answers that were refusals said, of a transport."""

    refusal = ""
    """The latest, such as "401 Unauthorized"."""

    def http_client(
        self, headers: dict[str, str] | None = None, timeout: Any = None, auth: Any = None, **_: Any
    ) -> httpx2.AsyncClient:
        client = create_mcp_http_client(headers=headers, timeout=timeout, auth=auth)
        client.headers["Accept-Encoding"] = "identity"  # what is counted is what is held
        client.event_hooks["response"].append(self._look_at)
        return client

    async def _look_at(self, response: httpx2.Response) -> None:
        if response.status_code >= 400:
            self.refusal = f"{response.status_code} {response.reason_phrase}".strip()
        if "text/event-stream" not in response.headers.get("content-type", ""):
            response.stream = _Bounded(cast(httpx2.AsyncByteStream, response.stream), response.request)


class _Http(_Refusals, StreamableHttpTransport):
    def connect_session(self, *, transport_options: Any = None, **session_kwargs: Any) -> Any:
        return super().connect_session(transport_options=_OPTIONS, **session_kwargs)


class _Sse(_Refusals, SSETransport):
    def connect_session(self, *, transport_options: Any = None, **session_kwargs: Any) -> Any:
        return super().connect_session(transport_options=_OPTIONS, **session_kwargs)


class _Bounded(httpx2.AsyncByteStream):
    """A body that is an error for its own request when it is larger than a message may be: one that breaks off would
    end the connection, and all other calls on it. The library reads it whole anyway."""

    def __init__(self, stream: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = bytearray()
        async for chunk in self._stream:
            held += chunk
            if len(held) > limits.MCP_MESSAGE_BYTES_MAX:
                yield self._error()
                return
        yield bytes(held)

    def _error(self) -> bytes:
        text = f"the server's answer is larger than {limits.MCP_MESSAGE_BYTES_MAX} bytes"
        try:
            asked_by = msgspec.json.decode(self._request.content)["id"]
        except (ValueError, KeyError, TypeError, httpx2.RequestNotRead) as exc:
            raise httpx2.ReadError(text) from exc
        return msgspec.json.encode({"jsonrpc": "2.0", "id": asked_by, "error": {"code": -32603, "message": text}})

    async def aclose(self) -> None:
        await self._stream.aclose()


class ConversationTransport(ClientTransport):
    """To a program that a sandbox holds a conversation with."""

    def __init__(self, name: str, start: Start) -> None:
        """`start` starts the program; its argument takes what the program writes to stderr."""
        self._name, self._start = name, start
        self._conversation: Conversation | None = None
        self._errors = bytearray()
        self._trouble = ""
        self._left = False
        """It was running well when it was told to end: the reason is another's."""

    @property
    def ending(self) -> Ending | None:
        """How the program ended; None while it runs, or was not started."""
        return self._conversation.ending if self._conversation else None

    @property
    def trouble(self) -> str:
        """Why this way is closed, as the end of a sentence; empty when nothing is known."""
        ending = self.ending
        if self._trouble or self._left or ending is None or ending.stopped == "killed":
            return self._trouble
        last = " ".join(self._errors.decode("utf-8", "replace").strip().rpartition("\n")[2].split())[-300:]
        if ending.exit_code in (126, 127) and ("not found" in last or "No such file" in last or "ermission" in last):
            return f"{_NOT_THERE} ({last})"
        how = {
            None: f"ended with exit status {ending.exit_code}",
            "memory": "was ended, as it took more memory than it may, all its processes and the files in /tmp together",
            "disk": "was ended, as the disk is nearly full",
            "quota": "was ended, as its workspace has no room left",
            "output": "was ended, as it wrote too much to stderr",
        }.get(ending.stopped, "was ended")
        return f"the program {how}{f': {last}' if last else ''}"

    @contextlib.asynccontextmanager
    async def connect_session(
        self, *, transport_options: TransportOptions | None = None, **session_kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        try:
            self._conversation = conversation = await self._start(self._add_errors)
        except SandboxError as exc:
            self._trouble = str(exc).rstrip(".")
            raise
        try:
            async with anyio.create_task_group() as tasks:
                out, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
                outgoing, to_send = anyio.create_memory_object_stream[SessionMessage](0)
                async with out, incoming, outgoing, to_send:
                    tasks.start_soon(self._read, conversation, out)
                    tasks.start_soon(self._write, conversation, to_send, out)
                    async with _Session(incoming, outgoing, **session_kwargs) as session:
                        yield session
                    tasks.cancel_scope.cancel()
        finally:
            self._left = conversation.ending is None
            await _end(conversation)

    def _add_errors(self, data: bytes) -> None:
        self._errors += data
        del self._errors[: -limits.MCP_ERRORS_BYTES_KEPT]

    async def _read(self, conversation: Conversation, out: Any) -> None:
        junk = 0
        async with out:
            async for line in self._lines(conversation):
                try:
                    message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    junk += 1
                    if junk == 1:
                        log.warning("mcp_line_ignored", server=self._name, line=line[:200].decode("utf-8", "replace"))
                    if junk > limits.MCP_JUNK_LINES_MAX:
                        self._trouble = "it writes lines that are no messages, and too many of them"
                        conversation.kill()
                        break
                    continue
                try:
                    await out.send(SessionMessage(message))
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    return
            # The requests that wait learn of the end from the stream's: how it ended should be known by then.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.MCP_END_S):
                    await conversation.wait()

    async def _lines(self, conversation: Conversation) -> AsyncGenerator[bytes, None]:
        held = bytearray()
        while data := await conversation.read():
            *ended, rest = data.split(b"\n")
            for part in ended:
                yield bytes(held) + part
                held.clear()
            held += rest
            if len(held) > limits.MCP_MESSAGE_BYTES_MAX:
                self._trouble = f"it sent a message of more than {limits.MCP_MESSAGE_BYTES_MAX} bytes"
                conversation.kill()
                return

    async def _write(self, conversation: Conversation, to_send: Any, out: Any) -> None:
        async for message in to_send:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            try:
                await conversation.write(text.encode() + b"\n")
            except SandboxError:
                # It may live on: what waits for answers should not.
                await out.aclose()
                return


_NOT_THERE = (
    "there is no such program in the sandbox: name the folder that it is in by `paths` in its table, or say "
    "sandbox = false there to run it as the server's own user"
)


async def _end(conversation: Conversation) -> None:
    """As the specification has it: first by closing its input. Even when this is cancelled."""
    conversation.close_input()
    try:
        with anyio.move_on_after(limits.MCP_END_S, shield=True):
            await conversation.wait()
    finally:
        conversation.kill()
        with anyio.move_on_after(limits.MCP_END_S, shield=True):
            await conversation.wait()
