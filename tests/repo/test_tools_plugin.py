"""A missing tool skips its tests by name, and in CI that is a failure (tests/plugins/tools.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow

SUITE = """
import pytest

@pytest.mark.tool("curl")
def test_that_needs_curl():
    raise AssertionError("this machine has no curl")

def test_that_needs_nothing():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_known_to_fail():
    raise AssertionError
"""


def run_suite(folder: Path, suite: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `suite` with the plugin on a machine whose PATH holds nothing."""
    (folder / "test_suite.py").write_text(suite)
    env = {"PATH": str(folder), "PYTHONPATH": str(TESTS), "HOME": os.environ.get("HOME", "/"), **environ}
    command = [sys.executable, "-m", "pytest", "-p", "plugins.tools", "-p", "no:cacheprovider", "-q"]
    return subprocess.run(
        [*command, "test_suite.py"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_its_tool_a_test_is_skipped_and_listed_with_what_to_do(tmp_path: Path) -> None:
    done = run_suite(tmp_path, SUITE)

    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped, 1 xfailed" in done.stdout
    assert "test_suite.py::test_that_needs_curl: curl is missing here: install curl" in done.stdout


@pytest.mark.parametrize("value", ["true", "1"])
def test_in_ci_a_skip_is_a_failure_that_says_why(tmp_path: Path, value: str) -> None:
    done = run_suite(tmp_path, SUITE, CI=value)

    assert done.returncode == 1
    assert "1 passed, 1 xfailed, 1 error" in done.stdout
    assert "curl is missing here: install curl" in done.stdout


def test_in_ci_a_skipped_module_is_a_failure_too(tmp_path: Path) -> None:
    suite = 'import pytest\npytest.importorskip("no_such_module")\ndef test_in_it(): pass\n'

    assert run_suite(tmp_path, suite, CI="true").returncode != 0
    assert run_suite(tmp_path, suite).returncode == 5  # nothing was collected, and nothing failed


def test_an_unknown_tool_is_an_error_and_not_a_skip(tmp_path: Path) -> None:
    done = run_suite(tmp_path, '\nimport pytest\n@pytest.mark.tool("nodde")\ndef test_it(): pass\n')

    assert done.returncode != 0 and "unknown tool 'nodde'" in done.stdout
