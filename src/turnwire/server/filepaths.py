"""Paths of workspace files as they stand in a URL.

The framework decodes a URL into text, and what is no UTF-8 is lost there; it takes `%2F` for `/`, too. So paths are
read from the request's raw bytes. They are decoded once: `%252e` is the file name `%2e`. What the bytes mean is
left to the workspace: `%2e%2e` is `..`, and a name cannot hold a `/`, however it was written.
"""

import re
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

from turnwire.protocol.errors import NotFound

_ABOVE = 5
"""Components of `/v1/sessions/{id}/files/` up to the path, the empty one before the first `/` included."""

_NOT_UTF8 = re.compile("[\udc80-\udcff]")


class AnyPath(Convertor[str]):
    """The rest of a URL, line feeds included, which Starlette's own `path` leaves out."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_path", AnyPath())


def path_text(raw: bytes) -> str:
    """A path's bytes as a workspace takes them: bytes that are no UTF-8 are written as `\\xHH`."""
    return _NOT_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", raw.decode("utf-8", "surrogateescape"))


def path_in_url(scope: Scope) -> str:
    """What stands after `/v1/sessions/{id}/files/`. `NotFound` where a `/` before it was written as `%2F`."""
    parts = scope["raw_path"].split(b"?")[0].split(b"/")
    root = scope.get("root_path", "").encode().split(b"/")
    # A proxy may hand the root path on, or strip it.
    if len(root) > 1 and [unquote_to_bytes(part) for part in parts[: len(root)]] == root:
        parts = [b"", *parts[len(root) :]]
    if len(parts) < _ABOVE + 1 or unquote_to_bytes(parts[_ABOVE - 1]) != b"files":
        raise NotFound
    return path_text(unquote_to_bytes(b"/".join(parts[_ABOVE:])))


def path_in_query(scope: Scope) -> str:
    """The parameter `path`, empty when there is none."""
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return next((path_text(value.encode("latin-1")) for name, value in pairs if name == "path"), "")
