"""What a tool of an MCP server gives, as a result for the engine."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic_ai.messages import BinaryContent

from turnwire.tools import limits
from turnwire.tools.images import SNIFF_BYTES, Damaged, kind_of, read_image

Result = str | list[str | BinaryContent]


def result_of(content: Sequence[Any], structured: Any = None) -> Result:
    """`content`: `mcp_types.ContentBlock`s. Text as it is, images that are whole; a line tells of what is neither.
    Without any, what is `structured` is written as JSON."""
    if not content:
        return "" if structured is None else msgspec.json.encode(structured).decode()
    parts = [_part(part) for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def text_of(result: Result) -> str:
    """The text of a result alone."""
    return result if isinstance(result, str) else "\n".join(part for part in result if isinstance(part, str))


def _part(part: Any) -> str | BinaryContent:
    match part.type:
        case "text":
            return part.text
        case "image":
            return _image(part.data)
        case "audio":
            return _not_shown(part.mime_type, part.data)
        case "resource":
            text = getattr(part.resource, "text", None)
            return text if text is not None else _not_shown(part.resource.mime_type, part.resource.blob)
        case "resource_link":
            return f"[{part.name}: {part.uri}]"
        case other:
            return f"[{other}: not shown.]"


def _image(encoded: str) -> str | BinaryContent:
    """A torn one would be refused by the provider, and so would each request after it that carries it along."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return "[An image that is damaged: not shown.]"
    kind = kind_of(data[:SNIFF_BYTES])
    if kind is None:
        return "[An image of a kind that models don't take: not shown.]"
    if len(data) > limits.READ_IMAGE_BYTES_MAX:
        return f"[{kind}, {len(data)} bytes long; at most {limits.READ_IMAGE_BYTES_MAX} can be shown.]"
    try:
        image = read_image(data)
    except Damaged as error:
        return f"[{kind}, but it {error}: not shown.]"
    if max(image.width, image.height) > limits.READ_IMAGE_SIDE_MAX:
        size = f"{image.width} × {image.height} pixels large"
        return f"[{kind}, {size}; at most {limits.READ_IMAGE_SIDE_MAX} on a side can be shown.]"
    return BinaryContent(data, media_type=kind)


def _not_shown(media_type: str | None, encoded: str) -> str:
    kind = " ".join((media_type or "data").split())[:60]
    size = len(encoded) // 4 * 3 - encoded[-2:].count("=")
    return f"[{kind}, {size:,} bytes: not shown, since it is no text and no image.]"
