"""Deleting a tree that an agent made.

`shutil.rmtree` recurses and keeps a folder open for each level, so a tree a few thousand levels deep, which a
shell loop makes in a second, defeats it. Here folders inside folders are moved up to the top one first: two
folders are open at a time, whatever the depth. Links are deleted, never followed.
"""

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path

from turnwire.workspaces.resolve import FOLDER, lstat

_FOLDER_TO_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(directory: Path) -> None:
    """Delete a directory and all below it; nothing happens when there is none. Raises OSError."""
    try:
        parent = os.open(directory.parent, _FOLDER_TO_READ)
    except FileNotFoundError:
        return
    try:
        name = os.fsencode(directory.name)
        if lstat(parent, name) is None:
            return
        top = _open_folder(parent, name)
        try:
            while names := os.listdir(top):
                for inner in names:
                    _remove_from_top(top, os.fsencode(inner))
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=parent)
    finally:
        os.close(parent)


def _remove_from_top(top: int, name: bytes) -> None:
    """Delete one name in the top folder; a folder's own folders are moved to the top, for the next round."""
    if not _is_folder(top, name):
        os.unlink(name, dir_fd=top)
        return
    folder = _open_folder(top, name)
    try:
        for inner in map(os.fsencode, os.listdir(folder)):
            if not _is_folder(folder, inner):
                os.unlink(inner, dir_fd=folder)
            elif not _removed_empty(folder, inner):
                # A folder must be writable itself to be moved, since its `..` changes.
                _open_and_close(folder, inner)
                os.rename(inner, secrets.token_hex(16).encode(), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _is_folder(folder: int, name: bytes) -> bool:
    status = lstat(folder, name)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _removed_empty(folder: int, name: bytes) -> bool:
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
            raise
        return False
    return True


def _open_and_close(folder: int, name: bytes) -> None:
    os.close(_open_folder(folder, name))


def _open_folder(folder: int, name: bytes) -> int:
    """Open a folder to read and empty it, whatever permissions the agent left on it."""
    with contextlib.suppress(PermissionError):
        opened = os.open(name, _FOLDER_TO_READ, dir_fd=folder)
        if os.fstat(opened).st_mode & 0o700 == 0o700:
            return opened
        os.close(opened)
    if sys.platform == "linux":
        # Linux changes no permissions by name without following links; through the handle it can't be led
        # astray.
        handle = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
    else:
        os.chmod(name, 0o700, dir_fd=folder, follow_symlinks=False)
    return os.open(name, _FOLDER_TO_READ, dir_fd=folder)
