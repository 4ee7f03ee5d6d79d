"""The program as a whole: how it starts, what it says when it is used wrongly, what it prints where."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from turnwire import __version__
from turnwire.cli.app import app
from turnwire.cli.reference import settings_markdown

if TYPE_CHECKING:
    from cli.conftest import Program, Server

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("pydantic_ai", "fastapi", "uvicorn", "openai", "anthropic", "structlog", "aiohttp", "turnwire.server")
IMPORTED = f"""
import sys
from collections.abc import Callable, Iterator
from turnwire.cli import main
try:
    main()
except SystemExit:
    pass
print(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["version"], ["keys", "show"], ["keys", "list"], ["settings"]])
def test_a_command_imports_only_what_it_needs(words: list[str], turnwire: "Program") -> None:
    turnwire("keys", "create", "one")
    turnwire.data.joinpath("key").write_text("a-key")

    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, env=turnwire.env, check=True
    )

    assert done.stdout
    assert done.stderr.strip() == ""


def test_alone_it_says_what_runs_here_and_where_to_go_from_here(
    turnwire: "Program", start: "Callable[..., Server]"
) -> None:
    alone = turnwire().out
    assert "turnwire serve" in alone and "turnwire chat" in alone
    assert "No server is running on the data folder ~/xdg/turnwire." in alone

    server = start()

    assert f"A server is running at {server.url}, on the data folder ~/xdg/turnwire." in turnwire().out


def test_help_and_version_are_results(turnwire: "Program") -> None:
    assert "serve" in turnwire("--help").out
    assert turnwire("version").out == turnwire("--version").out == f"turnwire {__version__}\n"


def all_commands() -> list[list[str]]:
    """Every command and group, as one types it."""

    def walk(command: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, [*words, name])

    return list(walk(typer.main.get_command(app), []))


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(words: list[str], turnwire: "Program") -> None:
    out = turnwire(*words, "--help").out

    assert out.startswith(f"Usage: turnwire{''.join(f' {word}' for word in words)}")
    if "COMMAND" not in out.splitlines()[0]:
        assert f"turnwire {' '.join(words)}" in out.partition("Examples:")[2]


@pytest.mark.parametrize("words", [[], ["keys"], ["models"], ["sessions"], ["files"], ["skills"]])
def test_the_lists_of_commands_cut_no_sentence(words: list[str], turnwire: "Program") -> None:
    commands = turnwire(*words, "--help").out.partition("Commands:\n")[2]
    assert commands and "..." not in commands


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["files", "ls"], "{SESSION} [FOLDER]"),
        (["files", "put"], "{SESSION} {FILE}..."),
        (["sessions", "delete"], "{SESSION}..."),
    ],
)
def test_the_usage_says_once_what_may_be_left_out_or_repeated(
    words: list[str], usage: str, turnwire: "Program"
) -> None:
    assert turnwire(*words, "--help").out.splitlines()[0] == f"Usage: turnwire {' '.join(words)} [OPTIONS] {usage}"


def test_shells_complete_the_commands(turnwire: "Program") -> None:
    variables = {"_TURNWIRE_COMPLETE": "complete_bash", "COMP_WORDS": "turnwire se", "COMP_CWORD": "1"}

    assert turnwire(**variables).out.split() == ["serve", "settings", "sessions"]


@pytest.mark.parametrize(
    "words",
    [["keys"], ["fly"], ["serve", "--port", "http"], ["serve", "--colour"], ["keys", "create"]],
)
def test_wrong_usage_is_told_on_stderr_with_exit_code_2(words: list[str], turnwire: "Program") -> None:
    ran = turnwire(*words, code=2)

    assert ran.out == ""
    assert "Usage: turnwire" in ran.err


@pytest.mark.parametrize(
    "words",
    [["serve"], ["keys", "show"], ["keys", "list"], ["keys", "create", "x"], ["models"], ["settings"]],
)
def test_a_bad_setting_is_one_sentence_with_exit_code_2(words: list[str], turnwire: "Program") -> None:
    sentence = turnwire.fails(*words, code=2, TURNWIRE_PORT="-1")

    assert sentence == (
        "TURNWIRE_PORT in the environment: '-1' is not allowed, it should be greater than or equal to 0."
    )


def test_a_missing_part_of_the_server_is_one_sentence(turnwire: "Program") -> None:
    hidden = "import sys; sys.modules['pydantic_settings'] = None; from turnwire.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", hidden, "settings"], capture_output=True, text=True, env=turnwire.env, check=False
    )

    assert done.returncode == 1
    assert done.stderr == (
        "turnwire: This command needs the server's parts (pydantic_settings is missing): "
        "pip install 'turnwire[server]'.\n"
    )


def test_settings_show_each_value_and_its_origin_but_no_secret(turnwire: "Program", tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("turns_max = 7\n")

    out = turnwire("settings", "--config", str(file), TURNWIRE_API_KEY="a-chosen-key", TURNWIRE_PORT="1").out

    lines = out.splitlines()
    assert f"turns_max = 7  # turns_max in {file}" in lines
    assert "port = 1  # TURNWIRE_PORT in the environment" in lines
    assert "host = 127.0.0.1  # default" in lines
    assert "api_key = (hidden)  # TURNWIRE_API_KEY in the environment" in lines
    assert "a-chosen-key" not in out


def test_the_reference_of_settings_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings_markdown(), "run: turnwire settings --markdown"


def test_the_packaged_lock_file_is_that_of_the_repository() -> None:
    packaged = ROOT / "src" / "turnwire" / "cli" / "local.lock"

    assert packaged.read_bytes() == (ROOT / "requirements" / "local.lock").read_bytes()
