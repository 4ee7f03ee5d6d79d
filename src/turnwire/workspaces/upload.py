"""A file that is being written: a hidden file beside its target, renamed over it when it is whole."""

import contextlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from turnwire.seams.workspace import Changed, Entry, NoSpace, NotAFile, Parts, TooLarge, show, show_name
from turnwire.workspaces.quota import Account, Share
from turnwire.workspaces.resolve import Place, foreign_errors, lstat
from turnwire.workspaces.walk import walk

TEMPORARY = re.compile(rb"\.turnwire-[0-9a-f]{16}\.part")
"""Names of files that are being written; never listed. They are in the target's folder, because a rename is
atomic only within one file system."""


_TURNS = tuple(threading.Lock() for _ in range(64))
"""Whose turn it is to change what a name stands for; names share them by their hash."""


def turn_at(folder: int, name: bytes) -> threading.Lock:
    """What to hold between a look at a name in an open folder and the change that rests on it: POSIX has no rename
    on a condition. It is this process's alone, because a lock on the folder itself could be held by a command in
    the sandbox for as long as it likes; writers of other processes still have the microseconds in between."""
    status = os.fstat(folder)
    return _TURNS[hash((status.st_dev, status.st_ino, name)) % len(_TURNS)]


def remove_leftovers(root: Path, before: float) -> int:
    """Delete what uploads left below a directory when the server died; how many files. Slow for many files.

    `before`, in epoch seconds: what was written later belongs to an upload that may be under way.
    """
    removed = 0
    for folder, entry in walk(root):
        name = os.fsencode(entry.name)
        if TEMPORARY.fullmatch(name) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(name, dir_fd=folder)
                    removed += 1
    return removed


class DirectoryUpload:
    """An `Upload` into an open folder. `undo` is called when it is aborted."""

    def __init__(
        self,
        place: Place,
        *,
        bytes_max: int,
        expected_etag: str | None,
        fsync: bool,
        undo: Callable[[], None],
        account: Account | None = None,
        bytes_expected: int | None = None,
    ) -> None:
        self._name, self._parts = place.name, place.parts
        self._bytes_max, self._expected_etag, self._fsync, self._undo = bytes_max, expected_etag, fsync, undo
        self._size = 0
        self._open = True
        self._temporary = b".turnwire-%s.part" % secrets.token_hex(8).encode()
        self._share: Share | None = None
        _check_disk(place, bytes_expected)
        self._folder = os.dup(place.folder)
        try:
            if account is not None:
                replaced = None if place.status is None else place.status.st_size
                self._share = account.open(self._temporary, replaced=replaced, expected=bytes_expected or 0)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._temporary, flags, 0o666, dir_fd=self._folder)
        except BaseException:
            os.close(self._folder)
            if self._share is not None:
                self._share.close(kept=False)
            raise

    def write(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._size > self._bytes_max:
            raise TooLarge(f"'{show(self._parts)}' would be larger than {self._bytes_max} bytes.")
        if self._share is not None:
            self._share.grow(len(data))
        with foreign_errors(self._parts):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def commit(self) -> tuple[Entry, bool]:
        with foreign_errors(self._parts):
            if self._fsync:
                os.fsync(self._file)
            with turn_at(self._folder, self._name):
                before = lstat(self._folder, self._name)
                if before is not None:
                    must_be_file(before, self._parts)
                must_be_as_seen(before, self._expected_etag, self._parts)
                self._take_over(before)
                entry = describe(self._parts, os.fstat(self._file))
                os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._close(kept=True)
        return entry, before is None

    def abort(self) -> None:
        if not self._open:
            return
        try:
            with foreign_errors(self._parts):
                os.unlink(self._temporary, dir_fd=self._folder)
        finally:
            self._close(kept=False)
            self._undo()

    def _take_over(self, before: os.stat_result | None) -> None:
        """The permissions of the file that is replaced, without set-user-id bits. What a server that is root
        makes belongs to whom its folder belongs to, so that the sandbox's user can use it."""
        if os.geteuid() == 0:
            owner = before or os.fstat(self._folder)
            os.fchown(self._file, owner.st_uid, owner.st_gid)
        if before is not None:
            os.fchmod(self._file, stat.S_IMODE(before.st_mode) & 0o777)

    def _close(self, *, kept: bool) -> None:
        self._open = False
        if self._share is not None:
            self._share.close(kept=kept)
        os.close(self._file)
        if self._fsync:
            # The handle may be one that can't be synced (O_PATH), so the folder is opened again.
            folder = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
            os.fsync(folder)
            os.close(folder)
        os.close(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def _check_disk(place: Place, bytes_expected: int | None) -> None:
    """Raise NoSpace when the disk has no room for so many bytes, as far as it tells."""
    if not bytes_expected:
        return
    with contextlib.suppress(OSError):
        disk = os.statvfs(place.folder)
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < bytes_expected:
            raise NoSpace(f"The disk has no room for the {bytes_expected} bytes of '{show(place.parts)}'.")


def describe(parts: Parts, status: os.stat_result) -> Entry:
    """The entry of a file or folder. The etag is made of what changes with the content: inode, size, time."""
    folder = stat.S_ISDIR(status.st_mode)
    return Entry(
        path=show(parts),
        name=show_name(parts[-1]) if parts else "",
        type="directory" if folder else "file",
        size=0 if folder else status.st_size,
        modified=status.st_mtime,
        etag=f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}",
    )


def must_be_as_seen(status: os.stat_result | None, expected_etag: str | None, parts: Parts) -> None:
    """Raise Changed unless a name stands for what the caller saw there: "" for nothing; None asks for no look."""
    if expected_etag is None:
        return
    etag = "" if status is None else describe(parts, status).etag
    if etag != expected_etag:
        raise Changed(f"'{show(parts)}' was changed by someone else meanwhile.")


def must_be_file(status: os.stat_result, parts: Parts) -> None:
    """Raise NotAFile for anything but a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise NotAFile(f"'{show(parts) or '.'}' is a folder.")
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(f"'{show(parts)}' is not a regular file.")


def give_to_owner_of(folder: int, name: bytes) -> None:
    """As root: what was made in an open folder belongs to whom the folder belongs to."""
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=folder, follow_symlinks=False)
