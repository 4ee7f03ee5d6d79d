"""A skill's zip: checked whole before anything of it is written, then unpacked into a folder that nobody else sees.

Nothing in a zip is believed. Names come from its directory and are taken apart here; sizes are limits, held against
what is really unpacked; what is no plain file or folder is refused, and so is what would be another thing on another
file system: names that differ in case alone, or that only Windows takes for paths.
"""

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from turnwire.seams.skills import SkillInvalid, SkillTooLarge
from turnwire.skills import limits

SKILL_MD = "SKILL.md"

_END = struct.Struct("<4s4H2LH")
_END_COMMENT_MAX = 65_535
_END64_LOCATOR = b"PK\x06\x07"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DRIVE = re.compile(r"[A-Za-z]:")

# What zipfile raises on broken archives, beside its own error.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error,
    OverflowError, UnicodeError, IndexError, KeyError,
)  # fmt: skip


class Member(NamedTuple):
    """A file or folder of the skill: where in it, and what of the zip. `parts` is never empty."""

    parts: tuple[str, ...]
    info: zipfile.ZipInfo
    is_folder: bool


class Archive:
    """An open zip whose directory has been checked."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises SkillInvalid, SkillTooLarge."""
        _check_end(file)
        try:
            self._zip = zipfile.ZipFile(file)
            self.members = _members(self._zip.infolist())
        except _BROKEN as exc:
            raise SkillInvalid("The body is no zip file that can be read.") from exc

    def read_skill_md(self) -> bytes:
        """The skill's SKILL.md."""
        info = next(member.info for member in self.members if member.parts == (SKILL_MD,))
        if info.file_size > limits.SKILL_MD_BYTES_MAX:
            raise SkillTooLarge(f"SKILL.md has more than {limits.SKILL_MD_BYTES_MAX} bytes.")
        try:
            with self._zip.open(info) as file:
                return file.read(limits.SKILL_MD_BYTES_MAX)
        except _BROKEN as exc:
            raise SkillInvalid("SKILL.md can't be unpacked: the zip file is damaged.") from exc

    def unpack(self, folder: Path) -> int:
        """Write all into an empty folder of ours; the bytes of the files."""
        size = 0
        for member in self.members:
            target = folder.joinpath(*member.parts)
            if member.is_folder:
                _make_folders(folder, member.parts)
            else:
                _make_folders(folder, member.parts[:-1])
                size += self._unpack_file(member, target)
        return size

    def _unpack_file(self, member: Member, target: Path) -> int:
        executable = (member.info.external_attr >> 16) & 0o111
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        size = 0
        with os.fdopen(os.open(target, flags, 0o600), "wb") as out:
            try:
                with self._zip.open(member.info) as file:
                    while chunk := file.read(256 * 1024):
                        size += len(chunk)
                        if size > member.info.file_size:
                            raise SkillInvalid(f"'{'/'.join(member.parts)}' is larger than the zip file says.")
                        out.write(chunk)
            except _BROKEN as exc:
                raise SkillInvalid(f"'{'/'.join(member.parts)}' can't be unpacked: the zip file is damaged.") from exc
            if size != member.info.file_size:
                raise SkillInvalid(f"'{'/'.join(member.parts)}' is smaller than the zip file says.")
            # Whoever the sandbox runs as can read it, whatever mask the server runs under.
            os.fchmod(out.fileno(), 0o755 if executable else 0o644)
        return size


def _make_folders(top: Path, parts: tuple[str, ...]) -> None:
    folder = top
    for part in parts:
        folder = folder / part
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)


# ── Before the directory is read ────────────────────────────────────────────────────────────────────────────


