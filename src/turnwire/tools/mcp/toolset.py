"""The server's own tools, and those of the MCP servers that are up, under their own names where those are free."""

import asyncio
import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic_ai import RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from turnwire.seams.sandbox import Sandbox
from turnwire.seams.tool import ALSO_NAMED, TIME_LIMIT_S, ToolContext
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer
from turnwire.tools.mcp.definitions import Definition
from turnwire.tools.mcp.processes import Processes
from turnwire.tools.mcp.servers import Server, server_of

log = structlog.get_logger(__name__)

_ANY_OBJECT = SchemaValidator(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))
"""Whether an input fits is for the server to say."""


@dataclass(kw_only=True)
class _McpTool(ToolsetTool[ToolContext]):
    """A tool, and whose it is."""

    server: Server
    its_name: str


class McpTools(AbstractToolset[ToolContext]):
    """The server's own tools, and those of the MCP servers that are up."""

    def __init__(self, own: AbstractToolset[ToolContext], servers: Sequence[McpServer], sandbox: Sandbox) -> None:
        self._own = own
        self._processes = Processes(sandbox)
        self._servers = [server_of(server, sandbox, self._processes) for server in servers]
        self._made: tuple[Any, dict[str, _McpTool]] = ((), {})
        """The tools of the servers, and what they were made of."""

    @property
    def id(self) -> str:
        return "mcp"

    async def start(self, wait_s: float = limits.MCP_START_S) -> None:
        """Connect to the servers; returns when each is up or has failed once, or after so long."""
        # The MCP library is imported with the first server, and not on the event loop.
        await asyncio.to_thread(importlib.import_module, "pydantic_ai.mcp")
        await asyncio.to_thread(importlib.import_module, "turnwire.tools.mcp.transports")
        # What it logs are whole tracebacks, of what is told here in one line.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        for server in self._servers:
            server.start()
        waits = [asyncio.ensure_future(server.tried.wait()) for server in self._servers]
        _, late = await asyncio.wait(waits, timeout=wait_s)
        for wait in late:
            wait.cancel()

    async def aclose(self) -> None:
        """Let go of the servers; programs are ended."""
        await asyncio.gather(self._processes.aclose(), *(server.aclose() for server in self._servers))

    async def end_session(self, session_id: str) -> None:
        """End the programs that run for a session."""
        await self._processes.end_session(session_id)

    def states(self) -> dict[str, str]:
        """What is to say of each server, by name: `up`, with its tools, or why it is not."""
        return {server.name: server.state for server in self._servers}

    async def get_tools(self, ctx: RunContext[ToolContext]) -> dict[str, ToolsetTool[ToolContext]]:
        own = await self._own.get_tools(ctx)
        made_of = [list(own), [(server.up, server.tools) for server in self._servers]]
        if self._made[0] != made_of:
            self._made = made_of, self._make(set(own))
        return {**own, **self._made[1]}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[ToolContext], tool: ToolsetTool[ToolContext]
    ) -> Any:
        if isinstance(tool, _McpTool):
            return await tool.server.call(tool.its_name, tool_args, ctx.deps)
        return await self._own.call_tool(name, tool_args, ctx, tool)

    def _make(self, taken: set[str]) -> dict[str, _McpTool]:
        """Tools of a server that is down keep their names, so that another's don't change when it is."""
        made: dict[str, _McpTool] = {}
        own_count = len(taken)
        for server in self._servers:
            for definition in server.tools:
                whole = f"{server.name}_{definition.name}"[: limits.MCP_NAME_CHARS_MAX]
                name = next((name for name in (definition.name, whole) if name not in taken), None)
                if name is None or own_count + len(made) >= limits.MCP_TOOLS_IN_ALL_MAX:
                    why = "its name is taken" if name is None else "there are as many tools as providers take"
                    log.warning("mcp_tool_left_out", server=server.name, tool=definition.its_name[:100], reason=why)
                    continue
                taken.add(name)
                if server.up:
                    made[name] = self._tool(server, definition, name, {definition.name, whole} - {name})
        return made

    def _tool(self, server: Server, definition: Definition, name: str, also: set[str]) -> _McpTool:
        metadata: dict[str, Any] = {
            # Behind the one of the request itself, which tells the model more.
            TIME_LIMIT_S: limits.MCP_TIME_LIMIT_S + limits.MCP_CONNECT_S,
            ALSO_NAMED: sorted(also),
        }
        return _McpTool(
            toolset=self,
            tool_def=ToolDefinition(
                name=name,
                description=definition.description,
                parameters_json_schema=definition.schema,
                metadata=metadata,
            ),
            max_retries=0,
            args_validator=_ANY_OBJECT,
            server=server,
            its_name=definition.its_name,
        )
