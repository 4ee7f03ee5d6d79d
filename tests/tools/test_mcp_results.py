"""What tools of MCP servers give, as results for the engine."""

import base64
from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic_ai.messages import BinaryContent

from pictures import SMALL, png
from turnwire.tools.mcp.results import result_of, text_of


def image(data: bytes, media_type: str = "image/png") -> ImageContent:
    return ImageContent(data=base64.b64encode(data).decode(), mime_type=media_type)


@pytest.mark.parametrize(
    ("content", "structured", "given"),
    [
        ([], None, ""),
        ([], {"a": [1, None]}, '{"a":[1,null]}'),
        ([TextContent(text='["a",  1.0]')], {"result": ["a", 1.0]}, '["a",  1.0]'),
        ([TextContent(text="one"), TextContent(text="two\n")], None, "one\ntwo\n"),
        ([AudioContent(data="AAAA", mime_type="audio/wav")], None, "[audio/wav, 3 bytes: not shown"),
        (
            [EmbeddedResource(resource=TextResourceContents(uri="file:///a", text="inside"))],
            None,
            "inside",
        ),
        (
            [EmbeddedResource(resource=BlobResourceContents(uri="file:///a", blob="AAA="))],
            None,
            "[data, 2 bytes: not shown",
        ),
        ([ResourceLink(name="report", uri="file:///r.pdf")], None, "[report: file:///r.pdf]"),
        ([image(b"no image")], None, "[An image of a kind that models don't take: not shown.]"),
        ([ImageContent(data="?", mime_type="image/png")], None, "[An image that is damaged: not shown.]"),
        ([image(png(7, 5)[:-20])], None, "[image/png, but it "),
        ([image(png(9000, 1))], None, "[image/png, 9000 × 1 pixels large; at most 8000 on a side can be shown.]"),
        ([image(png(1, 1, padding=4_000_000))], None, "[image/png, 40000"),
    ],
)
def test_text(content: list[Any], structured: Any, given: str) -> None:
    result = result_of(content, structured)

    assert isinstance(result, str)
    assert result == given if not given.startswith("[") else result.startswith(given)


@pytest.mark.parametrize("media_type", SMALL)
def test_images_are_given_as_what_they_are_whatever_they_are_said_to_be(media_type: str) -> None:
    result = result_of([TextContent(text="See:"), image(SMALL[media_type], "text/html")])

    assert result == ["See:", BinaryContent(SMALL[media_type], media_type=media_type)]
    assert text_of(result) == "See:"
