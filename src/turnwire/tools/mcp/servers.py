"""The MCP servers of the settings, each looked after by a task of its own: a server that is down is told in the log, is
tried again at growing intervals, and no turn waits for it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog

from turnwire.seams.sandbox import Sandbox
from turnwire.seams.tool import ToolContext, ToolFailed
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer
from turnwire.tools.mcp.definitions import Definition, definitions_of
from turnwire.tools.mcp.link import Down, Link
from turnwire.tools.mcp.processes import Processes
from turnwire.tools.mcp.results import Result

log = structlog.get_logger(__name__)


class Server:
    """A server: its state, and its tools as it told them last."""

    def __init__(self, config: McpServer) -> None:
        self.config = config
        self.name = config.name
        self.state = "not connected yet"
        self.tools: list[Definition] = []
        self.up = False
        """Whether its tools can be called now."""
        self.tried = asyncio.Event()
        """It is up, or has failed once."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"mcp {self.name}")

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def call(self, name: str, arguments: dict[str, Any], deps: ToolContext) -> Result:
        """Call a tool, by the server's name for it. Raises ToolFailed."""
        raise NotImplementedError

    async def _keep(self) -> None:
        """Hold what is to be held; ends when there is nothing to be held any more."""
        raise NotImplementedError

    def _is_up(self, tools: Sequence[Any], how: str) -> None:
        self.tools = definitions_of(self.name, tools)
        count = len(self.tools)
        self.up, self.state = True, f"up, {count} tool{'' if count == 1 else 's'}{how}"
        log.info("mcp_server_up", server=self.name, tools=count)
        self.tried.set()

    def _is_down(self, why: str, delay_s: float) -> None:
        self.up, self.state = False, f"down: {why}"
        log.warning("mcp_server_down", server=self.name, error=why, retry_s=delay_s)
        self.tried.set()


class SharedServer(Server):
    """One connection for all sessions: an address, or a program that runs as this server's own user."""

    def __init__(self, config: McpServer) -> None:
        super().__init__(config)
        self._link: Link | None = None

    async def call(self, name: str, arguments: dict[str, Any], deps: ToolContext) -> Result:
        if self._link is None or not self.up:
            raise ToolFailed(f"The MCP server {self.name} is down now: go on without it, or try again later.")
        return await self._link.call(name, arguments)

    async def _keep(self) -> None:
        delay_s = limits.MCP_RETRY_S
        while True:
            link = self._new_link()
            opened_at = time.monotonic()
            self._link = link
            try:
                await link.open()
                why = await link.broken()
            except Down as exc:
                why = str(exc)
            finally:
                self._link = None
                await link.aclose()
            if time.monotonic() - opened_at > limits.MCP_CONNECT_S:  # it was up for a while
                wait_s, delay_s = limits.MCP_RECONNECT_S, limits.MCP_RETRY_S
            else:
                wait_s, delay_s = delay_s, min(delay_s * 2, limits.MCP_RETRY_MAX_S)
            self._is_down(why, wait_s)
            await asyncio.sleep(wait_s)

    def _new_link(self) -> Link:
        from turnwire.tools.mcp.transports import transport_to

        how = "" if self.config.url else ", without a sandbox (sandbox = false)"
        return Link(
            self.config,
            transport_to(self.config),
            on_tools=lambda tools: self._is_up(tools, how),
            check_s=limits.MCP_CHECK_S,
        )


class SandboxedServer(Server):
    """A program in the sandbox: a process for each session. What its tools are is asked of one that serves no session,
    and ends then."""

    def __init__(self, config: McpServer, processes: Processes) -> None:
        super().__init__(config)
        self._processes = processes

    async def call(self, name: str, arguments: dict[str, Any], deps: ToolContext) -> Result:
        async with self._processes.link(self.config, deps) as link:
            return await link.call(name, arguments)

    async def _keep(self) -> None:
        delay_s = limits.MCP_RETRY_S
        while True:
            link = self._processes.probe(self.config)
            try:
                self._is_up(await link.open(), ", in the sandbox, a process for each session")
                return
            except Down as exc:
                self._is_down(str(exc), delay_s)
            finally:
                await link.aclose()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, limits.MCP_RETRY_MAX_S)


class UnstartedServer(Server):
    """A program that is to run in a sandbox, where none works."""

    def __init__(self, config: McpServer, sandbox: Sandbox) -> None:
        super().__init__(config)
        status = sandbox.status
        self.state = (
            f"not started: it is to run in the sandbox, and none works here. {status.reason} To do: {status.todo} "
            "Or say sandbox = false in its table, to run it as the server's own user, with all that this user may do."
        )
        self.tried.set()

    def start(self) -> None:
        log.warning("mcp_server_not_started", server=self.name, error=self.state)


def server_of(config: McpServer, sandbox: Sandbox, processes: Processes) -> Server:
    """What is to be made of a server of the settings."""
    if config.url or not config.sandbox:
        return SharedServer(config)
    if not sandbox.status.available:
        return UnstartedServer(config, sandbox)
    return SandboxedServer(config, processes)
