"""A folder as a zip file, made while it is sent; synchronous, over a `Workspace`.

What is held in memory is one piece, the names of the folders that are on the way, and some hundred bytes for each file
that the zip's directory will list: hence the limit of files.
"""

import io
import time
import zipfile
from collections.abc import Generator, Iterator

from turnwire.seams.workspace import Entry, File, NotAFile, NotFound, OutsideWorkspace, TooLarge, Workspace
from turnwire.server.filetypes import is_packed

ZIP_ENTRIES_MAX = 50_000
"""Files and folders of one zip: each stays in memory until its end, some 50 MB in all at this number."""

ZIP_FOLDER_ENTRIES_MAX = ZIP_ENTRIES_MAX + 1

COMPRESSION_LEVEL = 1
"""zlib's fastest: text becomes a third, at a speed that keeps up with a network."""

PIECE_BYTES = 256 * 1024

_ZIP64_FROM = 2**31 - 2**20
"""Files from this size on have 64-bit sizes in the zip; below it, the oldest readers take them too."""

_YEARS = (1980, 2107)
"""What a zip's time stamps can say."""


def check_zip(workspace: Workspace, folder: str) -> None:
    """Raise what can be known before the first byte is sent: TooLarge, and whatever `list` raises of `folder`."""
    for number, _ in enumerate(_walk(workspace, folder)):
        if number >= ZIP_ENTRIES_MAX:
            raise TooLarge(f"The folder holds more than {ZIP_ENTRIES_MAX} files and folders: ask for a part of it.")


def zip_pieces(workspace: Workspace, folder: str) -> Generator[bytes]:
    """The bytes of the zip: what is in the folder and below, names from the folder on. Links are left out, and what
    is deleted while the zip is made."""
    sink = _Sink()
    above = workspace.stat(folder).path
    skipped = len(above) + 1 if above else 0
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        for entry in _walk(workspace, folder):
            name = entry.path[skipped:]
            if entry.type == "directory":
                archive.writestr(_info(entry, name + "/"), b"")
            else:
                yield from _file(archive, sink, workspace, entry, name)
            if sink.size >= PIECE_BYTES:
                yield sink.take()
    yield sink.take()


def _file(archive: zipfile.ZipFile, sink: "_Sink", workspace: Workspace, entry: Entry, name: str) -> Iterator[bytes]:
    file = _opened(workspace, entry)
    if file is None:
        return
    with file:
        left = file.entry.size
        with archive.open(_info(file.entry, name), "w", force_zip64=left >= _ZIP64_FROM) as member:
            # A file that grows all the while is taken as far as it was when it was opened.
            while left > 0 and (piece := file.stream.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                member.write(piece)
                if sink.size >= PIECE_BYTES:
                    yield sink.take()


def _opened(workspace: Workspace, entry: Entry) -> File | None:
    try:
        return workspace.open(entry.path)
    except (NotFound, NotAFile, OutsideWorkspace):
        return None  # Deleted or replaced since it was listed.


def _info(entry: Entry, name: str) -> zipfile.ZipInfo:
    date = time.gmtime(max(entry.modified, 0))[:6]
    if not _YEARS[0] <= date[0] <= _YEARS[1]:
        date = (min(max(date[0], _YEARS[0]), _YEARS[1]), 1, 1, 0, 0, 0)
    info = zipfile.ZipInfo(name, date)
    folder = name.endswith("/")
    info.external_attr = (0o40755 << 16 | 0x10) if folder else 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if folder or is_packed(name) else zipfile.ZIP_DEFLATED
    return info


def _walk(workspace: Workspace, folder: str) -> Iterator[Entry]:
    """What is below a folder, each folder before what is in it."""
    pending = _entries(workspace, folder)
    while pending:
        entry = pending.pop()
        yield entry
        if entry.type == "directory":
            try:
                pending += _entries(workspace, entry.path)
            except NotFound:
                continue  # Deleted since it was listed.


def _entries(workspace: Workspace, folder: str) -> list[Entry]:
    listing = workspace.list(folder, entries_max=ZIP_FOLDER_ENTRIES_MAX)
    if not listing.complete:
        raise TooLarge(f"The folder '{folder}' holds more than {ZIP_ENTRIES_MAX} files and folders.")
    return listing.entries[::-1]


class _Sink(io.RawIOBase):
    """Where the zip is written to: gathers bytes until they are taken. Like a pipe, it can't seek."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._chunks.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks, self.size = [], 0
        return data
