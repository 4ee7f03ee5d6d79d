"""read_file on images: told by their bytes, measured by their headers, refused when no provider would take them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import RunContext, ToolFailed
from pydantic_ai.messages import BinaryContent
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage

from pictures import GIF, JPEG, SMALL, WEBP, WEBP_EXTENDED, WEBP_LOSSLESS, png
from turnwire.seams.tool import ToolContext
from turnwire.seams.workspace import FileAccess
from turnwire.tools.files import FileTools
from turnwire.tools.images import Damaged, Image, kind_of, read_image
from turnwire.tools.limits import READ_IMAGE_BYTES_MAX
from turnwire.workspaces.directory import DirectoryWorkspace


@pytest.mark.parametrize("data", [png(7, 5), JPEG, GIF, WEBP, WEBP_LOSSLESS, WEBP_EXTENDED])
def test_the_size_is_read_from_the_header(data: bytes) -> None:
    assert read_image(data)[1:] == (7, 5)


def test_a_large_png_is_measured() -> None:
    assert read_image(png(640, 480)) == Image("image/png", 640, 480)


@pytest.mark.parametrize("data", [png(7, 5), JPEG, GIF, WEBP, WEBP_LOSSLESS, WEBP_EXTENDED])
def test_every_beginning_of_an_image_is_told_from_the_whole(data: bytes) -> None:
    for length in range(16, len(data) - 1):
        with pytest.raises(Damaged):
            read_image(data[:length])


def test_a_png_with_a_flipped_bit_is_damaged() -> None:
    whole = png(30, 20)
    for at in range(8, len(whole)):
        with pytest.raises(Damaged):
            read_image(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


@given(st.sampled_from([png(1, 1)[:16], JPEG[:4], GIF[:6], WEBP[:16], WEBP_LOSSLESS[:16]]), st.binary(max_size=300))
def test_whatever_follows_the_beginning_it_is_an_image_or_damaged(beginning: bytes, rest: bytes) -> None:
    data = beginning + rest
    assert kind_of(data) is not None
    try:
        image = read_image(data)
    except Damaged:
        return
    assert image.width > 0 and image.height > 0


# The tool.


async def call(ctx: RunContext[ToolContext], path: str) -> Any:
    toolset = FileTools()
    tool = (await toolset.get_tools(ctx))["read_file"]
    return await toolset.call_tool("read_file", {"path": path}, ctx, tool)


async def failure(ctx: RunContext[ToolContext], path: str) -> str:
    with pytest.raises(ToolFailed) as caught:
        await call(ctx, path)
    return caught.value.message


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext[ToolContext]:
    deps = ToolContext("default", "sess_000000000001", DirectoryWorkspace(tmp_path, FileAccess()))
    return RunContext(deps=deps, model=TestModel(), usage=RunUsage())


def write(ctx: RunContext[ToolContext], path: str, data: bytes) -> None:
    with ctx.deps.workspace.put(path, bytes_max=len(data)) as upload:
        upload.write(data)
        upload.commit()


@pytest.mark.parametrize("media_type", SMALL)
async def test_an_image_comes_whole_whatever_its_name(media_type: str, ctx: RunContext[ToolContext]) -> None:
    write(ctx, "plot.txt", SMALL[media_type])

    text, image = await call(ctx, "plot.txt")

    assert text == "plot.txt: 7 × 5 pixels"
    assert isinstance(image, BinaryContent)
    assert (image.data, image.media_type) == (SMALL[media_type], media_type)


async def test_what_only_looks_like_an_image_is_refused(ctx: RunContext[ToolContext]) -> None:
    write(ctx, "torn.png", png(640, 480)[:-20])
    write(ctx, "bomb.png", png(8001, 1))
    write(ctx, "long.png", png(9, 9, padding=READ_IMAGE_BYTES_MAX))
    write(ctx, "none.png", png(0, 9))

    assert "torn.png begins as image/png does, but is cut off" in await failure(ctx, "torn.png")
    assert "8001 × 1 pixels" in await failure(ctx, "bomb.png")
    assert f"at most {READ_IMAGE_BYTES_MAX} can be shown" in await failure(ctx, "long.png")
    assert "has no pixels" in await failure(ctx, "none.png")


async def test_an_svg_is_text_and_another_binary_is_told(ctx: RunContext[ToolContext]) -> None:
    write(ctx, "x.svg", b"<svg/>\n")
    write(ctx, "x.bmp", b"BM\0\0\0\0")

    assert await call(ctx, "x.svg") == "<svg/>\n"
    assert "binary file" in await call(ctx, "x.bmp")
