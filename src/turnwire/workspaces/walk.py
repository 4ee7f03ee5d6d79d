"""All that is in a directory and below it, links not followed, whatever somebody changes meanwhile."""

import os
from collections.abc import Iterator
from pathlib import Path

from turnwire.seams.workspace import EVERYTHING, PATH_BYTES_MAX, Parts, WorkspaceError
from turnwire.workspaces.resolve import locate

_FOLDER_TO_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(root: Path) -> Iterator[tuple[int, "os.DirEntry[str]"]]:
    """Each name, with the folder that it is in, open. What can't be read or is gone is left out, and so is what no
    path leads to any more, for being too long."""
    pending: list[Parts] = [()]
    while pending:
        parts = pending.pop()
        try:
            with locate(root, parts, EVERYTHING, follow_last=False) as place:
                folder = os.open(place.name, _FOLDER_TO_READ, dir_fd=place.folder)
        except (OSError, WorkspaceError):
            continue
        room = PATH_BYTES_MAX - sum(map(len, parts)) - len(parts)
        try:
            with os.scandir(folder) as names:
                for entry in names:
                    yield folder, entry
                    name = os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False) and len(name) <= room:
                        pending.append((*parts, name))
        finally:
            os.close(folder)
