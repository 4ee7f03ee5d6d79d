"""The code blocks of a page, and what their info strings say about how they are tested.

    ```bash                        runs, with the page's other blocks, in one shell, in order
    ```bash server                 starts a server in the background; what follows runs when it is ready
    ```bash no-run="needs docker"  does not run, and says why
    ```python                      runs, in the shell's folder and environment
    ```json, ```yaml, ```toml      is parsed
    ```toml settings               is a file of settings: loaded as one
    ```yaml scenario               is a scenario of the scripted model: loaded as one
    ```… file="NAME"               is written to NAME, in the shell's folder, and does not run by itself
    ```text output                 is what the block before it prints: `…` stands for anything

Other languages are for reading only, or have tests of their own.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

RUNS = ("bash", "python")
PARSED = ("json", "yaml", "toml")
READ_ONLY = ("text", "markdown", "javascript", "html", "nginx", "caddyfile", "ini", "dockerfile", "sql")
WORDS = ("server", "settings", "scenario", "output")
ATTRIBUTES = ("no-run", "file")

FENCE = re.compile(r"^( *)(```+|~~~+)(.*)$")
INFO = re.compile(r'(?P<name>[a-z-]+)(?:="(?P<value>[^"]*)")?(?:\s+|$)')


class Block(NamedTuple):
    """A fenced block: `line` is where its first line of code stands in the page."""

    page: str
    line: int
    language: str
    attributes: dict[str, str]
    code: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def no_run(self) -> str | None:
        return self.attributes.get("no-run")

    @property
    def runs(self) -> bool:
        return self.language in RUNS and not self.attributes.keys() & {"no-run", "file"}


def page_names() -> list[str]:
    """README.md and all pages below docs/."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks_of(page: str) -> list[Block]:
    """ValueError when a fence is not closed, or its info string can't be understood."""
    found: list[Block] = []
    opening: re.Match[str] | None = None
    code: list[str] = []
    start = 0
    for number, line in enumerate((ROOT / page).read_text("utf-8").split("\n"), 1):
        fence = FENCE.match(line)
        if opening is None:
            if fence:
                opening, code, start = fence, [], number + 1
        elif fence and fence[2] == opening[2] and not fence[3].strip():
            language, attributes = _info(f"{page}:{start}", opening[3].strip())
            indent = len(opening[1])
            text = "".join(f"{row[indent:]}\n" for row in code)
            found.append(Block(page, start, language, attributes, text))
            opening = None
        else:
            code.append(line)
    if opening is not None:
        raise ValueError(f"{page}:{start}: the block is not closed")
    return found


def _info(where: str, text: str) -> tuple[str, dict[str, str]]:
    language, _, rest = text.partition(" ")
    attributes: dict[str, str] = {}
    rest = rest.strip()
    at = 0
    while at < len(rest):
        match = INFO.match(rest, at)
        if not match:
            raise ValueError(f"{where}: {rest!r} can't be understood")
        name, value = match["name"], match["value"]
        if name not in (WORDS if value is None else ATTRIBUTES):
            raise ValueError(f"{where}: {match[0].strip()!r} is unknown")
        attributes[name] = value or ""
        at = match.end()
    return language, attributes
