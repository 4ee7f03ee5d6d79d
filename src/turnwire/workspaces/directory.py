"""Workspaces as directories of the server's own file system.

A workspace is `<root>/<tenant>/shared`, or `<root>/<tenant>/private/<session id>`. How a path stays inside is
told in resolve.py. What is opened is opened without waiting (O_NONBLOCK) and must turn out to be a regular
file by the status of the open file itself, so that no FIFO, socket or device can hang a reader.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from turnwire.seams.workspace import (
    Entry,
    File,
    FileAccess,
    InvalidPath,
    Listing,
    Mount,
    NotAFile,
    NotAFolder,
    NotEmpty,
    NotFound,
    OutsideWorkspace,
    Parts,
    Scope,
    Upload,
    Workspace,
    lexical,
    parse_path,
    show,
)
from turnwire.workspaces.mounting import open_mounts
from turnwire.workspaces.quota import NO_QUOTA, Account, Quota
from turnwire.workspaces.removal import remove_tree
from turnwire.workspaces.resolve import MakeFolder, Place, foreign_errors, locate, lstat, out_of_scope
from turnwire.workspaces.upload import (
    TEMPORARY,
    DirectoryUpload,
    describe,
    give_to_owner_of,
    must_be_as_seen,
    must_be_file,
    remove_leftovers,
    turn_at,
)

SWAPS_MAX = 16
"""How often an open is tried again when the name was swapped for a link meanwhile: a file that is replaced
all the time is still read, and someone who swaps in a loop can't hold a worker thread."""

SCANNED_MAX = 200_000
"""Names looked at for one listing, those that are not shown included: a folder of millions of FIFOs takes
under a second."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class DirectoryWorkspaces:
    """The workspaces of all tenants, below one directory, which is made when it is first needed."""

    def __init__(self, root: Path, *, fsync: bool = False, openat2: bool = True, quota: Quota = NO_QUOTA) -> None:
        """`quota` is of each workspace.

        With `fsync` a written file survives a power failure once `commit` returns; without, it may be lost
        or empty then, as after any program's write. `openat2` off: paths are walked even where the kernel
        could do it.
        """
        self._root, self._fsync, self._openat2, self._quota = root, fsync, openat2, quota
        self._accounts: dict[Path, Account] = {}

    def shared(self, tenant: str, access: FileAccess) -> Workspace:
        """The workspace that all sessions of a tenant share and that outlives them, seen through `access`."""
        return self._workspace(self._root / _plain(tenant) / "shared", access)

    def private(self, tenant: str, session_id: str, access: FileAccess) -> Workspace:
        """The workspace of one session."""
        return self._workspace(self.private_directory(tenant, session_id), access)

    def private_directory(self, tenant: str, session_id: str) -> Path:
        """Where a session's private files are, or would be."""
        return self._root / _plain(tenant) / "private" / _plain(session_id)

    def remove_private(self, tenant: str, session_id: str) -> None:
        """Delete a session's private workspace, if there is one. Slow for many files: call it in a worker
        thread."""
        remove_tree(self.private_directory(tenant, session_id))
        self._accounts.pop(self.private_directory(tenant, session_id), None)

    def remove_leftovers(self, before: float) -> int:
        """Delete what uploads before this time, in epoch seconds, left when the server died; how many files. For
        the one server that holds the folder, with the time of its start. Slow for many files."""
        return remove_leftovers(self._root, before)

    def _workspace(self, directory: Path, access: FileAccess) -> "DirectoryWorkspace":
        directory.mkdir(parents=True, exist_ok=True)
        account = None
        if self._quota.is_set:
            account = self._accounts.setdefault(directory, Account(directory, self._quota))
        return DirectoryWorkspace(directory, access, fsync=self._fsync, openat2=self._openat2, account=account)


def _plain(name: str) -> str:
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't name a directory of workspaces")
    return name


