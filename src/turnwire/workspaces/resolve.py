"""From a path to an open folder and a name in it, without ever stepping outside a root.

What must hold while somebody swaps components for links: the path that is checked against a session's scope
is the path of what is opened. So no link is ever left to the kernel. Either all components are plain, which
one `openat2` call asserts (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, Linux 5.6 and up), or the path is walked a
component at a time, each opened in the folder before it with O_NOFOLLOW, and links are read and expanded
here. In both cases the real path is known by construction; no name is looked up twice.

Sources: openat2(2), path_resolution(7), open(2) on O_PATH.
"""

import contextlib
import ctypes
import errno
import os
import platform
import stat
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from turnwire.seams.workspace import (
    AccessDenied,
    InvalidPath,
    NoSpace,
    NotAFile,
    NotAFolder,
    NotFound,
    OutsideWorkspace,
    Parts,
    Scope,
    WorkspaceError,
    below_inside_name,
    show,
)

LINKS_MAX = 40
"""Links followed for one path: Linux's own limit (MAXSYMLINKS), so that what works inside the sandbox works
here."""

STEPS_MAX = 4096
"""Components opened for one path, those of links and those opened again after a `..` included: a path has at
most 2,048 components, and without a limit a chain of long links could cost millions."""

# Linux has O_PATH: a handle that needs no permission to read the folder. Elsewhere the folder is opened to be
# read.
FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class Place(NamedTuple):
    """Where a path leads. `folder` is open, of the real folder; `name` is in it (`.` when the path is
    `folder` itself). `parts` is the real path, free of links. `status` is of the name when it was looked at,
    None if there was nothing; it is never a link unless the last link was not to be followed.
    """

    folder: int
    name: bytes
    parts: Parts
    status: os.stat_result | None


MakeFolder = Callable[[int, bytes, Parts], None]
"""Called with an open folder, a name in it and the real path of both when a folder is missing; makes it or
raises."""


@contextlib.contextmanager
def locate(
    root: Path,
    parts: Parts,
    scope: Scope,
    *,
    follow_last: bool = True,
    make: MakeFolder | None = None,
    fast: bool = True,
) -> Generator[Place, None, None]:
    """The place of a path below `root`; its folder is closed with the context.

    The path must lead into `scope` by its own words. The walk looks at nothing that does not, so that links tell
    nothing about what is out of scope, not even whether it exists.

    Raises OutsideWorkspace, NotFound (a folder on the way, never the last name), NotAFolder, InvalidPath,
    AccessDenied.
    """
    place = _locate_plain(root, parts) if fast and openat2 is not None else None
    if place is not None and place.status is not None and follow_last and stat.S_ISLNK(place.status.st_mode):
        os.close(place.folder)
        place = None
    if place is None:
        with foreign_errors(parts):
            place = _Walk(root, parts, scope, follow_last, make).run()
    try:
        yield place
    finally:
        os.close(place.folder)


def _locate_plain(root: Path, parts: Parts) -> Place | None:
    """By one `openat2`; None when the walk must tell what is the matter, or what the links mean."""
    assert openat2 is not None
    if not parts or b".." in parts:
        return None
    try:
        folder = os.open(root, FOLDER)
        try:
            *above, name = parts
            if above:
                inner = openat2(folder, b"/".join(above))
                os.close(folder)
                folder = inner
            return Place(folder, name, parts, lstat(folder, name))
        except BaseException:
            os.close(folder)
            raise
    except OSError:
        return None


