"""MCP servers' tools, called as the engine calls them, in sessions that each have a workspace."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.seams.sandbox import Sandbox
from turnwire.seams.tool import ToolContext, ToolFailed
from turnwire.seams.workspace import FileAccess
from turnwire.tools.files import FileTools
from turnwire.tools.mcp.config import McpServer
from turnwire.tools.mcp.toolset import McpTools
from turnwire.workspaces.directory import DirectoryWorkspace

PROGRAM = Path(__file__).with_name("mcp_program.py")
PYTHON_PATHS = [sys.prefix, sys.base_prefix]
"""What a program of this environment needs to be shown."""
TIME = McpServer(
    name="time",
    command=sys.executable,
    args=["-m", "mcp_server_time", "--local-timezone=UTC"],
    paths=PYTHON_PATHS,
)
"""A published server."""
HANG_S = 20.0


def program(*args: Path, name: str = "own", **more: Any) -> McpServer:
    """Our own misbehaving server."""
    paths = [str(PROGRAM.parent), *map(str, args)]
    return McpServer(name=name, command="python3", args=[str(PROGRAM), *map(str, args)], paths=paths, **more)


class Mcp:
    """The tools of these servers, for sessions whose workspaces lie in a folder."""

    def __init__(self, servers: Sequence[McpServer], folder: Path, sandbox: Sandbox | None = None) -> None:
        self.sandbox = sandbox or Bubblewrap()
        self.folder = folder
        self.tools = McpTools(FileTools(), servers, self.sandbox)

    def context(self, session: str = "one", lists: dict[str, list[str]] | None = None) -> RunContext[ToolContext]:
        root = self.folder / session
        root.mkdir(exist_ok=True)
        workspace = DirectoryWorkspace(root, FileAccess.parse(lists))
        deps = ToolContext(tenant=f"tenant of {session}", session_id=f"sess_{session}", workspace=workspace)
        return RunContext(deps=deps, model=TestModel(), usage=RunUsage())

    async def names(self) -> list[str]:
        """Of the tools that MCP servers have."""
        own = await FileTools().get_tools(self.context())
        return [name for name in await self.tools.get_tools(self.context()) if name not in own]

    async def call(
        self, name: str, session: str = "one", lists: dict[str, list[str]] | None = None, **arguments: Any
    ) -> Any:
        """The text that a call gives, or the list of texts and images."""
        context = self.context(session, lists)
        tools = await self.tools.get_tools(context)
        async with asyncio.timeout(HANG_S):
            return await self.tools.call_tool(name, arguments, context, tools[name])

    async def failure(
        self, name: str, session: str = "one", lists: dict[str, list[str]] | None = None, **arguments: Any
    ) -> str:
        try:
            result = await self.call(name, session, lists, **arguments)
        except ToolFailed as failed:
            return failed.message
        raise AssertionError(f"it did not fail, but gave {result[:200]!r}")

    async def counted(self, session: str = "one") -> tuple[int, int]:
        """How many calls the session's process has had, and which process it is."""
        calls, pid = json.loads(await self.call("count", session))
        return calls, pid

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def mcp(folder: Path, *servers: McpServer, sandbox: Sandbox | None = None) -> AsyncIterator[Mcp]:
    made = Mcp(servers, folder, sandbox)
    await made.tools.start(HANG_S)
    try:
        yield made
    finally:
        await made.tools.aclose()
        await made.sandbox.aclose()