def _check_end(file: BinaryIO) -> None:
    """Bound the zip's directory by what its end says, since zipfile reads all of it into memory.

    The end is looked for as zipfile does: the last 22 bytes, else the last signature that a comment may follow.
    """
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _END.size - _END_COMMENT_MAX)
    file.seek(start)
    tail = file.read()
    file.seek(0)
    at = len(tail) - _END.size
    if at < 0 or tail[at : at + 4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise SkillInvalid("The body is no zip file.")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(tail, at)
    if tail[max(0, at - 20) : at].startswith(_END64_LOCATOR):
        raise SkillInvalid("The zip file is in the zip64 form, which a skill has no need of: make an ordinary one.")
    if entries > limits.ENTRIES_MAX or directory_bytes > limits.DIRECTORY_BYTES_MAX:
        raise SkillTooLarge(f"The zip file has more than {limits.ENTRIES_MAX} files and folders.")


# ── The directory ───────────────────────────────────────────────────────────────────────────────────────────


def _members(infos: list[zipfile.ZipInfo]) -> list[Member]:
    if len(infos) > limits.ENTRIES_MAX:
        raise SkillTooLarge(f"The zip file has more than {limits.ENTRIES_MAX} files and folders.")
    _check_sizes(infos)
    members = [member for member in map(_member, infos) if not _is_clutter(member.parts)]
    members = _below_skill(members)
    _check_collisions(members)
    return members


def _check_sizes(infos: list[zipfile.ZipInfo]) -> None:
    if sum(info.file_size for info in infos) > limits.FILES_BYTES_MAX:
        raise SkillTooLarge(f"The files in the zip have more than {limits.FILES_BYTES_MAX} bytes in all.")
    for info in infos:
        if info.file_size > limits.RATIO_FREE_BYTES and info.file_size > limits.RATIO_MAX * max(info.compress_size, 1):
            raise SkillTooLarge(f"{_shown(info)} is packed more than {limits.RATIO_MAX} times.")


def _member(info: zipfile.ZipInfo) -> Member:
    """One entry, checked by itself."""
    shown = _shown(info)
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    is_folder = info.filename.endswith("/")
    if info.header_offset < 0:
        raise SkillInvalid("The zip file is damaged: its beginning is missing.")
    if info.flag_bits & _ENCRYPTED:
        raise SkillInvalid(f"{shown} is encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SkillInvalid(f"{shown} is packed in a way other than deflate.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > is_folder:
        raise SkillInvalid(f"{shown} is a link or something else that is neither file nor folder.")
    if is_folder and info.file_size:
        raise SkillInvalid(f"{shown} is a folder with content of its own.")
    return Member(_parts(info, shown), info, is_folder)


def _parts(info: zipfile.ZipInfo, shown: str) -> tuple[str, ...]:
    # The library cuts the name at a NUL: what stands in the zip is looked at.
    name = info.orig_filename
    try:
        raw = name.encode()
    except UnicodeEncodeError as exc:
        raise SkillInvalid(f"The name {shown} is no valid UTF-8.") from exc
    if name.startswith("/") or "\\" in name or _DRIVE.match(name):
        raise SkillInvalid(f"The name {shown} is absolute, or has a backslash or a drive in it.")
    if not all(char.isprintable() for char in name):
        raise SkillInvalid(f"The name {shown} has characters in it that can't be printed.")
    parts = tuple(name.removesuffix("/").split("/"))
    if any(part in ("", ".", "..") for part in parts):
        raise SkillInvalid(f"The name {shown} has an empty component, or one that leads elsewhere.")
    long = len(raw) > limits.PATH_BYTES_MAX or len(parts) > limits.DEPTH_MAX
    if long or any(len(part.encode()) > limits.COMPONENT_BYTES_MAX for part in parts):
        raise SkillInvalid(f"The name {shown} is too long, or too many folders deep.")
    if any(part.startswith(".turnwire-") for part in parts):
        raise SkillInvalid(f"The name {shown} is one of the server's own.")
    return parts


def _is_clutter(parts: tuple[str, ...]) -> bool:
    """What macOS adds to zips."""
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store"


def _below_skill(members: list[Member]) -> list[Member]:
    """The members with their names from the skill's folder on, which is the zip's top or the one folder in it."""
    found = [member.parts for member in members if member.parts[-1] == SKILL_MD and not member.is_folder]
    if len(found) != 1:
        raise SkillInvalid(f"The zip file must hold exactly one {SKILL_MD}; this one holds {len(found)}.")
    top = found[0][:-1]
    if len(top) > 1 or any(member.parts[: len(top)] != top for member in members):
        raise SkillInvalid(f"{SKILL_MD} must be at the top of the zip file, or in the one folder that is there.")
    below = [Member(member.parts[len(top) :], member.info, member.is_folder) for member in members]
    if any(not member.parts and not member.is_folder for member in below):
        raise SkillInvalid(f"'{'/'.join(top)}' is a file and a folder.")
    return [member for member in below if member.parts]


def _check_collisions(members: list[Member]) -> None:
    """No name may stand there twice, no two may be one on a file system that knows no case, no file may be a folder,
    too."""
    entries: set[tuple[str, ...]] = set()
    seen: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = {}
    for member in members:
        if member.parts in entries:
            raise SkillInvalid(f"'{'/'.join(member.parts)}' is in the zip file twice.")
        entries.add(member.parts)
        for length in range(1, len(member.parts) + 1):
            here = member.parts[:length], member.is_folder or length < len(member.parts)
            key = tuple(unicodedata.normalize("NFC", part).casefold() for part in here[0])
            before = seen.setdefault(key, here)
            if before != here:
                raise SkillInvalid(f"The names '{'/'.join(before[0])}' and '{'/'.join(here[0])}' collide.")


def _shown(info: zipfile.ZipInfo) -> str:
    return ascii(info.orig_filename[:120])
