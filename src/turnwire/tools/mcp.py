"""Tools of MCP servers: their tools stand beside our own, under their own names where those are free.

Each server is held by a task of its own, which connects, and connects again later when that fails or breaks: a server
that is down is told in the log, its tools are missing meanwhile, and no turn waits for it. The MCP library is imported
with the first server.
"""

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
import structlog
from pydantic_ai import RunContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool

from turnwire.seams.tool import TIME_LIMIT_S, ToolContext, ToolFailed
from turnwire.tools import limits

log = structlog.get_logger(__name__)


class McpServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server as the operator names it: a program (`command`), or an address (`url`)."""

    name: str
    command: str = ""
    args: Sequence[str] = ()
    env: dict[str, str] = {}
    url: str = ""
    headers: dict[str, str] = {}


class McpTools(AbstractToolset[ToolContext]):
    """The server's own tools, and those of the MCP servers that are up."""

    def __init__(self, own: AbstractToolset[ToolContext], servers: Sequence[McpServer]) -> None:
        self._own = own
        self._connections = [_Connection(server) for server in servers]

    @property
    def id(self) -> str:
        return "mcp"

    async def start(self) -> None:
        """Connect to the servers; returns when each is up or has failed once, or after a few seconds."""
        await asyncio.to_thread(importlib.import_module, "pydantic_ai.mcp")
        for connection in self._connections:
            connection.start()
        waits = [asyncio.ensure_future(connection.tried.wait()) for connection in self._connections]
        _, late = await asyncio.wait(waits, timeout=limits.MCP_START_S)
        for wait in late:
            wait.cancel()

    async def aclose(self) -> None:
        """Let go of the servers; programs are ended."""
        await asyncio.gather(*(connection.aclose() for connection in self._connections))

    def states(self) -> dict[str, str]:
        """What is to say of each server, by name: `up`, with its tools, or why it is down."""
        return {connection.server.name: connection.state for connection in self._connections}

    async def get_tools(self, ctx: RunContext[ToolContext]) -> dict[str, ToolsetTool[ToolContext]]:
        tools = dict(await self._own.get_tools(ctx))
        for connection in self._connections:
            for name, tool in connection.tools(ctx).items():
                free = name if name not in tools else f"{connection.server.name}_{name}"
                if free not in tools:
                    tools[free] = _renamed(tool, free, self, connection, name)
        return tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[ToolContext], tool: ToolsetTool[ToolContext]
    ) -> Any:
        if isinstance(tool, _McpTool):
            return await tool.connection.call(tool.its_name, tool_args, ctx)
        return await self._own.call_tool(name, tool_args, ctx, tool)


@dataclass(kw_only=True)
class _McpTool(ToolsetTool[ToolContext]):
    """A tool, and whose it is."""

    connection: "_Connection"
    its_name: str


def _renamed(
    tool: ToolsetTool[ToolContext],
    name: str,
    toolset: AbstractToolset[ToolContext],
    connection: "_Connection",
    its_name: str,
) -> _McpTool:
    definition = tool.tool_def
    description = (definition.description or "")[: limits.MCP_DESCRIPTION_CHARS_MAX]
    metadata: dict[str, Any] = {TIME_LIMIT_S: limits.MCP_TIME_LIMIT_S}
    return _McpTool(
        toolset=toolset,
        tool_def=replace(definition, name=name, description=description, metadata=metadata),
        max_retries=0,
        args_validator=tool.args_validator,
        connection=connection,
        its_name=its_name,
    )


class _Connection:
    """One server, held by a task of its own."""

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tried = asyncio.Event()
        """It is up, or has failed once."""
        self.state = "not connected yet"
        self._broken = asyncio.Event()
        self._toolset: Any = None
        self._tools: list[Any] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._hold(), name=f"mcp {self.server.name}")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _hold(self) -> None:
        delay_s = limits.MCP_RETRY_S
        while True:
            try:
                await self._serve()
                delay_s = limits.MCP_RETRY_S
            except Exception as exc:  # whatever a server or its library does, the others go on
                self.state = f"down: {_one_line(exc)}"
                log.warning("mcp_server_down", server=self.server.name, error=_one_line(exc), retry_s=delay_s)
            finally:
                self._toolset, self._tools = None, []
            self.tried.set()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, limits.MCP_RETRY_MAX_S)

    async def _serve(self) -> None:
        """Connect, and return when the connection broke."""
        self._broken.clear()
        async with asyncio.timeout(limits.MCP_CONNECT_S) as connecting:
            async with self._new_toolset() as toolset:
                tools = await toolset.list_tools()
                connecting.reschedule(None)
                self._toolset, self._tools = toolset, tools[: limits.MCP_TOOLS_MAX]
                self.state = f"up, {len(self._tools)} tools"
                log.info("mcp_server_up", server=self.server.name, tools=len(self._tools))
                self.tried.set()
                await self._broken.wait()

    def _new_toolset(self) -> Any:
        # Imported by `start()` already.
        from fastmcp.client.transports import StdioTransport
        from pydantic_ai.mcp import MCPToolset

        server = self.server
        common: dict[str, Any] = {
            "id": server.name,
            "tool_error_behavior": "failed",
            "init_timeout": limits.MCP_CONNECT_S,
            "read_timeout": limits.MCP_TIME_LIMIT_S,
            "prefer_tasks": False,
        }
        if server.url:
            return MCPToolset(server.url, headers=server.headers or None, **common)
        # Its environment is made of what the library passes on (PATH, HOME and the like) and what the operator gives:
        # this server's own keys are not in it.
        transport = StdioTransport(server.command, list(server.args), env=dict(server.env) or None, keep_alive=False)
        return MCPToolset(cast(Any, transport), **common)

    def tools(self, ctx: RunContext[ToolContext]) -> dict[str, ToolsetTool[ToolContext]]:
        """The server's tools; none while it is down."""
        if self._toolset is None:
            return {}
        from pydantic_ai.tools import ToolDefinition

        return {
            tool.name: self._toolset.tool_for_tool_def(
                ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=_schema_of(tool)),
                ctx=ctx,
            )
            for tool in self._tools
        }

    async def call(self, name: str, arguments: dict[str, Any], ctx: RunContext[ToolContext]) -> Any:
        toolset = self._toolset
        if toolset is None:
            raise ToolFailed(f"The MCP server {self.server.name} is down now: go on without it, or try again later.")
        try:
            return await toolset.direct_call_tool(name, arguments)
        except ToolFailed:
            raise
        except Exception as exc:
            if not toolset.client.is_connected():
                self._broken.set()
                raise ToolFailed(f"The MCP server {self.server.name} broke off: {_one_line(exc)}") from exc
            raise ToolFailed(_one_line(exc)) from exc


def _schema_of(tool: Any) -> dict[str, Any]:
    schema: Any = getattr(tool, "input_schema", None) or getattr(tool, "inputSchema", None)
    return schema or {"type": "object", "properties": {}}


def _one_line(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(Any, exc).exceptions[0]
    return " ".join(f"{exc or type(exc).__name__}".split())[:300]