class DirectoryWorkspace:
    """One directory as a workspace, seen through a `FileAccess`."""

    def __init__(
        self,
        directory: Path,
        access: FileAccess,
        *,
        fsync: bool = False,
        openat2: bool = True,
        account: Account | None = None,
    ) -> None:
        self.directory = directory
        self._access, self._fsync, self._openat2, self._account = access, fsync, openat2, account

    @property
    def quota(self) -> Account | None:
        return self._account

    def stat(self, path: str) -> Entry:
        parts = _wanted(path, self._access.read, folders_too=True)
        with self._locate(parts, self._access.read) as place:
            _check(self._access.read, place.parts, parts, folders_too=True)
            status = _present(place, parts)
            folder = stat.S_ISDIR(status.st_mode)
            _check(self._access.read, place.parts, parts, folders_too=folder)
            if not folder and not stat.S_ISREG(status.st_mode):
                raise NotAFile(f"'{show(parts)}' is neither a file nor a folder.")
            return describe(place.parts, status)

    def open(self, path: str) -> File:
        parts = _wanted(path, self._access.read)
        for _ in range(SWAPS_MAX):
            with self._locate(parts, self._access.read) as place:
                _check(self._access.read, place.parts, parts)
                must_be_file(_present(place, parts), parts)
                with foreign_errors(parts):
                    opened = _open_unless_swapped(place)
                if opened is not None:
                    return _file(opened, place.parts, parts)
        raise NotFound(f"'{show(parts)}' keeps changing while it is opened.")

    def list(self, path: str = "", *, entries_max: int) -> Listing:
        scope = self._access.read
        parts = _wanted(path, scope, folders_too=True)
        with self._locate(parts, self._access.read) as place:
            _check(scope, place.parts, parts, folders_too=True)
            if not stat.S_ISDIR(_present(place, parts).st_mode):
                raise NotAFolder(f"'{show(parts)}' is not a folder.")
            with foreign_errors(parts):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folder = os.open(place.name, flags, dir_fd=place.folder)
                try:
                    return _listing(folder, place.parts, scope, entries_max)
                finally:
                    os.close(folder)

    def put(
        self, path: str, *, bytes_max: int, expected_etag: str | None = None, bytes_expected: int | None = None
    ) -> Upload:
        parts = _wanted(path, self._access.write)
        if not lexical(parts) or path.endswith("/"):
            raise InvalidPath(f"'{path}' names no file.")
        made: list[Parts] = []

        def make(folder: int, name: bytes, real: Parts) -> None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
                give_to_owner_of(folder, name)
                made.append(real)

        try:
            with self._locate(parts, self._access.write, make) as place:
                _check(self._access.write, place.parts, parts)
                if place.status is not None:
                    must_be_file(place.status, parts)
                with foreign_errors(parts):
                    return DirectoryUpload(
                        place,
                        bytes_max=bytes_max,
                        expected_etag=expected_etag,
                        fsync=self._fsync,
                        undo=lambda: self._remove_empty(made),
                        account=self._account,
                        bytes_expected=bytes_expected,
                    )
        except BaseException:
            self._remove_empty(made)
            raise

    def delete(self, path: str, *, expected_etag: str | None = None) -> None:
        parts = _wanted(path, self._access.write)
        if not lexical(parts):
            raise InvalidPath("The workspace itself can't be deleted.")
        # A link that leads outside is as much outside as what it leads to; a dangling one is only itself.
        with contextlib.suppress(NotFound, NotAFolder), self._locate(parts, self._access.write) as place:
            _check(self._access.write, place.parts, parts)
        with locate(self.directory, parts, self._access.write, follow_last=False, fast=self._openat2) as place:
            _check(self._access.write, place.parts, parts)
            with foreign_errors(parts), turn_at(place.folder, place.name):
                status = _present(place._replace(status=lstat(place.folder, place.name)), parts)
                if not stat.S_ISLNK(status.st_mode):  # A caller sees what a link leads to, never the link.
                    must_be_as_seen(status, expected_etag, parts)
                if not stat.S_ISDIR(status.st_mode):
                    os.unlink(place.name, dir_fd=place.folder)
                    return
                try:
                    os.rmdir(place.name, dir_fd=place.folder)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    raise NotEmpty(f"The folder '{show(parts)}' is not empty.") from error

    def mounts(self, owner: int | None = None) -> Sequence[Mount]:
        return open_mounts(self.directory, self._access, owner)

    def _remove_empty(self, folders: Sequence[Parts]) -> None:
        """Undo the making of folders, deepest first, as far as nobody has put anything in."""
        for parts in reversed(folders):
            with contextlib.suppress(OSError, NotFound, NotAFolder, OutsideWorkspace):
                with locate(self.directory, parts, self._access.write, follow_last=False, fast=self._openat2) as place:
                    os.rmdir(place.name, dir_fd=place.folder)

    def _locate(
        self, parts: Parts, scope: Scope, make: MakeFolder | None = None
    ) -> contextlib.AbstractContextManager[Place]:
        return locate(self.directory, parts, scope, make=make, fast=self._openat2)


def _wanted(path: str, scope: Scope, *, folders_too: bool = False) -> Parts:
    """The components of a path whose own words are in scope: a path outside is refused whether it exists or
    not."""
    parts = parse_path(path)
    _check(scope, lexical(parts), parts, folders_too=folders_too)
    return parts


def _check(scope: Scope, real: Parts, wanted: Parts, *, folders_too: bool = False) -> None:
    if not (scope.leads_into(real) if folders_too else scope.covers(real)):
        raise out_of_scope(wanted)


def _present(place: Place, wanted: Parts) -> os.stat_result:
    if place.status is None:
        raise NotFound(f"There is no '{show(wanted)}' in the workspace.")
    return place.status


def _open_unless_swapped(place: Place) -> int | None:
    """The file open for reading; None when the name became a link, or nothing, since it was looked at."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(place.name, flags, dir_fd=place.folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT):
            return None
        raise


def _file(opened: int, real: Parts, wanted: Parts) -> File:
    try:
        status = os.fstat(opened)
        must_be_file(status, wanted)
        return File(describe(real, status), os.fdopen(opened, "rb"))
    except BaseException:
        os.close(opened)
        raise


def _listing(folder: int, parts: Parts, scope: Scope, entries_max: int) -> Listing:
    entries: list[Entry] = []
    complete = True
    with os.scandir(folder) as names:
        for scanned, found in enumerate(names):
            if scanned >= SCANNED_MAX or len(entries) >= entries_max:
                complete = False
                break
            entry = _listed(found, parts, scope)
            if entry is not None:
                entries.append(entry)
    entries.sort(key=lambda entry: entry.name)
    return Listing(entries, complete)


def _listed(found: os.DirEntry[str], folder: Parts, scope: Scope) -> Entry | None:
    """The entry of a name in a folder, None for what is not shown."""
    name = os.fsencode(found.name)
    parts = (*folder, name)
    if found.is_dir(follow_symlinks=False):
        if not scope.leads_into(parts):
            return None
    elif TEMPORARY.fullmatch(name) or not found.is_file(follow_symlinks=False) or not scope.covers(parts):
        return None
    try:
        return describe(parts, found.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None  # Deleted since the folder was read.
