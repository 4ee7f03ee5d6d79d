"""`turnwire skills`: what the agents of this key's tenant know to do."""

import io
import zipfile
from pathlib import Path

import msgspec

from turnwire.chat.plain import moment, one_line
from turnwire.cli import Failed
from turnwire.cli.access import Given, client
from turnwire.cli.files import bar, said_plainly
from turnwire.cli.tables import print_json, print_table

PACKED_BYTES_MAX = 256 * 1024 * 1024
"""The server's own limit is lower, and may be changed; this keeps a wrong folder from being packed for ever."""


def list_skills(given: Given, *, as_json: bool) -> None:
    rows = [("NAME", "SIZE", "MODIFIED", "DESCRIPTION")]
    with client(given) as tw:
        skills = tw.skills.list()
    if as_json:
        for skill in skills:
            print_json(msgspec.to_builtins(skill))
        return
    for skill in skills:
        when = moment(skill.modified)
        rows.append((skill.name, str(skill.size), when, one_line(skill.description, 60)))
    print_table(rows)


def install(given: Given, source: Path, name: str | None) -> None:
    """Install a folder with a SKILL.md, or a zip of one."""
    with client(given) as tw, said_plainly(source):
        content = packed(source) if source.is_dir() else source.read_bytes()
        found = name or (source.resolve().name if source.is_dir() else source.name.removesuffix(".zip"))
        with bar(found) as progress:
            skill = tw.skills.install(found, content, progress=progress)
    print(f"installed {one_line(skill.name, 100)}: {one_line(skill.description, 200)}")


def remove(given: Given, names: list[str]) -> None:
    with client(given) as tw:
        for name in names:
            tw.skills.remove(name)
            print(f"removed {one_line(name, 100)}")


def packed(folder: Path) -> bytes:
    """The folder as a zip. Links are left out: what they lead to is nobody's skill."""
    if not (folder / "SKILL.md").is_file():
        raise Failed(f"{folder} has no SKILL.md: it is no skill.")
    buffer, size = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file() or ".git" in path.relative_to(folder).parts:
                continue
            size += path.stat().st_size
            if size > PACKED_BYTES_MAX:
                raise Failed(f"{folder} holds more than {PACKED_BYTES_MAX // 2**20} MiB: it is no skill.")
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()
