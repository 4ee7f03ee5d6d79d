"""Programs in the sandbox that are MCP servers: a process for each session that uses one, so that it sees that
session's workspace and nothing of another's.

A process is started with the first call, kept while the session makes calls, and ended when none came for a while, with
the session, and with the server.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from turnwire.seams.sandbox import Command, Conversation, Sandbox, SandboxError, Sink
from turnwire.seams.tool import ToolContext, ToolFailed
from turnwire.seams.workspace import WorkspaceError
from turnwire.tools import limits
from turnwire.tools.mcp.config import McpServer
from turnwire.tools.mcp.link import Down, Link

log = structlog.get_logger(__name__)

Key = tuple[str, str]
"""The name of a server, and the id of a session."""


class _Process:
    """A session's process of one server."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        """Held while it is started, so that it is so once."""
        self.link: Link | None = None
        self.starting = False
        self.calls = 0
        self.used_at = time.monotonic()
        self.timer: asyncio.TimerHandle | None = None


class Processes:
    """The sessions' processes, of all servers that run in the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._all: dict[Key, _Process] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """How many are there, or about to be."""
        return sum(process.link is not None or process.starting for process in self._all.values())

    def probe(self, server: McpServer) -> Link:
        """A process for no session, with an empty folder for a workspace."""
        return self._new_link(server, None)

    @asynccontextmanager
    async def link(self, server: McpServer, deps: ToolContext) -> AsyncGenerator[Link, None]:
        """The session's process, started when there is none. Raises ToolFailed."""
        key = server.name, deps.session_id
        process = self._all.setdefault(key, _Process())
        process.calls += 1
        if process.timer is not None:
            process.timer.cancel()
        try:
            async with process.lock:
                if process.link is None or not process.link.alive:
                    process.link = await self._start(process, server, deps)
            yield process.link
        finally:
            process.calls -= 1
            process.used_at = time.monotonic()
            if process.calls == 0 and self._all.get(key) is process:
                process.timer = asyncio.get_running_loop().call_later(limits.MCP_IDLE_S, self._end, key)

    async def end_session(self, session_id: str) -> None:
        """End those of a session."""
        for key in [key for key in self._all if key[1] == session_id]:
            self._end(key)
        if self._ending:
            await asyncio.wait(set(self._ending))

    async def aclose(self) -> None:
        """End all."""
        for key in list(self._all):
            self._end(key)
        if self._ending:
            await asyncio.wait(set(self._ending))

    async def _start(self, process: _Process, server: McpServer, deps: ToolContext) -> Link:
        if process.link is not None:
            await process.link.aclose()
            process.link = None
        await self._make_room()
        process.starting = True
        link = self._new_link(server, deps)
        try:
            await link.open()
        except Down as exc:
            log.warning("mcp_process_failed", server=server.name, session_id=deps.session_id, error=str(exc))
            raise ToolFailed(f"The MCP server {server.name} could not be started for this session: {exc}.") from exc
        finally:
            process.starting = False
        log.info("mcp_process_started", server=server.name, session_id=deps.session_id)
        return link

    async def _make_room(self) -> None:
        """End the process that was not used for the longest, when there are as many as may be."""
        while self.running >= limits.MCP_PROCESSES_MAX:
            idle = [key for key, process in self._all.items() if process.link is not None and process.calls == 0]
            if not idle:
                raise ToolFailed(
                    f"As many programs of MCP servers run for sessions as may ({limits.MCP_PROCESSES_MAX}), all in "
                    "use: try again when some of their calls have ended."
                )
            await asyncio.wait([self._end(min(idle, key=lambda key: self._all[key].used_at))])

    def _end(self, key: Key) -> "asyncio.Task[None]":
        process = self._all.pop(key)
        if process.timer is not None:
            process.timer.cancel()
        task = asyncio.create_task(self._close(process, key), name=f"end of mcp {key[0]}")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _close(self, process: _Process, key: Key) -> None:
        async with process.lock:
            if process.link is not None:
                await process.link.aclose()
                log.info("mcp_process_ended", server=key[0], session_id=key[1])

    def _new_link(self, server: McpServer, deps: ToolContext | None) -> Link:
        from turnwire.tools.mcp.transports import ConversationTransport

        command = Command(
            argv=(server.command, *server.args),
            tenant="" if deps is None else deps.tenant,
            session_id=f"mcp {server.name}" if deps is None else deps.session_id,
            workspace=None if deps is None else deps.workspace,
            env=server.env,
            paths=[Path(path) for path in server.paths],
            network=None if deps is None else deps.network,
        )

        async def start(errors: Sink) -> Conversation:
            try:
                return await self._sandbox.converse(command, errors)
            except WorkspaceError as exc:
                raise SandboxError(str(exc)) from exc

        return Link(server, ConversationTransport(server.name, start))
