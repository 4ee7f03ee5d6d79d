"""What is served is what its source makes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from plugins.tools import CONSOLE
from turnwire.console import STATIC

pytestmark = pytest.mark.tool("node", "npm-console")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_in_the_package_are_built_from_the_source_beside_them(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node
    subprocess.run([node, "build.mjs", tmp_path / "static"], cwd=CONSOLE, check=True, timeout=60)

    built, kept = files_of(tmp_path / "static"), files_of(STATIC)
    assert built.keys() == kept.keys()
    assert [name for name in kept if built[name] != kept[name]] == [], "run `make console`"


def test_the_source_is_formatted_and_lint_finds_nothing() -> None:
    done = subprocess.run(
        [CONSOLE / "node_modules" / ".bin" / "biome", "check", "--error-on-warnings", "."],
        cwd=CONSOLE,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
