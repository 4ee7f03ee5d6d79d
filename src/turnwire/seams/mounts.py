"""A workspace with a second one to be read at an absolute path, such as `/skills`."""

import os
from collections.abc import Sequence

import msgspec

from turnwire.seams.workspace import (
    AccessDenied,
    Entry,
    File,
    Listing,
    Mount,
    Upload,
    Workspace,
    WorkspaceQuota,
)


class Mounted:
    """`main`, and `other` at `at`, which nobody can write to. Entries of `other` have absolute paths."""

    def __init__(self, main: Workspace, at: str, other: Workspace) -> None:
        self._main, self._at, self._other = main, at, other

    @property
    def quota(self) -> WorkspaceQuota | None:
        return self._main.quota

    def stat(self, path: str) -> Entry:
        inner = self._inner(path)
        return self._main.stat(path) if inner is None else self._moved(self._other.stat(inner))

    def list(self, path: str = "", *, entries_max: int) -> Listing:
        inner = self._inner(path)
        if inner is None:
            return self._main.list(path, entries_max=entries_max)
        listing = self._other.list(inner, entries_max=entries_max)
        return Listing([self._moved(entry) for entry in listing.entries], listing.complete)

    def open(self, path: str) -> File:
        inner = self._inner(path)
        if inner is None:
            return self._main.open(path)
        file = self._other.open(inner)
        return File(self._moved(file.entry), file.stream)

    def put(
        self, path: str, *, bytes_max: int, expected_etag: str | None = None, bytes_expected: int | None = None
    ) -> Upload:
        self._check_main(path)
        return self._main.put(path, bytes_max=bytes_max, expected_etag=expected_etag, bytes_expected=bytes_expected)

    def delete(self, path: str, *, expected_etag: str | None = None) -> None:
        self._check_main(path)
        self._main.delete(path, expected_etag=expected_etag)

    def mounts(self, owner: int | None = None) -> Sequence[Mount]:
        mounts = list(self._main.mounts(owner))
        try:
            others = self._other.mounts(owner)
            mounts += [msgspec.structs.replace(mount, writable=False, at=self._at) for mount in others]
        except BaseException:
            for mount in mounts:
                os.close(mount.fd)
            raise
        return mounts

    def _inner(self, path: str) -> str | None:
        """The path in `other`; None for one of `main`."""
        if path == self._at or path.startswith(self._at + "/"):
            return path[len(self._at) :].lstrip("/")
        return None

    def _moved(self, entry: Entry) -> Entry:
        return Entry(
            path=f"{self._at}/{entry.path}".rstrip("/"),
            name=entry.name or self._at.rpartition("/")[2],
            type=entry.type,
            size=entry.size,
            modified=entry.modified,
            etag=entry.etag,
        )

    def _check_main(self, path: str) -> None:
        if self._inner(path) is not None:
            raise AccessDenied(f"'{path}' can only be read: what is in {self._at} can't be changed from here.")
