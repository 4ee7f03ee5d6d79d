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
