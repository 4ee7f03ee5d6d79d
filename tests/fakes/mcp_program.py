"""An MCP server over stdio, of the standard library alone: `python3 mcp_program.py [DEFINITIONS.json]`.

It does what tests need a server to do, good and bad; with a file of definitions it offers those, whatever they are.
It speaks the protocol's handshake of 2025-06-18.
"""

import base64
import json
import os
import struct
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

calls = 0
OBJECT = {"type": "object", "properties": {}}


def where() -> str:
    """Folder, what is in it, and what is in the environment."""
    return json.dumps([str(Path.cwd()), sorted(os.listdir()), dict(os.environ)])  # noqa: PTH208


def write(path: str, text: str) -> str:
    """Write a file."""
    Path(path).write_text(text)
    return "written"


def count() -> str:
    """How many calls this process has had, and its number."""
    return json.dumps([calls, os.getpid()])


def hang(seconds: float = 1000) -> str:
    """Answer late; others are answered meanwhile."""
    Path("hangs").write_text("x")
    time.sleep(seconds)
    return "late"


def block(seconds: float = 1000) -> str:
    """Answer late, and nothing else meanwhile."""
    Path("blocks").write_text("x")
    time.sleep(seconds)
    return "late"


def spin() -> str:
    """Never answer, and take all the processor."""
    Path("spins").write_text("x")
    while True:
        pass


def tick() -> str:
    """Change a file from now on."""

    def change() -> None:
        while True:
            Path("ticking").write_text(str(time.time_ns()))
            time.sleep(0.05)

    threading.Thread(target=change, daemon=True).start()
    return "ticking"


def die(words: str = "told to") -> str:
    """End in the middle of a call."""
    print("one line\n" + words, file=sys.stderr, flush=True)
    os._exit(7)


def flood(size: int) -> str:
    """Send a message that is far too long."""
    for _ in range(size // 65536):
        os.write(1, b"x" * 65536)
    return "never seen"


def large(size: int) -> str:
    """Give much text."""
    return "x" * size


def junk() -> str:
    """Print what is no message, as careless programs do."""
    print("hello, I am a server\n\n\x00\xff{", flush=True)
    return "well"


def babble(line: str) -> str:
    """Print without end."""
    data = (line + "\n").encode() * 1000
    while True:
        os.write(1, data)


def refuse() -> str:
    """Fail."""
    raise ValueError("no, not that")


def picture(torn: bool = False) -> list[dict[str, Any]]:
    """Give text and a picture of one pixel."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\0")),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks[: 2 if torn else 3]:
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    image = {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": "image/png"}
    return [{"type": "text", "text": "Here it is:"}, image]


TOOLS = (where, write, count, hang, block, spin, tick, die, flood, large, junk, babble, refuse, picture)
APART = (hang,)


def definitions() -> list[dict[str, Any]]:
    if len(sys.argv) > 1:
        return json.loads(Path(sys.argv[1]).read_text())
    return [{"name": tool.__name__, "description": tool.__doc__, "inputSchema": OBJECT} for tool in TOOLS]


def send(message: dict[str, Any]) -> None:
    data = (json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode()
    while data:
        data = data[os.write(1, data) :]


def call(id: Any, params: dict[str, Any]) -> None:
    tool = next((tool for tool in TOOLS if tool.__name__ == params["name"]), None)
    if tool is None:
        send({"id": id, "result": {"content": [{"type": "text", "text": f"called {params['name']}"}]}})
        return
    try:
        given = tool(**params.get("arguments") or {})
    except Exception as exc:
        send({"id": id, "result": {"content": [{"type": "text", "text": str(exc)}], "isError": True}})
        return
    content = given if isinstance(given, list) else [{"type": "text", "text": given}]
    send({"id": id, "result": {"content": content}})


def main() -> None:
    global calls
    for line in sys.stdin:
        message = json.loads(line)
        id, params = message.get("id"), message.get("params") or {}
        match message.get("method"):
            case "initialize":
                capabilities = {"tools": {"listChanged": True}}
                about = {"name": "mcp_program", "version": "1"}
                result = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": about}
                send({"id": id, "result": result})
            case "tools/list":
                send({"id": id, "result": {"tools": definitions()}})
            case "tools/call":
                calls += 1
                if params["name"] in {tool.__name__ for tool in APART}:
                    threading.Thread(target=call, args=(id, params), daemon=True).start()
                else:
                    call(id, params)
            case _ if id is not None:
                send({"id": id, "error": {"code": -32601, "message": "Method not found"}})


if __name__ == "__main__":
    main()
