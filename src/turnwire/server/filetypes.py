"""What a file is served as: its type, by its name alone, and how a browser is to take it."""

import mimetypes
from urllib.parse import quote

# The library's own table, without this machine's: a file has the same type on every server.
_TYPES = mimetypes.MimeTypes()
for _type, _ending in (
    ("text/markdown", ".md"),
    ("text/csv", ".csv"),
    ("text/x-rust", ".rs"),
    ("text/x-go", ".go"),
    ("text/typescript", ".ts"),
    ("text/plain", ".log"),
    ("application/yaml", ".yaml"),
    ("application/yaml", ".yml"),
    ("application/toml", ".toml"),
    ("application/jsonl", ".jsonl"),
    ("application/vnd.apache.parquet", ".parquet"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".docx"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx"),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", ".pptx"),
    ("image/webp", ".webp"),
    ("image/avif", ".avif"),
    ("audio/ogg", ".ogg"),
    ("audio/flac", ".flac"),
    ("video/x-matroska", ".mkv"),
    ("font/woff", ".woff"),
    ("font/woff2", ".woff2"),
):
    _TYPES.add_type(_type, _ending)

# A compressed file is served as what it is, never as its content with a Content-Encoding: the bytes are the file's.
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

_SHOWN = ("text/plain", "text/csv", "text/markdown", "application/json", "application/pdf")
_SHOWN_KINDS = ("image/", "audio/", "video/")
_NEVER_SHOWN = ("image/svg+xml",)
"""Only what can hold no script is shown by a browser; anything else is a download."""

_PACKED_KINDS = ("image/", "audio/", "video/")
_NOT_PACKED = ("image/svg+xml", "image/bmp", "audio/x-wav")
_PACKED = (
    *_COMPRESSED.values(),
    "application/zip",
    "application/pdf",
    "application/x-7z-compressed",
    "application/vnd.apache.parquet",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
)


def media_type(name: str) -> str:
    """The media type of a file of this name; `application/octet-stream` for an ending that is not known."""
    # As a path and not as a URL, which the library would look for a scheme in.
    kind, encoding = _TYPES.guess_type("./" + name.rpartition("/")[2])
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    return kind or "application/octet-stream"


def content_type(name: str) -> str:
    """The header of that name: text is told to be UTF-8, which is what agents write."""
    kind = media_type(name)
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def disposition(name: str) -> str:
    """`Content-Disposition`: whether a browser shows the file or saves it, and the name that it is saved under."""
    kind = media_type(name)
    shown = kind in _SHOWN or (kind.startswith(_SHOWN_KINDS) and kind not in _NEVER_SHOWN)
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in name)
    value = f'{"inline" if shown else "attachment"}; filename="{plain}"'
    # RFC 6266: the plain name for readers that know nothing else, the whole one for all others.
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='')}"


def is_packed(name: str) -> bool:
    """Whether a file of this name is compressed already, so that to compress it again is in vain."""
    kind = media_type(name)
    return kind in _PACKED or (kind.startswith(_PACKED_KINDS) and kind not in _NOT_PACKED)
