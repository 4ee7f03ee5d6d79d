"""Build the documentation's site in build/site: `make docs`.

The pages are read in the repository too, and their links are those of the repository. So the site is built from a copy,
in build/pages, in which each page has its place on the site and each link leads there. A link to a file that is no
page of the site, a source file say, becomes its bare text; a link to nothing is an error. What stands behind the
language of a code block is for the tests (tests/docs), and left out.

Exit codes: 0 built, 1 a link is broken, a page is missing in the navigation, or the site's generator complained.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CONFIG = ROOT / "zensical.toml"

ROOT_PAGES = {
    "PROTOCOL.md": "protocol.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the site that lie in the repository's root."""

STANDS_FOR = {"README.md": "index.md"}
"""What is no page of the site, and the page that says the same."""

# A link or a picture; or code, in which nothing is a link.
LINK = re.compile(r"(?P<code>`+[^`]+`+)|(?P<image>!?)\[(?P<label>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^(?P<indent> *)(?P<marks>```+|~~~+)(?P<language>[\w+-]*)(?P<rest>.*)$")


def pages() -> dict[Path, str]:
    """Each page's file, from the repository's root, and its place on the site."""
    found = {Path(name): place for name, place in ROOT_PAGES.items()}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        found[path.relative_to(ROOT)] = path.relative_to(ROOT / "docs").as_posix()
    return found


def assets() -> dict[Path, str]:
    """Pictures, likewise."""
    found = (path for path in (ROOT / "docs").rglob("*") if path.suffix in {".png", ".svg", ".webp", ".jpg"})
    return {path.relative_to(ROOT): path.relative_to(ROOT / "docs").as_posix() for path in sorted(found)}


def for_site(source: Path, text: str, places: dict[Path, str], broken: list[str]) -> str:
    """A page as the site has it. `broken` is told of links that lead nowhere."""
    lines: list[str] = []
    closing = ""
    for line in text.split("\n"):
        fence = FENCE.match(line)
        if closing:
            if line.strip() == closing:
                closing = ""
            lines.append(line)
        elif fence:
            closing = fence["marks"]
            lines.append(f"{fence['indent']}{fence['marks']}{fence['language']}")
        else:
            lines.append(_links(source, line, places, broken))
    return "\n".join(lines)


def _links(source: Path, line: str, places: dict[Path, str], broken: list[str]) -> str:
    def moved(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        there = Path(_normal(source.parent / path))
        place = places.get(there) or STANDS_FOR.get(there.as_posix())
        if place is None:
            if not (ROOT / there).exists():
                broken.append(f"{source}: {target}")
            return match["label"]
        way = _relative(places[source], place)
        return f"{match['image']}[{match['label']}]({way}{'#' + anchor if anchor else ''})"

    return LINK.sub(moved, line)


def _normal(path: Path) -> str:
    """Without `..`, from the repository's root."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            if not parts:
                return "/outside"
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _relative(source: str, target: str) -> str:
    above = len(PurePosixPath(source).parts) - 1
    return "../" * above + target


def in_navigation() -> set[str]:
    """The pages that the navigation names."""

    def names(item: object) -> set[str]:
        if isinstance(item, str):
            return {item}
        children = item.values() if isinstance(item, dict) else item
        return set().union(*(names(child) for child in children))  # type: ignore[union-attr]

    return names(tomllib.loads(CONFIG.read_text("utf-8"))["project"]["nav"])


def lay_out(folder: Path) -> list[str]:
    """Copy all pages to `folder`; what is wrong with them, each a sentence."""
    shutil.rmtree(folder, ignore_errors=True)
    found = pages()
    places = found | assets()
    broken: list[str] = []
    for source, place in places.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(for_site(source, (ROOT / source).read_text("utf-8"), places, broken), "utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    listed = in_navigation()
    return [
        *(f"A link leads nowhere, in {what}" for what in broken),
        *(
            f"No page is where the navigation of {CONFIG.name} says: {name}"
            for name in sorted(listed - {*found.values()})
        ),
        *(
            f"The navigation of {CONFIG.name} does not name the page {name}"
            for name in sorted({*found.values()} - listed)
        ),
    ]


def main() -> int:
    troubles = lay_out(BUILD / "pages")
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    if troubles:
        return 1
    # The generator's cache knows nothing of a page that went, or of a configuration that changed.
    program = Path(sys.executable).with_name("zensical")
    command = [program, "build", "--strict", "--clean", "-f", CONFIG]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr.partition("Traceback")[0], sep="", file=sys.stderr)
        return 1
    print(f"The documentation is in {BUILD / 'site'}: open index.html there.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
