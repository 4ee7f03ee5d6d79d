"""Files of a session: listed, sent, fetched, deleted. What breaks off goes on where it was, or begins again."""

import io
import os
import posixpath
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from turnwire.client.errors import ClientError
from turnwire.client.records import FileRecord, WrittenFile, read_record
from turnwire.client.state import SessionState
from turnwire.client.steps import Broken, Flow, Hangup, Read, Reply, Request, Source

Progress = Callable[[int, int | None], object]
"""Told of a transfer: bytes so far, and in all where that is known."""

Content = str | os.PathLike[str] | bytes | BinaryIO
"""What is uploaded: a local path, the bytes themselves, or an open binary file."""

QUIET_S = 60.0
"""How long a download may stand still."""


def file_path(state: SessionState, path: str) -> str:
    """The address of a file. ValueError for a path that is empty, or has dots that an HTTP library would fold away."""
    if not path.strip("/") or any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"{path!r} is no path of a file in the workspace.")
    return f"{state.path}/files/{quote(path, safe='/')}"


def read_files(body: bytes) -> list[FileRecord]:
    return read_record(body, list[FileRecord])


def list_files(state: SessionState, path: str) -> Generator[Any, Any, None]:
    """Yields the FileRecords of a folder."""
    yield from state.api.pages(f"{state.path}/files", read_files, {"path": path} if path else None)


def upload(
    state: SessionState, content: Content, path: str | None, progress: Progress | None, *, overwrite: bool
) -> Flow[WrittenFile]:
    source = source_of(content, progress)
    if path is None:
        if isinstance(content, bytes) or not isinstance(content, str | os.PathLike):
            raise ValueError("path: say where in the workspace the file is to be.")
        path = Path(content).name
    headers = {"Content-Type": "application/octet-stream"} | ({} if overwrite else {"If-None-Match": "*"})
    request = Request("PUT", file_path(state, path), headers, body=source)
    reply = yield from state.api.call(request)
    return read_record(reply.body, WrittenFile) if reply.body else WrittenFile(path)


def source_of(content: Content, progress: Progress | None = None) -> Source:
    """The body that `content` is. An open file is read from where it stands, at each try; a pipe only once."""
    if isinstance(content, bytes):
        return Source(lambda: io.BytesIO(content), len(content), progress)
    if isinstance(content, str | os.PathLike):
        return Source(lambda: Path(content).open("rb"), Path(content).stat().st_size, progress)
    if cast("object", content.read(0)) == "":
        raise TypeError("The file is open as text: open it in binary mode ('rb').")
    if not content.seekable():
        return Source(_once(content), None, progress)
    start = content.tell()
    size = content.seek(0, io.SEEK_END) - start
    return Source(lambda: _again(content, start), size, progress)


class _Kept(io.RawIOBase):
    """A file of the caller: closing this leaves it open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def _again(file: BinaryIO, start: int) -> Any:
    file.seek(start)
    return _Kept(file)


def _once(file: BinaryIO) -> Callable[[], Any]:
    """A pipe can't be read a second time: what was taken from it is gone."""
    left = [file]

    def open_() -> Any:
        if not left:
            raise ClientError("The connection broke off, and what was to be sent can't be read a second time.")
        return _Kept(left.pop())

    return open_


def download(
    state: SessionState, path: str, progress: Progress | None = None, *, as_zip: bool = False
) -> Generator[Any, Any, None]:
    """Yields the bytes of a file, or of a folder's zip. After a break it goes on behind the last byte that was had, if
    the file is still the same; a zip can't, and raises Unreachable."""
    api, done, total, etag = state.api, 0, None, None
    params = {"format": "zip"} if as_zip else {}
    address = f"{state.path}/files" if as_zip and not path.strip("/") else file_path(state, path)
    outage = api.outage()
    while True:
        headers = {"Range": f"bytes={done}-", "If-Range": etag} if done and etag else {}
        reply = yield from api.call(Request("GET", address, headers, params), stream=True)
        if done and not _goes_on(reply, done):
            yield Hangup()
            raise ClientError(f"The connection broke off, and '{path}' has changed meanwhile: begin again.")
        if not done:
            total, etag = _about(reply, path, as_zip)
        try:
            while chunk := (yield Read(QUIET_S)):
                outage.got_on()
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
                yield chunk
        except Broken as exc:
            yield Hangup()
            if done and (as_zip or etag is None):
                raise api.unreachable(exc) from exc
            yield from api.after_break(outage, exc)
            continue
        yield Hangup()
        return


def _about(reply: Reply, path: str, as_zip: bool) -> tuple[int | None, str | None]:
    """The size, where it is known, and the state of what is fetched."""
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if not as_zip and kind == "application/json" and "content-length" in reply.headers and _is_list(reply):
        raise ClientError(f"'{path}' is a folder: list it, or fetch it as a zip.")
    length = reply.headers.get("content-length", "")
    # Of what is packed on the way neither the size nor the ranges are those of the bytes that are had.
    if reply.headers.get("content-encoding", "identity").lower() != "identity":
        return None, None
    return int(length) if length.isascii() and length.isdigit() else None, reply.headers.get("etag")


def _goes_on(reply: Reply, done: int) -> bool:
    """Whether the answer is what follows the bytes that are had."""
    begins = reply.headers.get("content-range", f"bytes {done}-").strip().lower()
    return reply.status == 206 and begins.startswith(f"bytes {done}-")


def _is_list(reply: Reply) -> bool:
    """A folder is answered by its list, which has neither a state nor ranges."""
    return "etag" not in reply.headers and "accept-ranges" not in reply.headers


def local_path(path: str, to: str | os.PathLike[str] | None) -> Path:
    """Where a download goes: `to`, in it when that is a folder, else here."""
    name = posixpath.basename(path.rstrip("/"))
    target = Path(name) if to is None else Path(to)
    return target / name if to is not None and target.is_dir() else target


@contextmanager
def written(target: Path) -> Generator[BinaryIO]:
    """A file that becomes `target` when all went well, and else leaves nothing."""
    made = target.with_name(f".{target.name[:80]}-{secrets.token_hex(6)}.part")
    try:
        with made.open("xb") as file:
            yield file
        made.replace(target)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
