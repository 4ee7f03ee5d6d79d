"""An MCP server over HTTP, of the MCP project's own library, in a process of its own.

with McpHttp() as server:
    McpServer(name="there", url=server.url, headers={"Authorization": f"Bearer {server.key}"})
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

KEY = "key-of-the-mcp-server"


class McpHttp:
    """Serves on one port for all its life, over restarts. `how`: "http", "stateless", "json" or "sse"."""

    key = KEY

    def __init__(self, how: str = "http") -> None:
        self._how = how
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/{'sse' if how == 'sse' else 'mcp'}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._how, str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, "the MCP server did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        """At once, as when its machine fails."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """It takes connections, and says nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, 19)


def _serve(how: str, port: int) -> None:
    import uvicorn
    from mcp.server.mcpserver import Context, Image, MCPServer

    server = MCPServer("over HTTP")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    async def slow(seconds: float) -> str:
        """Answer late."""
        await asyncio.sleep(seconds)
        return "late"

    @server.tool()
    def large(size: int) -> str:
        """Give much text."""
        return "x" * size

    @server.tool()
    def picture() -> Image:
        """Give a picture."""
        return Image(data=b"\x89PNG\r\n\x1a\n", format="png")

    @server.tool()
    def refuse() -> str:
        """Fail."""
        raise ValueError("no, not that")

    @server.tool()
    async def learn(ctx: Context[Any]) -> str:
        """Have one tool more, and say so."""
        server.add_tool(lambda: "learnt", name="learnt", description="What was learnt.")
        await ctx.session.send_tool_list_changed()
        return "well"

    if how == "sse":
        app = server.sse_app()
    else:
        app = server.streamable_http_app(stateless_http=how == "stateless", json_response=how == "json")

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {KEY}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await app(scope, receive, send)

    uvicorn.run(guarded, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
