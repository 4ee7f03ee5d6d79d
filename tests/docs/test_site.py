"""The site builds, strictly, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import docs_site

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "docs_site.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site = ROOT / "build" / "site"
    built = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    loaded = [
        address
        for path in site.rglob("*.html")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", path.read_text())
        for address in re.findall(r"""(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", tag)
    ]

    assert {place.replace(".md", ".html") for place in docs_site.pages().values()} <= built
    assert loaded == []


def test_the_navigation_names_every_page_and_no_link_is_broken(tmp_path: Path) -> None:
    assert docs_site.lay_out(tmp_path / "pages") == []


PLACES = {Path("docs/guides/a.md"): "guides/a.md", Path("PROTOCOL.md"): "protocol.md", Path("docs/b.md"): "b.md"}


@pytest.mark.parametrize(
    ("line", "on_the_site"),
    [
        ("see [the wire](../../PROTOCOL.md#2-events).", "see [the wire](../protocol.md#2-events)."),
        ("[b](../b.md) and [`c`](../b.md)", "[b](../b.md) and [`c`](../b.md)"),
        ("[code](../../src/turnwire/settings.py)", "code"),
        ("[elsewhere](https://example.com/a.md)", "[elsewhere](https://example.com/a.md)"),
        ("`[no](link.md)`", "`[no](link.md)`"),
        ("[here](#there)", "[here](#there)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(line: str, on_the_site: str) -> None:
    broken: list[str] = []

    assert docs_site.for_site(Path("docs/guides/a.md"), line, PLACES, broken) == on_the_site
    assert broken == []


def test_a_link_to_nothing_is_told() -> None:
    broken: list[str] = []
    docs_site.for_site(Path("docs/guides/a.md"), "[x](nowhere.md) [y](../../../out.md)", PLACES, broken)

    assert broken == ["docs/guides/a.md: nowhere.md", "docs/guides/a.md: ../../../out.md"]


def test_what_is_for_the_tests_is_no_part_of_the_site() -> None:
    page = '```bash no-run="needs Docker"\n[not](a-link.md)\n```'

    assert docs_site.for_site(Path("docs/guides/a.md"), page, PLACES, []) == "```bash\n[not](a-link.md)\n```"
