"""What the documentation says that is not there, is not there. Whoever builds it changes the pages that say so."""

from pathlib import Path

import docs_reference
from turnwire.protocol.errors import ERRORS
from turnwire.settings import Settings, SettingsError, load_settings

ROOT = Path(__file__).resolve().parents[2]
FAQ = " ".join((ROOT / "docs" / "faq.md").read_text("utf-8").split())


def test_one_server_runs_on_a_database_and_the_pages_say_so() -> None:
    assert not (ROOT / "src" / "turnwire" / "buses").exists()  # what would wake the followers of another server

    assert "No, **replicas on one database do not exist yet**" in FAQ
    containers = " ".join((ROOT / "docs" / "guides" / "containers.md").read_text("utf-8").split())
    assert "Several containers can't share sessions with it either: one server to a database" in containers


def test_there_is_no_stateless_endpoint_no_usage_and_no_credits_and_the_page_says_so() -> None:
    paths = docs_reference.openapi()["paths"]

    assert not {"/v1/responses", "/v1/usage"} & set(paths)
    assert "No: `/v1/responses` of the founding API is planned, and 404 until then." in FAQ
    assert "insufficient_credits" in ERRORS and "There are no prices, no credits and no budget yet" in FAQ


def test_commands_have_no_network_by_default_and_the_page_says_so() -> None:
    assert Settings.model_fields["sandbox_network"].default == "off"
    assert "Not by default. The setting `TURNWIRE_SANDBOX_NETWORK` gives a network" in FAQ


def test_mcp_servers_run_outside_of_the_sandbox_and_the_pages_say_so(tmp_path: Path) -> None:
    file = tmp_path / "turnwire.toml"
    file.write_text('[mcp.time]\ncommand = "true"\n')
    try:
        load_settings(file)
    except SettingsError:
        in_sandbox = False
    else:
        in_sandbox = True

    assert in_sandbox == ("Does an MCP server run in the sandbox? No." not in FAQ.replace("## ", ""))
