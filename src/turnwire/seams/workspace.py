"""A session's files: what a workspace promises, which part of it a session sees, and how its paths are
written.

A workspace is a tree of folders and regular files. Links in it are followed as long as they stay inside it;
links, FIFOs, sockets and devices are never listed, and the last three are never opened. A hard link is a file
like any other: nothing tells which of its names came first, and none can be made to a file outside from
inside a sandbox.

Every verb is synchronous and may wait for the disk: call it in a worker thread. A `Workspace` holds nothing
open between calls and may be used from several threads at once; a `File` or an `Upload` belongs to one thread
at a time.

The errors, and the HTTP status that fits each:

    WorkspaceError          any of these, and on its own a failing disk      500
    ├── InvalidPath         the text is no path of a file in a workspace     400
    ├── OutsideWorkspace    leads out of the workspace, or out of scope      403
    ├── AccessDenied        the file's own permissions forbid it             403
    ├── NotFound                                                             404
    ├── NotAFile            a folder, FIFO, socket or device                 409 (GET of a FIFO: 404)
    ├── NotAFolder          a file stands where a folder is wanted           409
    ├── NotEmpty            a folder with something in it can't be deleted   409
    ├── Changed             the file is not the one the caller saw           412
    ├── TooLarge            more bytes than the caller allows                413
    └── NoSpace             disk or quota is full                            507
"""

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, Literal, Protocol, Self

import msgspec

Parts = tuple[bytes, ...]
"""A path in a workspace as its components' bytes; `()` is the workspace itself. File names are bytes to a
kernel."""

INSIDE_NAMES = ("/workspace", "/opt/sandbox/workspace")
"""What the workspace is called inside the sandbox: absolute paths that begin so are paths of the
workspace."""

PATH_BYTES_MAX = 4095
"""Longest path: Linux's own limit (PATH_MAX less its final NUL), so that no path is longer than a kernel
takes."""


class WorkspaceError(Exception):
    """Something about a file that its caller can be told; the message is one sentence that names the path."""


class InvalidPath(WorkspaceError):
    """The text is not a path of a file in a workspace."""


class OutsideWorkspace(WorkspaceError):
    """The path leads out of the workspace, or out of what the session may read or write."""


class AccessDenied(WorkspaceError):
    """The permissions of the file or its folder forbid it."""


class NotFound(WorkspaceError):
    """There is nothing of that name."""


class NotAFile(WorkspaceError):
    """A folder, FIFO, socket or device where a regular file is wanted."""


class NotAFolder(WorkspaceError):
    """A file where a folder is wanted."""


class NotEmpty(WorkspaceError):
    """A folder that is to be deleted has something in it."""


class Changed(WorkspaceError):
    """The file is no longer the one that the caller saw."""


class TooLarge(WorkspaceError):
    """More bytes than the caller allows."""


class NoSpace(WorkspaceError):
    """The disk or a quota is full."""


class Entry(msgspec.Struct, frozen=True):
    """A file or folder: `path` from the workspace's root, `name` its last component, both as `show` writes
    them.

    `size` is in bytes (0 for a folder), `modified` in epoch seconds. `etag` changes whenever the content
    does.
    """

    path: str
    name: str
    type: Literal["file", "directory"]
    size: int
    modified: float
    etag: str


class Listing(msgspec.Struct, frozen=True):
    """The entries of a folder by name; not `complete` when there were more than the limit."""

    entries: list[Entry]
    complete: bool


class File(msgspec.Struct, frozen=True):
    """A file opened for reading: `stream` is seekable; `entry` describes what was
    opened."""

    entry: Entry
    stream: BinaryIO

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class Upload(Protocol):
    """New content for a file, seen by nobody before `commit`. Left without one, it is as if it had never
    begun."""

    def write(self, data: bytes | memoryview) -> None:
        """Append to the content. Raises TooLarge and NoSpace; then only `abort` is left to do."""
        ...

    def commit(self) -> tuple[Entry, bool]:
        """Make the content the file's, at once and whole; also whether the file is new. Raises Changed."""
        ...

    def abort(self) -> None:
        """Leave no trace. Does nothing after `commit` or another `abort`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Mount(msgspec.Struct, frozen=True):
    """A folder or file of a workspace for a sandbox to show: an open handle, where it belongs, and whether it may be
    written there."""

    fd: int
    parts: Parts
    writable: bool
    at: str = INSIDE_NAMES[0]
    """The folder of the sandbox that `parts` are in."""


class Usage(msgspec.Struct):
    """What a workspace holds: bytes, and files and folders."""

    bytes: int = 0
    files: int = 0


class WorkspaceQuota(Protocol):
    """What a whole workspace may hold, whichever part of it a session sees. May be used from several threads."""

    def known(self) -> Usage | None:
        """What was there at the last look; None: nobody has looked yet. At once."""
        ...

    def look(self) -> Usage:
        """What is there: seen anew when the last look was long ago for what a look takes, or when the disk has lost
        as much room as was left. Slow for many files."""
        ...

    def is_over(self, now: Usage, before: Usage) -> bool:
        """Whether there is more than there may be, and more than there was."""
        ...


class Workspace(Protocol):
    """One session's view of its workspace. Paths are texts as `parse_path` takes them."""

    @property
    def quota(self) -> WorkspaceQuota | None:
        """None: it may hold as much as the disk takes."""
        ...

    def stat(self, path: str) -> Entry:
        """What is at `path`. Raises NotFound, NotAFile for what is neither file nor folder."""
        ...

    def list(self, path: str = "", *, entries_max: int) -> Listing:
        """What is in a folder, at most so many entries. In folders above a scope, only what leads into it."""
        ...

    def open(self, path: str) -> File:
        """Open a regular file for reading; never waits for a writer. Close the file, or use it by `with`."""
        ...

    def put(
        self, path: str, *, bytes_max: int, expected_etag: str | None = None, bytes_expected: int | None = None
    ) -> Upload:
        """Begin to write a file. Folders that are missing above it are made; a file's permissions are kept.

        With `expected_etag`, `commit` raises Changed unless the file has this etag still ("" for: no file). With
        `bytes_expected`, the size that the file is said to get, NoSpace is raised at once where there is no room.
        """
        ...

    def delete(self, path: str, *, expected_etag: str | None = None) -> None:
        """Delete a file, a link or an empty folder; what a link leads to stays. With `expected_etag` it must be what
        the caller saw. Raises Changed, NotEmpty, NotFound."""
        ...

    def mounts(self, owner: int | None = None) -> Sequence[Mount]:
        """What a sandbox is to mount so that it shows what the session may see, in this order. Close each `fd`.

        What may be written can be read there too: no mount is write-only. A write scope that is not there is made, as
        a folder; a read scope that is not there is left out. With `owner`, a server that is root gives the workspace
        to this user first. Raises OutsideWorkspace when a scope leads through a link.
        """
        ...


