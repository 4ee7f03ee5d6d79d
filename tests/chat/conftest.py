"""A server with the demo model, and the program beside it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chat.terminal import Terminal, terminal
from files.served import KEY, PROGRAM, Served

QUIET = {"OLLAMA_HOST": "127.0.0.1:9", "VLLM_BASE_URL": "http://127.0.0.1:9"}
"""Nobody listens there: whatever runs on this machine, the tests don't see it."""

Open = Callable[..., AbstractContextManager[Terminal]]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("server"), QUIET)
    yield served
    served.close()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Of a person who has used nothing yet."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", **QUIET}


@pytest.fixture
def chat(server: Served, env: dict[str, str], tmp_path: Path) -> Open:
    """`turnwire chat …` in a terminal, by default on `server`."""

    def open_terminal(*words: str, on: Served | None = server, **options: Any) -> AbstractContextManager[Terminal]:
        variables = env | ({"TURNWIRE_URL": on.url, "TURNWIRE_KEY": KEY} if on else {}) | options.pop("env", {})
        return terminal(tmp_path / "terminal", [str(PROGRAM), "chat", *words], variables, **options)

    return open_terminal


@pytest.fixture
def turnwire(server: Served, env: dict[str, str]) -> Callable[..., Ran]:
    """The program as a script has it: no terminal anywhere."""

    def run(*words: str, stdin: str | bytes = "", **variables: str) -> Ran:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [PROGRAM, *words],
            input=given,
            capture_output=True,
            timeout=40,
            env=env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY} | variables,
        )
        ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in ran.err, ran.err
        return ran

    return run
