"""The lock files: versions and hashes, no addresses, in agreement with each other and with pyproject.toml."""

import itertools
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PIN = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>[^\s;\\]+)(?P<marker> ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
SERVER = BASE + EXTRAS["server"] + EXTRAS["postgres"]
DEV = SERVER + PYPROJECT["dependency-groups"]["dev"]
BUILD = PYPROJECT["build-system"]["requires"]


def pins(lock: Path) -> dict[str, set[str]]:
    """Each name's locked versions: several where markers split them."""
    found: dict[str, set[str]] = {}
    for match in PIN.finditer(lock.read_text()):
        found.setdefault(match["name"], set()).add(match["version"])
    return found


def test_the_lock_files_that_the_makefile_uses_are_there() -> None:
    assert [lock.stem for lock in LOCKS] == ["build", "dev", "local", "server"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_line_is_a_pin_or_a_hash_so_there_is_no_address_and_no_option(lock: Path) -> None:
    lines = lock.read_text().splitlines()

    odd = [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)]

    assert lines and odd == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_has_a_hash(lock: Path) -> None:
    lines = [*lock.read_text().splitlines(), ""]

    bare = [line for line, after in itertools.pairwise(lines) if PIN.fullmatch(line) and not HASH.fullmatch(after)]

    assert bare == []


def test_no_two_files_disagree_on_a_version() -> None:
    dev = pins(ROOT / "requirements" / "dev.lock")

    differing = {
        (lock.stem, name)
        for lock in LOCKS
        for name, versions in pins(lock).items()
        if name in dev and dev[name] != versions
    }

    assert differing == set()


def test_dev_holds_all_of_server_so_that_the_tests_run_on_what_is_served() -> None:
    assert pins(ROOT / "requirements" / "server.lock").keys() <= pins(ROOT / "requirements" / "dev.lock").keys()


@pytest.mark.parametrize(("stem", "wanted"), [("server", SERVER), ("dev", DEV), ("build", BUILD)])
def test_what_pyproject_asks_for_is_locked_within_its_range(stem: str, wanted: list[str]) -> None:
    locked = pins(ROOT / "requirements" / f"{stem}.lock")

    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in {stem}.lock: run make lock"
        assert all(version in requirement.specifier for version in versions), f"{requirement}: {versions}"


@pytest.mark.parametrize("folder", ["tests/clients", "console"])
def test_the_npm_lock_files_have_hashes_and_no_addresses(folder: str) -> None:
    packages = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
    locked = {name: package for name, package in packages.items() if name}

    assert locked
    assert all(package["integrity"].startswith("sha512-") for package in locked.values())
    assert not any("resolved" in package for package in locked.values())
