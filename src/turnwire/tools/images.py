"""What kind of image some bytes are, how large, and whether they are whole: read from the formats' own headers.

Nothing is decoded. PNG's chunks are checked by their sums; of the others only that they reach their end: a provider
refuses a request with a torn image in it, and would refuse each one after it that carries the image along.
"""

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

SNIFF_BYTES = 16
"""So much of a file's beginning tells whether it is an image."""


class Image(NamedTuple):
    """Width and height are pixels."""

    media_type: str
    width: int
    height: int


class Damaged(Exception):
    """It begins as an image does, but is no whole one; the text says what is wrong with it."""


def kind_of(beginning: bytes) -> str | None:
    """The media type of an image that begins so; None for anything else."""
    if beginning.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if beginning.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if beginning.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if beginning.startswith(b"RIFF") and beginning[8:12] == b"WEBP":
        return "image/webp"
    return None


def read_image(data: bytes) -> Image:
    """What image this is, of one of the four kinds. Raises `Damaged`."""
    kind = kind_of(data)
    assert kind is not None
    try:
        width, height = _SIZES[kind](data)
    except (struct.error, IndexError):
        raise Damaged("is cut off") from None
    if not width or not height:
        raise Damaged("has no pixels")
    return Image(kind, width, height)


def _png(data: bytes) -> tuple[int, int]:
    """<https://www.w3.org/TR/png/#5Chunk-layout>"""
    if data[12:16] != b"IHDR":
        raise Damaged("has no header")
    size: tuple[int, int] = struct.unpack_from(">II", data, 16)
    at, view = 8, memoryview(data)
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        (said,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(view[at + 4 : end]) != said:
            raise Damaged("is damaged")
        if name == b"IEND":
            return size
        at = end + 4


def _jpeg(data: bytes) -> tuple[int, int]:
    """<https://www.w3.org/Graphics/JPEG/itu-t81.pdf>, annex B"""
    at, size = 2, None
    while True:
        if data[at] != 0xFF:
            raise Damaged("is damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + length
        if marker == 0xDA:
            break
    if size is None:
        raise Damaged("has no size")
    if data.rfind(b"\xff\xd9", at) < 0:
        raise Damaged("is cut off")
    return size


def _gif(data: bytes) -> tuple[int, int]:
    """<https://www.w3.org/Graphics/GIF/spec-gif89a.txt>"""
    if not data.rstrip(b"\0").endswith(b"\x3b"):
        raise Damaged("is cut off")
    return struct.unpack_from("<HH", data, 6)


def _webp(data: bytes) -> tuple[int, int]:
    """<https://developers.google.com/speed/webp/docs/riff_container>"""
    (length,) = struct.unpack_from("<I", data, 4)
    if len(data) < length + 8:
        raise Damaged("is cut off")
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise Damaged("is damaged")


_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _webp,
}
