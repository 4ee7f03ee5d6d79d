"""The documents say what is there: packages, events, errors, links, the founding example."""

import re
from pathlib import Path

import msgspec
import pytest

from turnwire import __version__
from turnwire.protocol.errors import ERRORS
from turnwire.protocol.events import EVENTS, Usage

ROOT = Path(__file__).resolve().parents[2]
SKIPPED_FOLDERS = {".venv", "node_modules", ".git", ".pytest_cache", ".ruff_cache"}
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not SKIPPED_FOLDERS & set(path.relative_to(ROOT).parts))
PACKAGES = sorted(path.parent.name for path in (ROOT / "src" / "turnwire").glob("*/__init__.py"))
PROTOCOL = (ROOT / "PROTOCOL.md").read_text()

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
RULE = re.compile(r"^- \*\*\[P-(\d+)\.(\d+)\]\*\*", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The headings of a document, as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("package", PACKAGES)
def test_architecture_names_every_package(package: str) -> None:
    assert f"`{package}/`" in (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    broken: list[str] = []
    for target in LINK.findall(CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = document.parent / path if path else document
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)

    assert broken == []


def test_the_changelog_has_a_section_for_this_version_or_for_what_is_unreleased() -> None:
    sections = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert {"Unreleased", __version__} & set(sections)


def test_the_readme_shows_the_founding_example_as_the_tests_run_it() -> None:
    example = (ROOT / "tests" / "clients" / "founding_example.py").read_text()

    assert f"```python\n{example}```" in (ROOT / "README.md").read_text()


def test_protocol_lists_every_event_with_its_exact_keys() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+(?:\.[a-z_]+)?)` \| `\{(.*?)\}` \|", PROTOCOL, re.MULTILINE))
    documented = {name: {key for key in keys.split(", ") if key} for name, keys in rows.items()}

    assert documented == {name: shown_keys(event) for name, event in EVENTS.items()}


def shown_keys(event: type[msgspec.Struct]) -> set[str]:
    """The keys of an event, with `?` where it may be left out."""
    may_be_missing = event.__struct_config__.omit_defaults
    return {
        field.encode_name + ("?" if may_be_missing and not field.required else "")
        for field in msgspec.structs.fields(event)
    }


def test_protocol_lists_every_key_of_usage() -> None:
    rule = re.search(r"`usage` is `\{(.*?)\}`", PROTOCOL, re.DOTALL)
    assert rule

    assert re.split(r",\s+", rule[1]) == [field.encode_name for field in msgspec.structs.fields(Usage)]


def test_protocol_lists_every_error_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", PROTOCOL, re.MULTILINE)

    assert [(int(status), name) for status, name in rows] == sorted(
        (error.status, name) for name, error in ERRORS.items()
    )


def test_the_rules_of_the_protocol_are_numbered_without_gaps() -> None:
    numbers = [(int(section), int(rule)) for section, rule in RULE.findall(PROTOCOL)]

    by_section: dict[int, list[int]] = {}
    for section, rule in numbers:
        by_section.setdefault(section, []).append(rule)
    assert list(by_section) == [1, 2, 3, 4, 5]
    assert all(rules == list(range(1, len(rules) + 1)) for rules in by_section.values())


def test_references_to_rules_name_rules_that_are_there() -> None:
    rules = {f"P-{section}.{rule}" for section, rule in RULE.findall(PROTOCOL)}

    mentioned = set().union(*(re.findall(r"\bP-\d+\.\d+\b", document.read_text()) for document in DOCUMENTS))
    assert mentioned <= rules
