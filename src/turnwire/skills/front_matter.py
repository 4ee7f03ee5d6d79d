"""The head of a SKILL.md: YAML between two lines of `---`."""

import re
from typing import Any, cast

import yaml

from turnwire.seams.skills import DESCRIPTION_CHARS_MAX, SkillInvalid
from turnwire.skills.limits import FRONT_MATTER_BYTES_MAX

_HEAD = re.compile(rb"---[ \t]*\r?\n(.*?)(?<=\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)


def read_front_matter(text: bytes, name: str) -> str:
    """The description in a SKILL.md. Raises SkillInvalid unless it is the one of the skill of this name."""
    fields = _fields(text.removeprefix(b"\xef\xbb\xbf"))
    found = fields.get("name")
    if found != name:
        was = f"is {found[:80]!r}" if isinstance(found, str) else "is missing"
        raise SkillInvalid(f"The name in the front matter of SKILL.md {was}; it must be '{name}', as in the URL.")
    description = fields.get("description")
    if not isinstance(description, str) or not description.strip():
        raise SkillInvalid("SKILL.md must have a 'description' in its front matter: what the skill does, and when.")
    if len(description.strip()) > DESCRIPTION_CHARS_MAX:
        raise SkillInvalid(f"The description in SKILL.md has more than {DESCRIPTION_CHARS_MAX} characters.")
    # One line, of which nothing can pretend to be another skill's.
    return " ".join("".join(char if char.isprintable() else " " for char in description).split())


def _fields(text: bytes) -> dict[str, Any]:
    head = _HEAD.match(text[: FRONT_MATTER_BYTES_MAX + 8])
    if head is None:
        raise SkillInvalid(
            "SKILL.md must begin with front matter: a line '---', YAML with 'name' and 'description', a line '---'."
        )
    try:
        # The base loader makes texts, lists and mappings, and nothing else. That PyYAML recurses is caught.
        fields: Any = yaml.load(head[1].decode(), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise SkillInvalid(f"The front matter of SKILL.md is no valid YAML: {_one_line(exc)}.") from exc
    if not isinstance(fields, dict):
        raise SkillInvalid("The front matter of SKILL.md must be a mapping with 'name' and 'description'.")
    return cast(dict[str, Any], fields)


def _one_line(exc: Exception) -> str:
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(exc).split())[:200].rstrip(".")
