"""What a tool of an MCP server gives, as the text of a result."""

from collections.abc import Sequence
from typing import Any

import msgspec


def text_of(content: Sequence[Any], structured: Any = None) -> str:
    """`content`: `mcp_types.ContentBlock`s. Text as it is; what is no text is told of in one line. Without any, what is
    `structured` is written as JSON."""
    if not content:
        return "" if structured is None else msgspec.json.encode(structured).decode()
    return "\n".join(map(_part, content))


def _part(part: Any) -> str:
    match part.type:
        case "text":
            return part.text
        case "image" | "audio":
            return _not_shown(part.mime_type, part.data)
        case "resource":
            text = getattr(part.resource, "text", None)
            return text if text is not None else _not_shown(part.resource.mime_type, part.resource.blob)
        case "resource_link":
            return f"[{part.name}: {part.uri}]"
        case other:
            return f"[{other}: not shown.]"


def _not_shown(media_type: str | None, base64: str) -> str:
    kind = " ".join((media_type or "data").split())[:60]
    size = len(base64) // 4 * 3 - base64[-2:].count("=")
    return f"[{kind}, {size:,} bytes: not shown, as a tool's result is text.]"
