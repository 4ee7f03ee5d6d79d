"""Small real images: PNGs are made here, the others were written by Pillow. All but PNGs are 7 × 5 pixels."""

import base64
import struct
import zlib


def png(width: int, height: int, *, seed: int = 0, padding: int = 0) -> bytes:
    """A PNG of one colour; `padding`: bytes of a chunk that decoders skip."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + bytes((seed % 256, seed // 256 % 256, 99)) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    extra = chunk(b"zzTw", bytes(padding)) if padding else b""
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


GIF = base64.b64decode("R0lGODdhBwAFAIEAAMgeHgAAAAAAAAAAACwAAAAABwAFAAAIDAABCBxIsKDBgwcDAgA7")
WEBP = base64.b64decode("UklGRjoAAABXRUJQVlA4IC4AAACwAQCdASoHAAUAAUAmJaACdLoABDAAAP7x3I/4DdfFtMv/vYL/3YL/3YL/WwAA")
WEBP_LOSSLESS = base64.b64decode("UklGRh4AAABXRUJQVlA4TBEAAAAvBgABAAdQjyLXo/+BiOh/AAA=")
WEBP_EXTENDED = base64.b64decode(
    "UklGRl4AAABXRUJQVlA4WAoAAAAQAAAABgAABAAAQUxQSAoAAAABB9CxiAhERP8DVlA4IC4AAACwAQCdASoHAAUAAUAmJaACdLoABDAAAP7x3I/4"
    "DdfFtMv/vYL/3YL/3YL/WwAA"
)
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L2u71////m8H////6"
    "/+b9//j/2wBDASstLTw1PHZBQXb4pYyl+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj/wAARCAAFAAcD"
    "ASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAT/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAAAwX/xAAUEQEA"
    "AAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCYASg//9k="
)
SMALL = {
    "image/png": png(7, 5),
    "image/jpeg": JPEG,
    "image/gif": GIF,
    "image/webp": WEBP,
}


def decode_png(data: bytes) -> list[list[tuple[int, int, int]]]:
    """The pixels of a PNG with 8 bits a channel, RGB or RGBA, row by row; transparency is dropped."""
    width, height, depth, kind, _, _, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    assert (depth, interlace) == (8, 0) and kind in (2, 6), "not what this decoder knows"
    packed, at = b"", 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    step = 3 if kind == 2 else 4
    raw, above, rows = zlib.decompress(packed), bytearray(width * step), []
    for y in range(height):
        start = y * (width * step + 1)
        above = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + width * step]), above, step)
        rows.append([(above[i], above[i + 1], above[i + 2]) for i in range(0, width * step, step)])
    return rows


def _unfiltered(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    """<https://www.w3.org/TR/png/#9Filter-types>"""
    for i in range(len(row)):
        left, up, corner = (row[i - step], above[i], above[i - step]) if i >= step else (0, above[i], 0)
        match kind:
            case 1:
                row[i] = row[i] + left & 255
            case 2:
                row[i] = row[i] + up & 255
            case 3:
                row[i] = row[i] + (left + up) // 2 & 255
            case 4:
                nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
                row[i] = row[i] + nearest & 255
            case _:
                assert kind == 0
    return row
