"""What of a workspace a sandbox may show: open handles of the folders and files that a session's scopes name.

A handle is got a component at a time, each opened in the folder before it and never through a link, so that what is
mounted is what lies in the workspace, whoever swaps names meanwhile.
"""

import contextlib
import os
import stat
from pathlib import Path

from turnwire.seams.workspace import FileAccess, Mount, NotAFile, NotAFolder, OutsideWorkspace, Parts, show
from turnwire.workspaces.resolve import FOLDER, foreign_errors
from turnwire.workspaces.upload import give_to_owner_of

_HANDLE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC


def open_mounts(root: Path, access: FileAccess, owner: int | None) -> list[Mount]:
    """Those of a workspace, shallowest first; one that lies in another of the same rights is left out."""
    wanted = dict.fromkeys(access.write.prefixes, True)
    for prefix in access.read.prefixes:
        if not access.write.covers(prefix):
            wanted[prefix] = False
    mounts: list[Mount] = []
    with contextlib.ExitStack() as undo:
        with foreign_errors(()):
            top = os.open(root, FOLDER | os.O_NOFOLLOW)
            undo.callback(os.close, top)
            if owner is not None:
                give_all_to(top, owner)
        with contextlib.ExitStack() as opened:
            for parts in sorted(wanted, key=lambda parts: (len(parts), parts)):
                if any(
                    mount.writable == wanted[parts] and parts[: len(mount.parts)] == mount.parts for mount in mounts
                ):
                    continue
                with foreign_errors(parts):
                    handle = _open(top, parts, make=wanted[parts])
                if handle is not None:
                    opened.callback(os.close, handle)
                    mounts.append(Mount(handle, parts, wanted[parts]))
            opened.pop_all()
    return mounts


def _open(top: int, parts: Parts, *, make: bool) -> int | None:
    """A handle of what is there; None when nothing is, and it is not to be made (as a folder)."""
    current = os.open(b".", FOLDER, dir_fd=top)
    for depth, name in enumerate(parts, 1):
        try:
            inner = _enter(current, name, make=make)
        except NotADirectoryError:
            raise NotAFolder(f"'{show(parts[: depth - 1])}' is not a folder.") from None
        finally:
            os.close(current)
        if inner is None:
            return None
        current = inner
        kind = os.fstat(current).st_mode
        if stat.S_ISLNK(kind) or not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
            os.close(current)
            if stat.S_ISLNK(kind):
                raise OutsideWorkspace(f"'{show(parts[:depth])}' in the session's file_access is a link.")
            raise NotAFile(f"'{show(parts[:depth])}' is neither a file nor a folder.")
    return current


def _enter(folder: int, name: bytes, *, make: bool) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, _HANDLE, dir_fd=folder)
    if not make:
        return None
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        give_to_owner_of(folder, name)
    return os.open(name, _HANDLE, dir_fd=folder)


def give_all_to(top: int, owner: int) -> None:
    """Make a whole tree a user's own; one whose top is the user's already is left as it is.

    The top comes last, so that a tree that was given halfway is begun again.
    """
    if os.fstat(top).st_uid == owner:
        return
    for _, folders, files, folder in os.fwalk(b".", dir_fd=top, follow_symlinks=False):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                os.chown(name, owner, owner, dir_fd=folder, follow_symlinks=False)
    os.chown(b".", owner, owner, dir_fd=top)
