"""Skills: folders of instructions, with their files and scripts, that the agents of a tenant read when they need them.

The format is the public Agent Skills one (https://agentskills.io/specification): a folder `<name>` with a `SKILL.md`
that begins with YAML front matter, `name` and `description`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from turnwire.seams.workspace import Workspace

SKILLS_PATH = "/skills"
"""Where agents find the skills: `/skills/<name>/SKILL.md`, in the sandbox and by the file tools."""

NAME_CHARS_MAX = 64
DESCRIPTION_CHARS_MAX = 1024
"""Characters of a skill's name and description: the format's own limits."""

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class SkillError(Exception):
    """Something about a skill that its caller can be told, in one sentence."""


class SkillInvalid(SkillError):
    """The name, the zip or what is in it is not as it must be."""


class SkillTooLarge(SkillError):
    """The zip, or what is in it, is larger than a skill may be."""


class SkillNotFound(SkillError):
    """The tenant has no skill of that name."""


class TooManySkills(SkillError):
    """The tenant has as many skills as it may have."""


class NoSpaceForSkill(SkillError):
    """The disk is full."""


class Skill(msgspec.Struct, frozen=True):
    """An installed skill. `size` is the bytes of its files, `modified` when it was installed, in epoch seconds."""

    name: str
    description: str
    size: int
    modified: float


class SkillUpload(Protocol):
    """A zip on its way in. Left without `commit`, it is as if it had never begun."""

    def write(self, data: bytes | memoryview) -> None:
        """Append to the zip. Raises SkillTooLarge, NoSpaceForSkill."""
        ...

    def commit(self) -> tuple[Skill, bool]:
        """Check the zip and install it, at once and whole; also whether the skill is new. Raises SkillError."""
        ...

    def abort(self) -> None:
        """Leave no trace. Does nothing after `commit` or another `abort`."""
        ...


class Skills(Protocol):
    """The skills of all tenants. Verbs are synchronous and may wait for the disk."""

    def list(self, tenant: str) -> Sequence[Skill]:
        """The tenant's skills, by name."""
        ...

    def install(self, tenant: str, name: str) -> SkillUpload:
        """Begin to install a skill, or to replace it. Raises SkillInvalid, TooManySkills."""
        ...

    def remove(self, tenant: str, name: str) -> None:
        """Remove a skill. Raises SkillNotFound."""
        ...

    def directory(self, tenant: str) -> Path | None:
        """The folder that holds the tenant's skills, each in a folder of its name, to be shown to a sandbox at
        SKILLS_PATH; None when the tenant has none."""
        ...

    def workspace(self, tenant: str) -> Workspace | None:
        """The same folder, to be read only; None when the tenant has no skills."""
        ...


def is_skill_name(name: str) -> bool:
    """Lower-case letters, digits and single hyphens between them."""
    return len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name) is not None


def skills_prompt(skills: Sequence[Skill]) -> str | None:
    """What an agent is told of its skills; None when there are none."""
    if not skills:
        return None
    lines = [
        f"Skills are instructions for particular kinds of work. When a task fits one of these, read "
        f"{SKILLS_PATH}/<name>/SKILL.md with read_file before you begin, and the files that it names when you need "
        "them; paths in it are relative to its folder.",
        *(f"- {skill.name}: {skill.description}" for skill in skills),
    ]
    return "\n".join(lines)
