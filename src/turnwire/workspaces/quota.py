"""How much a workspace may hold.

A directory has no hard limit of its own, so this is kept between uploads and during them: what is there is measured by
a walk, what uploads write is added as they write it, and all uploads of a workspace draw on one account. What a command
in the sandbox writes is seen by the next measurement, which is made while it runs, too (`sandboxes/quota.py`): so it
can go over until then; then it is ended, and nothing more is taken.
Files count by their size (a sparse file by the size that it shows), a file with several names once.
"""

import os
import threading
import time
from pathlib import Path

import msgspec

from turnwire.seams.workspace import NoSpace, Usage, WorkspaceQuota
from turnwire.workspaces.walk import walk

FRESH_FOR = 20
"""How long a measurement is good for, by how long it took: a twentieth of a thread's time is spent on measuring while
uploads run. A thousand files are looked at anew every fifth of a second."""


EARLY_AFTER = 4
"""The same where the disk says that the workspace may be full: a fifth of a thread's time at the most."""


class Quota(msgspec.Struct, frozen=True):
    """Bytes, and files and folders, of one workspace; None: no limit."""

    bytes_max: int | None = None
    files_max: int | None = None

    @property
    def is_set(self) -> bool:
        return self.bytes_max is not None or self.files_max is not None


NO_QUOTA = Quota()


def measure(directory: Path, left_out: frozenset[bytes] = frozenset()) -> Usage:
    """What is in the directory now, names in `left_out` not counted. Slow for many files."""
    usage = Usage()
    linked: set[tuple[int, int]] = set()
    for _, entry in walk(directory):
        if os.fsencode(entry.name) in left_out:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        usage.files += 1
        if not entry.is_file(follow_symlinks=False):
            continue
        if status.st_nlink > 1:
            if (status.st_dev, status.st_ino) in linked:
                continue
            linked.add((status.st_dev, status.st_ino))
        usage.bytes += status.st_size
    return usage


class Account:
    """One workspace's use of its quota. May be used from several threads."""

    def __init__(self, directory: Path, quota: Quota) -> None:
        self._directory, self._quota = directory, quota
        self._lock = threading.Lock()
        self._measuring = threading.Lock()
        self._used = Usage()
        self._held = Usage()
        """What uploads have written and not committed."""
        self._uploads: set[bytes] = set()
        self._settled = Usage()
        """What uploads have added, ever: what a walk may have missed is what was added meanwhile."""
        self._measured_at = float("-inf")
        self._fresh_until = self._refusals_until = self._early_from = float("-inf")
        self._disk = Usage()
        """What the disk had left, of bytes and of files, when it was measured."""

    # What is watched while commands run

    def known(self) -> Usage | None:
        with self._lock:
            return None if self._measured_at == float("-inf") else msgspec.structs.replace(self._used)

    def look(self) -> Usage:
        now = time.monotonic()
        if now > self._fresh_until or (now > self._early_from and self._may_be_full()):
            self._measure(now)
        with self._lock:
            return msgspec.structs.replace(self._used)

    def is_over(self, now: Usage, before: Usage) -> bool:
        most = self._quota
        return (most.bytes_max is not None and now.bytes > max(most.bytes_max, before.bytes)) or (
            most.files_max is not None and now.files > max(most.files_max, before.files)
        )

    def _may_be_full(self) -> bool:
        """Whether the disk, which others write to as well, has less left by as much as this workspace could take."""
        left, most = _left_on_disk(self._directory), self._quota
        with self._lock:
            return (
                most.bytes_max is not None and self._disk.bytes - left.bytes > most.bytes_max - self._used.bytes
            ) or (most.files_max is not None and self._disk.files - left.files > most.files_max - self._used.files)

    # Uploads

    def open(self, temporary: bytes, *, replaced: int | None, expected: int) -> "Share":
        """A share for one upload into the hidden file `temporary`. Raises NoSpace when there is none.

        `replaced`: the size of the file that goes, None when there is none.
        """
        share = Share(self, temporary, replaced or 0)
        with self._lock:
            self._uploads.add(temporary)
        try:
            self.take(share, 0, int(replaced is None), ahead=expected)
        except BaseException:
            share.close(kept=False)
            raise
        return share

    def take(self, share: "Share", size: int, files: int = 0, *, ahead: int = 0) -> None:
        """Add to what an upload holds; `ahead`: bytes that it is going to take. Raises NoSpace."""
        began = time.monotonic()
        if began > self._fresh_until:
            self._measure(began)
        full = self._taken(share, size, files, ahead)
        if full is not None and began >= self._refusals_until:
            # Something may have been deleted since.
            self._measure(began)
            full = self._taken(share, size, files, ahead)
        if full is not None:
            raise NoSpace(full)

    def _taken(self, share: "Share", size: int, files: int, ahead: int) -> str | None:
        with self._lock:
            full = self._full(size + ahead - share.replaced, files)
            if full is None:
                self._held.bytes += size
                self._held.files += files
                share.size += size
                share.files += files
            return full

    def _full(self, size: int, files: int) -> str | None:
        quota = self._quota
        if quota.bytes_max is not None and self._used.bytes + self._held.bytes + size > quota.bytes_max:
            return f"The workspace may hold {quota.bytes_max} bytes, and this would be more: delete something first."
        if quota.files_max is not None and files and self._used.files + self._held.files + files > quota.files_max:
            return f"The workspace may hold {quota.files_max} files and folders: delete something first."
        return None

    def settle(self, share: "Share", temporary: bytes, *, kept: bool) -> None:
        """An upload has ended: what it held is part of the workspace, or given back."""
        with self._lock:
            self._uploads.discard(temporary)
            self._held.bytes -= share.size
            self._held.files -= share.files
            if kept:
                self._used.bytes += share.size - share.replaced
                self._used.files += share.files
                self._settled.bytes += share.size - share.replaced
                self._settled.files += share.files

    def _measure(self, since: float) -> None:
        """Look at the disk, unless another thread has done so since then."""
        with self._measuring:
            began = time.monotonic()
            if self._measured_at >= since:
                return
            with self._lock:
                left_out = frozenset(self._uploads)
                settled = msgspec.structs.replace(self._settled)
            disk = _left_on_disk(self._directory)
            used = measure(self._directory, left_out)
            now = time.monotonic()
            with self._lock:
                # Whether the walk saw what was added while it went, nobody knows: rather twice, until the next one.
                moved = self._settled != settled
                used.bytes += max(self._settled.bytes - settled.bytes, 0)
                used.files += max(self._settled.files - settled.files, 0)
                self._used, self._disk = used, disk
                self._measured_at = began
                self._early_from = now + EARLY_AFTER * (now - began)
                self._fresh_until = began if moved else now + FRESH_FOR * (now - began)
                # Refusals in a row must not make a walk each.
                self._refusals_until = began if moved else now + 2 * (now - began)


class Share:
    """What one upload holds of an account."""

    def __init__(self, account: Account, temporary: bytes, replaced: int) -> None:
        self._account, self._temporary = account, temporary
        self.replaced, self.files, self.size = replaced, 0, 0

    def grow(self, size: int) -> None:
        """Before so many bytes are written. Raises NoSpace."""
        self._account.take(self, size)

    def close(self, *, kept: bool) -> None:
        self._account.settle(self, self._temporary, kept=kept)


def _left_on_disk(directory: Path) -> Usage:
    status = os.statvfs(directory)
    return Usage(status.f_bavail * status.f_frsize, status.f_favail)


_fits: type[WorkspaceQuota] = Account
