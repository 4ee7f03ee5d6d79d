"""`turnwire doctor`: what it finds, and whether a server could run."""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Program, Server

pytestmark = pytest.mark.slow


def findings(out: str) -> dict[str, tuple[str, str]]:
    """What → (mark, text)."""
    rows = [line for line in out.splitlines() if line[:8].strip() in ("ok", "note", "problem")]
    return {line[9:24].strip(): (line[:8].strip(), line[25:]) for line in rows}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def test_a_machine_where_a_server_can_run(turnwire: "Program") -> None:
    out = turnwire("doctor", "--port", free_port(), "--model", "demo").out

    found = findings(out)
    assert found["model"] == ("ok", "demo. It is named by --model.")
    assert found["keys"] == ("note", "none in the environment")
    assert found["Ollama"] == ("note", "no answer at http://127.0.0.1:9")
    assert found["data folder"][1].startswith(f"{turnwire.data}, to be made")
    assert {"turnwire", "packages", "SQLite", "settings", "port", "vLLM", "embedded model"} <= set(found)
    assert out.endswith("A server can run here.\n")
    assert not turnwire.data.exists()


def test_a_key_in_the_environment_decides_the_model_and_is_not_shown(turnwire: "Program") -> None:
    out = turnwire("doctor", "--port", free_port(), ANTHROPIC_API_KEY="sk-ant-secret").out

    found = findings(out)
    assert found["keys"] == ("ok", "ANTHROPIC_API_KEY set")
    assert found["model"][1].startswith("anthropic:") and "ANTHROPIC_API_KEY" in found["model"][1]
    assert "sk-ant-secret" not in out


def test_problems_are_named_with_what_to_do(turnwire: "Program") -> None:
    turnwire.data.parent.mkdir()
    turnwire.data.write_text("a file")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = turnwire("doctor", "--port", str(taken.getsockname()[1]), "--model", "openai:x", code=1)

    found = findings(ran.out)
    problems = {what for what, (mark, _) in found.items() if mark == "problem"}
    assert problems == {"data folder", "port", "model"}
    assert "OPENAI_API_KEY" in found["model"][1]
    assert ran.out.count("To do: ") >= 3
    assert ran.out.endswith("3 problems: see `To do` above.\n")


def test_a_bad_setting_is_a_problem(turnwire: "Program") -> None:
    ran = turnwire("doctor", code=1, TURNWIRE_PORTT="1")

    assert findings(ran.out)["settings"] == (
        "problem",
        "TURNWIRE_PORTT in the environment is not a setting: did you mean TURNWIRE_PORT?",
    )


def test_a_server_that_runs_is_no_problem(turnwire: "Program", start: "Callable[..., Server]") -> None:
    server = start()

    out = turnwire("doctor", "--port", str(server.port), "--model", "demo").out

    found = findings(out)
    assert found["data folder"][0] == "note" and f"pid {server.process.pid}" in found["data folder"][1]
    assert found["port"][0] == "note" and "a turnwire" in found["port"][1]
    assert out.endswith(
        "A server runs here already; another one needs a data folder, a port and a database of its own.\n"
    )


def test_an_address_of_another_machine_is_a_problem_of_the_host(turnwire: "Program") -> None:
    out = turnwire("doctor", "--host", "192.0.2.1", "--port", "0", "--model", "demo", code=1).out

    assert findings(out)["port"][0] == "problem" and "To do: choose another --host." in out
