"""One connection to an MCP server, opened, held and closed by a task of its own."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, cast

from turnwire.seams.tool import ToolFailed
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer
from turnwire.tools.mcp.results import Result, result_of, text_of

OnTools = Callable[[list[Any]], None]


class Down(Exception):
    """A server can't be used: why, as one line."""


class Link:
    """A connection. It looks whether the server still answers when a call went wrong, when the server says that its
    tools are others now, and each `check_s` seconds; when it doesn't, that is the link's end."""

    def __init__(
        self, server: McpServer, transport: Any, *, on_tools: OnTools | None = None, check_s: float | None = None
    ) -> None:
        """`on_tools` is told the tools (`mcp_types.Tool`) when it is open, and when they have changed."""
        self._server, self._transport, self._check_s = server, transport, check_s
        self._on_tools = on_tools
        self._tools: list[Any] | None = None
        self._look = asyncio.Event()
        self._open = asyncio.Event()
        self._failure: str | None = None
        self._given_up: set[asyncio.Task[Any]] = set()
        self._toolset = self._new_toolset()
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        if self._task is None or self._task.done() or self._failure is not None:
            return False
        return self._open.is_set() and getattr(self._transport, "ending", None) is None

    async def open(self) -> list[Any]:
        """Connect; gives the tools. Raises Down."""
        self._task = asyncio.create_task(self._hold(), name=f"mcp {self._server.name}")
        opened = asyncio.create_task(self._open.wait())
        try:
            await asyncio.wait([self._task, opened], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._task.cancel()
            raise
        finally:
            opened.cancel()
        if self._tools is None:
            raise Down(self._failure or "it was closed")
        return self._tools

    async def broken(self) -> str:
        """Wait for its end; gives why."""
        assert self._task is not None
        await asyncio.wait([self._task])
        return self._failure or "it was closed"

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def call(self, name: str, arguments: dict[str, Any]) -> Result:
        """Call a tool, by the server's name for it. Raises ToolFailed."""
        calling = asyncio.create_task(self._toolset.client.call_tool_mcp(name, arguments))
        try:
            result = await asyncio.shield(calling)
        except asyncio.CancelledError:
            # It was given up: the server is told, which may take seconds, and should be free again, or is done with.
            calling.cancel()
            self._given_up.add(calling)
            calling.add_done_callback(self._forget)
            self._look.set()
            raise
        except Exception as exc:
            self._look.set()
            raise ToolFailed(self._sentence(exc)) from exc
        # In a thread: an image can be made so that a look at it takes a second.
        given = await asyncio.to_thread(result_of, result.content, result.structured_content)
        if result.is_error:
            raise ToolFailed(text_of(given) or "The tool failed, and didn't say why.")
        return given

    def _forget(self, calling: "asyncio.Task[Any]") -> None:
        self._given_up.discard(calling)
        if not calling.cancelled():
            calling.exception()  # looked at, so that nobody misses it

    async def _hold(self) -> None:
        try:
            async with asyncio.timeout(limits.MCP_CONNECT_S) as connecting:
                async with self._toolset:
                    self._learn(await self._toolset.client.list_tools())
                    connecting.reschedule(None)
                    self._open.set()
                    try:
                        while True:
                            await self._time_to_look()
                            self._learn(await self._within(limits.MCP_ANSWER_S, self._toolset.client.list_tools()))
                    except Exception as exc:
                        self._failure = self._why(exc)  # known before it is closed, which may take its time
        except Exception as exc:  # whatever a server or its library does, the others go on
            self._failure = self._failure or self._why(exc)

    def _learn(self, tools: list[Any]) -> None:
        if tools != self._tools:
            self._tools = tools
            if self._on_tools is not None:
                self._on_tools(tools)

    async def _time_to_look(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._check_s):
                await self._look.wait()
        self._look.clear()

    async def _within(self, seconds: float, work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError as exc:
            raise Down(f"it did not answer within {seconds:g} seconds") from exc

    async def _told(self, message: Any) -> None:
        if "ToolListChanged" in type(getattr(message, "root", message)).__name__:
            self._look.set()

    def _new_toolset(self) -> Any:
        from pydantic_ai.mcp import MCPToolset

        return MCPToolset(
            self._transport,
            id=self._server.name,
            tool_error_behavior="failed",
            init_timeout=limits.MCP_CONNECT_S,
            read_timeout=limits.MCP_TIME_LIMIT_S,
            prefer_tasks=False,
            cache_tools=False,
            message_handler=self._told,
        )

    def _why(self, exc: BaseException) -> str:
        if trouble := getattr(self._transport, "trouble", ""):
            return trouble
        if isinstance(exc, TimeoutError) or "Failed to initialize server session" in str(exc):
            return f"it did not answer within {limits.MCP_CONNECT_S:g} seconds"
        refusal = getattr(self._transport, "refusal", "")
        text = one_line(exc).removeprefix("Client failed to connect: ")
        if refusal and ("error response" in text or refusal[:3] in text):
            return f"it answered {refusal}"
        return text

    def _sentence(self, exc: Exception) -> str:
        name = self._server.name
        if trouble := getattr(self._transport, "trouble", ""):
            return f"The MCP server {name} broke off: {trouble}."
        text = one_line(exc)
        if text == "Connection closed":
            return f"The MCP server {name} broke off in the middle of this call, which may have taken effect."
        if "timed out" in text:
            return f"The tool was given up: it took longer than {limits.MCP_TIME_LIMIT_S:g} seconds."
        return f"The MCP server {name} did not make this call: {text}"


def one_line(exc: BaseException) -> str:
    """What went wrong, in up to 300 characters."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(Any, exc).exceptions[0]
    text = " ".join(f"{exc or type(exc).__name__}".split())
    return text.partition(" For further information visit")[0][:300]