class _Walk:
    """One walk from the root. Holds one open folder at a time, however deep it goes."""

    def __init__(self, root: Path, parts: Parts, scope: Scope, follow_last: bool, make: MakeFolder | None) -> None:
        self.root, self.wanted, self.scope, self.follow_last, self.make = root, parts, scope, follow_last, make
        self.pending = list(reversed(parts))
        self.done: list[bytes] = []
        self.links = 0
        self.folder = os.open(root, FOLDER)

    def run(self) -> Place:
        try:
            for _ in range(STEPS_MAX):
                if not self.pending:
                    # The path ends in the folder that is open: the root, or a link to `.`.
                    return Place(self.folder, b".", tuple(self.done), lstat(self.folder, b"."))
                place = self._step(self.pending.pop())
                if place is not None:
                    return place
            raise NotFound(f"'{show(self.wanted)}' goes through too many folders and links.")
        except BaseException:
            os.close(self.folder)
            raise

    def _step(self, name: bytes) -> Place | None:
        """Take one component; the place when it was the last."""
        if name == b"..":
            self._climb()
            return None
        if not self.scope.leads_into((*self.done, name)):
            raise out_of_scope(self.wanted)
        status = lstat(self.folder, name)
        last = not self.pending
        if status is not None and stat.S_ISLNK(status.st_mode) and (self.follow_last or not last):
            self._follow(name)
            return None
        if last:
            return Place(self.folder, name, (*self.done, name), status)
        if status is None:
            self._missing(name)
        elif not stat.S_ISDIR(status.st_mode):
            raise NotAFolder(f"'{show((*self.done, name))}' is not a folder.")
        self._enter(name)
        return None

    def _enter(self, name: bytes) -> None:
        try:
            inner = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=self.folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                raise
            self.pending.append(name)  # It was swapped since it was looked at: look again.
            return
        self._move_to(inner)
        self.done.append(name)

    def _missing(self, name: bytes) -> None:
        real = (*self.done, name)
        if self.make is None:
            raise NotFound(f"There is no '{show(self.wanted)}' in the workspace.")
        self.make(self.folder, name, real)

    def _climb(self) -> None:
        """`..`: begin again from the root, one component less. The kernel's own `..` would lead to wherever
        the folder has been moved to since it was opened."""
        if not self.done:
            raise OutsideWorkspace(f"'{show(self.wanted)}' leads outside the workspace.")
        self.pending.extend(reversed(self.done[:-1]))
        self._restart()

    def _follow(self, name: bytes) -> None:
        self.links += 1
        if self.links > LINKS_MAX:
            raise NotFound(f"'{show(self.wanted)}' goes through more than {LINKS_MAX} links.")
        try:
            target = os.readlink(name, dir_fd=self.folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            self.pending.append(name)  # No link any more: look again.
            return
        # The sandbox shows the workspace at its inside names, so an agent's absolute link there is a link
        # inside.
        relative = below_inside_name(target)
        if relative is None:
            raise OutsideWorkspace(f"'{show(self.wanted)}' leads outside the workspace.")
        if target.startswith(b"/"):
            self._restart()
        self.pending.extend(part for part in reversed(relative.split(b"/")) if part not in (b"", b"."))

    def _restart(self) -> None:
        self._move_to(os.open(self.root, FOLDER))
        self.done.clear()

    def _move_to(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder


def out_of_scope(wanted: Parts) -> OutsideWorkspace:
    return OutsideWorkspace(f"'{show(wanted) or '.'}' is outside what this session may use of the workspace.")


def lstat(folder: int, name: bytes) -> os.stat_result | None:
    """The status of a name in an open folder, links not followed; None when there is nothing."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def foreign_errors(parts: Parts) -> Generator[None, None, None]:
    """The operating system's errors as the seam's."""
    try:
        yield
    except OSError as error:
        raise _translated(error, parts) from error


def _translated(error: OSError, parts: Parts) -> WorkspaceError:
    path = show(parts) or "."
    if error.errno == errno.ENAMETOOLONG:
        return InvalidPath("The path, or a name in it, is longer than the file system takes.")
    if error.errno == errno.EINVAL:
        return InvalidPath(f"The file system takes no file named '{path}'.")
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
        return NotFound(f"There is no '{path}' in the workspace.")
    if error.errno == errno.EISDIR:
        return NotAFile(f"'{path}' is a folder.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return NotAFolder(f"'{path}' is, or lies below, a file.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(f"The permissions of '{path}' forbid it.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"There is no space left to write '{path}'.")
    return WorkspaceError(f"The file system failed at '{path}': {os.strerror(error.errno or 0)}.")


# ── openat2 ─────────────────────────────────────────────────────────────────────────────────────────────────

_SYS_OPENAT2 = 437  # On x86-64 and arm64 alike; Python's os module does not have it.
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _load_openat2() -> Callable[[int, bytes], int] | None:
    """A function that opens a folder below an open folder, through no link; None where the kernel has no such
    call."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return None
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS

    def open_folder(folder: int, path: bytes) -> int:
        how = _OpenHow(FOLDER, 0, resolve)
        size = ctypes.c_size_t(ctypes.sizeof(how))
        opened: int = syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            size,
        )
        if opened < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return opened

    try:
        above = os.open("/", FOLDER)
        try:
            os.close(open_folder(above, b"."))
        finally:
            os.close(above)
    except OSError:  # ENOSYS before Linux 5.6; EPERM under seccomp filters that don't know it.
        return None
    return open_folder


openat2 = _load_openat2()
"""Opens a folder below an open one, through no link: `openat2(folder, b"a/b")`. None where there is no such
call."""
