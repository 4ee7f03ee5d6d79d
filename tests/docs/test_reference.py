"""The reference is the code's: its pages are made of it, and each setting, event, error and route is in them."""

import re
from pathlib import Path

import pytest
import typer.main

import docs_reference
from e2e.harness import Server
from turnwire.cli.app import app
from turnwire.protocol.errors import ERRORS
from turnwire.protocol.events import EVENTS
from turnwire.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("name", docs_reference.PAGES)
def test_the_page_is_as_the_code_is(name: str) -> None:
    assert page(name) == docs_reference.PAGES[name](), "run make docs"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    assert f"| `TURNWIRE_{name.upper()}` |" in page("docs/settings.md")


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_documented(name: str) -> None:
    assert f"\n## `{name}`\n" in page("docs/reference/events.md")
    assert f"\nevent: {name}\n" in page("docs/reference/events.md")


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_documented(name: str) -> None:
    assert f"| {ERRORS[name].status} | `{name}` |" in page("docs/reference/errors.md")


def test_every_route_is_documented() -> None:
    routes = {
        f"{method.upper()} {path}" for path, methods in docs_reference.openapi()["paths"].items() for method in methods
    }

    assert len(routes) > 20
    assert set(re.findall(r"^## `([A-Z]+ /[^`]*)`$", page("docs/reference/routes.md"), re.MULTILINE)) == routes


@pytest.mark.slow
@pytest.mark.tool("bwrap")
def test_every_tool_of_a_server_is_documented(tmp_path: Path) -> None:
    with Server(tmp_path, fetch_enabled="true") as server:
        refused = server.api().refused(
            "POST", "/v1/sessions", 400, "invalid_request", json={"approvals": ["none_such"]}
        )
    names = re.search(r"it has (.*)\.$", refused.json()["message"])
    assert names
    tools = set(names[1].split(", "))

    assert {"read_file", "fetch_url"} < tools
    assert tools == set(re.findall(r"^## `([a-z_]+)`$", page("docs/reference/tools.md"), re.MULTILINE))
    assert all(f"`{tool}`" in page("docs/guides/tools.md") for tool in tools)


def test_every_command_and_option_is_documented() -> None:
    text = page("docs/reference/cli.md")

    for words, command in docs_reference.commands(typer.main.get_command(app), ["turnwire"]):
        heading = f"## `{' '.join(words)}`\n"
        assert heading in text
        section = text.partition(heading)[2].partition("\n## ")[0]
        for param in command.params:
            if param.param_type_name == "option" and not param.hidden:
                assert param.opts[0] in section, f"{heading}: {param.opts[0]}"
