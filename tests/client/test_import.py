"""What importing the client loads: seen in a fresh interpreter, by its list of modules."""

import json
import subprocess
import sys

import pytest

import turnwire
import turnwire.client

PROGRAM = "import sys, json; {}; print(json.dumps(sorted(sys.modules)))"

SERVER = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "aiohttp",
    "pydantic",
    "pydantic_ai",
    "sqlite3",
    "structlog",
    "anthropic",
    "openai",
    "rich",
    "typer",
)


def loaded_by(statement: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout)


@pytest.mark.parametrize("statement", ["from turnwire import Client, AsyncClient", "import turnwire.client"])
def test_the_client_loads_nothing_of_the_server(statement: str) -> None:
    modules = loaded_by(statement)

    ours = {name.split(".")[1] for name in modules if name.startswith("turnwire.")}
    assert ours == {"client", "protocol"}
    assert {name.split(".")[0] for name in modules} & set(SERVER) == set()


def test_the_package_alone_loads_next_to_nothing() -> None:
    modules = loaded_by("import turnwire; hasattr(turnwire, 'nothing_of_this_name')")

    assert [name for name in modules if name.startswith(("turnwire.", "httpx2", "msgspec"))] == []


def test_every_name_of_the_client_is_a_name_of_the_package() -> None:
    assert turnwire.__all__ == turnwire.client.__all__
    assert set(turnwire.__all__) <= set(dir(turnwire))
    assert all(getattr(turnwire, name) is getattr(turnwire.client, name) for name in turnwire.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        turnwire.Nothing  # noqa: B018
