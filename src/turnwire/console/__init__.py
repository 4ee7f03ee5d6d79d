"""The web console: a page on the public API alone, and the files that it is made of.

`static/` is built from `console/` at the root of the repository and is served as it stands, so nothing has to be built
to run it.

    GET /                                 index.html, with %ASSETS% replaced by `assets/<digest>`
    GET /assets/<digest>/<path>           any other file

The digest is of all the files together: what an address names never changes, and browsers keep it for good.
"""

import gzip
import hashlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

STATIC = Path(__file__).with_name("static")

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""The endings that are served; a file with another one is none of the console."""


class Asset(NamedTuple):
    """A file, its bytes as they stand and gzipped, and the ETag of both."""

    media_type: str
    body: bytes
    gzipped: bytes
    etag: str


class Assets:
    """The files of a folder, read once: a few hundred kB."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder

    @cached_property
    def _bodies(self) -> dict[str, bytes]:
        paths = (path for path in self._folder.rglob("*") if path.is_file() and path.suffix in TYPES)
        return {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in sorted(paths)}

    @cached_property
    def digest(self) -> str:
        """Changes whenever a file does."""
        whole = hashlib.sha256()
        for name, body in self._bodies.items():
            whole.update(b"%b\0%d\0%b" % (name.encode(), len(body), body))
        return whole.hexdigest()[:16]

    @cached_property
    def _assets(self) -> dict[str, Asset]:
        return {name: self._asset(name, body) for name, body in self._bodies.items()}

    def _asset(self, name: str, body: bytes) -> Asset:
        if name == "index.html":
            body = body.replace(b"%ASSETS%", f"assets/{self.digest}".encode())
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        # Without a time in it, so that the same file gives the same bytes on every server.
        return Asset(TYPES[Path(name).suffix], body, gzip.compress(body, 9, mtime=0), etag)

    def find(self, name: str) -> Asset | None:
        """The file of this relative path, if it is one of the console's."""
        return self._assets.get(name)
