"""Skills as folders of the server's own file system: `<root>/<tenant>/<name>`.

A skill is unpacked beside them, in `<root>/.staging`, and takes its place by one rename; the one before goes in the
same instant (Linux can exchange two names). So a reader sees all of the old skill or all of the new one, and a crash
leaves nothing but what the next start clears away. What is installed is never changed in place.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turnwire.seams.skills import (
    NoSpaceForSkill,
    Skill,
    SkillInvalid,
    SkillNotFound,
    SkillTooLarge,
    SkillUpload,
    TooManySkills,
    is_skill_name,
)
from turnwire.seams.workspace import Workspace
from turnwire.skills import limits
from turnwire.skills.archive import SKILL_MD, Archive
from turnwire.skills.front_matter import read_front_matter

_TENANT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DirectorySkills:
    """The skills of all tenants, below one directory, which is made when it is first needed. For one server."""

    def __init__(self, root: Path, view: Callable[[Path], Workspace]) -> None:
        """`view`: a directory as a workspace that can only be read."""
        self._root, self._view = root, view
        self._staging = root / ".staging"
        self._swapping = threading.Lock()
        # What was read of a skill, by its folder; good while that is the same one.
        self._read: dict[Path, tuple[int, int, Skill]] = {}
        shutil.rmtree(self._staging, ignore_errors=True)

    def list(self, tenant: str) -> list[Skill]:
        try:
            names = sorted(os.listdir(self._tenant(tenant)))  # noqa: PTH208
        except FileNotFoundError:
            return []
        skills = (self._skill(self._tenant(tenant) / name) for name in names if is_skill_name(name))
        return [skill for skill in skills if skill is not None]

    def install(self, tenant: str, name: str) -> SkillUpload:
        if not is_skill_name(name):
            raise SkillInvalid(
                "The name of a skill is 1 to 64 lower-case letters, digits and single hyphens between them."
            )
        self._check_count(tenant, name)
        with _no_room():
            self._staging.mkdir(parents=True, exist_ok=True)
            return _Upload(self._staging, lambda folder, size: self._put(tenant, name, folder, size), name)

    def remove(self, tenant: str, name: str) -> None:
        folder = self._tenant(tenant) / name
        if not is_skill_name(name):
            raise SkillNotFound(f"There is no skill '{name[:80]}'.")
        gone = self._staging / secrets.token_hex(8)
        with self._swapping:
            self._staging.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(gone)
            except FileNotFoundError as exc:
                raise SkillNotFound(f"There is no skill '{name}'.") from exc
        self._read.pop(folder, None)
        shutil.rmtree(gone, ignore_errors=True)

    def directory(self, tenant: str) -> Path | None:
        folder = self._tenant(tenant)
        try:
            with os.scandir(folder) as names:
                return folder if any(is_skill_name(entry.name) for entry in names) else None
        except FileNotFoundError:
            return None

    def workspace(self, tenant: str) -> Workspace | None:
        folder = self.directory(tenant)
        return None if folder is None else self._view(folder)

    def _tenant(self, tenant: str) -> Path:
        if not _TENANT.fullmatch(tenant):
            raise ValueError(f"{tenant!r} can't name a directory of skills")
        return self._root / tenant

    def _skill(self, folder: Path) -> Skill | None:
        """What is installed in a folder; None when it is gone, or damaged."""
        try:
            status = folder.stat(follow_symlinks=False)
            cached = self._read.get(folder)
            if cached is not None and cached[:2] == (status.st_ino, status.st_mtime_ns):
                return cached[2]
            description = read_front_matter((folder / SKILL_MD).read_bytes(), folder.name)
            size = sum(path.stat(follow_symlinks=False).st_size for path in folder.rglob("*") if path.is_file())
        except (OSError, SkillInvalid):
            return None
        skill = Skill(folder.name, description, size, status.st_mtime)
        self._read[folder] = (status.st_ino, status.st_mtime_ns, skill)
        return skill

    def _check_count(self, tenant: str, name: str) -> None:
        names = {skill.name for skill in self.list(tenant)}
        if name not in names and len(names) >= limits.SKILLS_MAX:
            raise TooManySkills(f"There are {limits.SKILLS_MAX} skills, as many as may be: remove one first.")

    def _put(self, tenant: str, name: str, folder: Path, size: int) -> tuple[Skill, bool]:
        """Make a finished folder the skill."""
        target = self._tenant(tenant) / name
        with self._swapping:
            self._check_count(tenant, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.parent.chmod(0o755)
            is_new = not target.exists()
            if is_new:
                folder.rename(target)
            else:
                _exchange(folder, target)
            skill = self._skill(target)
        assert skill is not None and skill.size == size
        return skill, is_new


class _Upload:
    """The zip as a file in a folder of its own, in which it is unpacked, too."""

    def __init__(self, staging: Path, put: Callable[[Path, int], tuple[Skill, bool]], name: str) -> None:
        self._put, self._name = put, name
        self._folder = Path(tempfile.mkdtemp(dir=staging))
        self._file = (self._folder / "zip").open("w+b")
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._size > limits.ZIP_BYTES_MAX:
            raise SkillTooLarge(f"The zip file is larger than {limits.ZIP_BYTES_MAX} bytes.")
        with _no_room():
            self._file.write(data)

    def commit(self) -> tuple[Skill, bool]:
        with _no_room():
            self._file.flush()
            archive = Archive(self._file)
            read_front_matter(archive.read_skill_md(), self._name)
            unpacked = self._folder / "skill"
            unpacked.mkdir()
            unpacked.chmod(0o755)
            size = archive.unpack(unpacked)
            os.utime(unpacked)
            return self._put(unpacked, size)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _no_room() -> Any:
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise NoSpaceForSkill("There is no space left for the skill.") from exc
        raise


_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places, in one instant where the system can."""
    if sys.platform == "linux" and hasattr(_libc := ctypes.CDLL(None, use_errno=True), "renameat2"):
        paths = os.fsencode(one), os.fsencode(other)
        if _libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(other))
    # Elsewhere there is an instant without the skill.
    aside = one.with_name("before")
    other.rename(aside)
    one.rename(other)