# ── Paths as text ───────────────────────────────────────────────────────────────────────────────────────────

# A name's bytes that are no printable text are written `\xHH`, and so is the backslash of a name that would
# otherwise read like one. So each name has one way to be shown, and what is shown is accepted as a path
# again.
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})")
# Control characters and line separators would let a file name fake lines of a listing, the bidirectional
# controls would let it read as another name; surrogates stand for bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def show_name(name: bytes) -> str:
    """One component as text: printable, and `parse_path` gives the same bytes back."""
    text = _LOOKS_ESCAPED.sub(r"\\x5c", name.decode("utf-8", "surrogateescape"))
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def show(parts: Parts) -> str:
    """A path as text, `""` for the workspace itself."""
    return "/".join(map(show_name, parts))


def parse_path(text: str) -> Parts:
    """The components of a path: from the workspace's root, or absolute by one of its inside names.

    `.` and doubled or final slashes are dropped. `..` stays, because what it means depends on links; but a
    path that climbs above the root as it is written is refused. Raises InvalidPath, OutsideWorkspace.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPath("A path can't hold half of a surrogate pair.") from error
    if len(raw) > PATH_BYTES_MAX:
        raise InvalidPath(f"The path is {len(raw)} bytes long; {PATH_BYTES_MAX} is the most.")
    raw = below_inside_name(raw)
    if raw is None:
        raise OutsideWorkspace(f"'{text}' is outside the workspace. Use a path relative to it.")
    parts = tuple(_unescaped(part) for part in raw.split(b"/") if part not in (b"", b"."))
    lexical(parts)
    return parts


def _unescaped(part: bytes) -> bytes:
    name = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), part)
    if b"\0" in name:
        raise InvalidPath("A path can't hold a NUL byte.")
    if b"/" in name or (name != part and name in (b"", b".", b"..")):
        raise InvalidPath(f"'{part.decode()}' is not a file name.")
    return name


def below_inside_name(raw: bytes) -> bytes | None:
    """The rest of an absolute path under an inside name, a relative path as it is, None for any other."""
    if not raw.startswith(b"/"):
        return raw
    for name in INSIDE_NAMES:
        prefix = name.encode()
        if raw == prefix or raw.startswith(prefix + b"/"):
            return raw[len(prefix) :].lstrip(b"/")
    return None


def lexical(parts: Parts) -> Parts:
    """The path with each `..` taken at its word, as if no component were a link. Raises OutsideWorkspace."""
    plain: list[bytes] = []
    for part in parts:
        if part != b"..":
            plain.append(part)
        elif plain:
            plain.pop()
        else:
            raise OutsideWorkspace(f"'{show(parts)}' is outside the workspace.")
    return tuple(plain)


# ── Which part of a workspace a session sees ────────────────────────────────────────────────────────────────


class Scope(msgspec.Struct, frozen=True):
    """A set of prefixes of paths, by whole components: `pub` covers `pub/x`, not `pub2`; `()` covers
    everything."""

    prefixes: tuple[Parts, ...]

    def covers(self, parts: Parts) -> bool:
        """Whether the path is one of the prefixes or below one."""
        return any(parts[: len(prefix)] == prefix for prefix in self.prefixes)

    def leads_into(self, parts: Parts) -> bool:
        """Whether the path is in the scope, or a folder on the way to it. The workspace itself always is."""
        return not parts or self.covers(parts) or any(prefix[: len(parts)] == parts for prefix in self.prefixes)


EVERYTHING = Scope(((),))
NOTHING = Scope(())


class FileAccess(msgspec.Struct, frozen=True):
    """What of a workspace a session may read and what it may write; neither implies the other."""

    read: Scope = EVERYTHING
    write: Scope = EVERYTHING

    @classmethod
    def parse(cls, lists: Mapping[str, list[str]] | None) -> Self:
        """From a session's `file_access`: None is everything, a list that is missing in it is nothing.

        Raises InvalidPath when a prefix is absolute or has a component `.` or `..`.
        """
        if lists is None:
            return cls()
        return cls(read=_scope(lists, "read"), write=_scope(lists, "write"))


def _scope(lists: Mapping[str, list[str]], key: str) -> Scope:
    prefixes: list[Parts] = []
    for text in lists.get(key) or ():
        if text.startswith("/") or any(part in (".", "..") for part in text.split("/")):
            raise InvalidPath(f"file_access.{key}: '{text}' must be relative to the workspace, without '.' and '..'.")
        try:
            prefixes.append(parse_path(text))
        except InvalidPath as exc:
            raise InvalidPath(f"file_access.{key}: {exc}") from exc
    return Scope(tuple(prefixes))
