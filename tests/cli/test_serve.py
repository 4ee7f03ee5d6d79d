"""`turnwire serve`: its start-up lines, which work when pasted, and its refusals."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from turnwire.cli.startup import AccessKey, startup_lines, warnings
from turnwire.datadir import DataDir
from turnwire.sandboxes.host import NoSandbox
from turnwire.seams.sandbox import Network, Status
from turnwire.settings import Address, Settings

if TYPE_CHECKING:
    from cli.conftest import Program, Server

pytestmark = pytest.mark.slow

WORKS = Status("bubblewrap (the system's)")
LOCAL = Address("127.0.0.1", 8080)


def paste(lines: list[str], env: dict[str, str]) -> str:
    """What a plain sh prints when the lines to paste are pasted."""
    pasted = [line for line in lines if line.startswith(("export ", "session=", "curl "))]
    assert len(pasted) == 3
    done = subprocess.run(
        ["sh"], input="\n".join(pasted), capture_output=True, text=True, timeout=60, env=env, check=True
    )
    return done.stdout


@pytest.mark.tool("curl")
def test_the_lines_to_paste_work_in_a_plain_shell(turnwire: "Program", start: "Callable[..., Server]") -> None:
    server = start("--data-dir", str(turnwire.data / "it's a $HOME folder"))

    stream = paste(server.lines, turnwire.env)

    assert stream.startswith("event: message.created\ndata: {")
    assert "event: message.completed\n" in stream
    assert server.stop() == 0


@pytest.mark.tool("curl")
@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_chosen_key_is_never_printed_and_none_is_made(
    where: str, turnwire: "Program", start: "Callable[..., Server]", tmp_path: Path
) -> None:
    config = tmp_path / "a folder" / "t.toml"
    config.parent.mkdir()
    config.write_text('api_key = "a-chosen-key"\n')
    env = {"TURNWIRE_API_KEY": "a-chosen-key"} if where == "environment" else {}

    server = start(*(["--config", str(config)] if where == "file" else []), **env)

    assert "a-chosen-key" not in "".join(server.lines)
    assert not (turnwire.data / "key").exists()
    assert "event: message.completed\n" in paste(server.lines, turnwire.env | env)


def test_the_start_up_lines_name_address_folder_model_sandbox_key_and_docs(
    turnwire: "Program", start: "Callable[..., Server]"
) -> None:
    server = start()

    facts = dict(line.split(maxsplit=1) for line in server.lines if line.startswith("  "))
    assert facts.pop("sandbox").startswith(("bubblewrap (", "none that works, so agents have no bash. "))
    assert facts.pop("network", "none for commands. ").startswith("none for commands. ")
    assert facts == {
        "address": server.url,
        "data": str(turnwire.data),
        "model": "demo. It is named by --model.",
        "key": f"in {turnwire.data}/key, made just now",
        "console": f"{server.url}/",
        "docs": f"{server.url}/docs",
    }
    assert f'export POKEE_API={server.url} POKEE_KEY="$(cat {turnwire.data}/key)"' in server.lines
    assert turnwire("keys", "show").out.strip() not in "".join(server.lines)


def test_on_a_terminal_the_key_is_shown(turnwire: "Program") -> None:
    from cli.conftest import PROGRAM

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", "--model", "demo"],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=turnwire.env,
    )
    os.close(theirs)
    try:
        printed = b""
        while b"curl -N" not in printed:
            printed += os.read(ours, 4096)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours)

    key = turnwire("keys", "show").out.strip()
    assert re.search(rf"\nexport POKEE_API=http://127\.0\.0\.1:\d+ POKEE_KEY={key}\r?\n", printed.decode())
    assert re.search(rf"\n  console  http://127\.0\.0\.1:\d+/#key={key}\r?\n", printed.decode())


def test_a_second_server_on_the_folder_is_refused(turnwire: "Program", start: "Callable[..., Server]") -> None:
    server = start()

    sentence = turnwire.fails("serve", "--port", "0", "--model", "demo", code=1)

    assert f"in use by another server (pid {server.process.pid})" in sentence


def test_a_port_that_is_taken_is_refused(turnwire: "Program") -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        sentence = turnwire.fails("serve", "--port", str(port), "--model", "demo", code=1)

    assert f"127.0.0.1:{port}" in sentence and "--port" in sentence


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--model", "bogus"], 2, "--model: The model 'bogus' is unknown."),
        (["--model", "scripted:none.yaml"], 1, "none.yaml"),
        (["--model", "demo", "--host", "not a host"], 1, "'not a host' is no address of this machine"),
        (["--model", "local:none.gguf"], 1, "none.gguf"),
        (["--database-url", "mysql://u:secret@h/d"], 2, "--database-url: it must be a URL such as postgresql://"),
        (["--data-dir", "/proc/turnwire"], 1, "The data folder /proc/turnwire can't be used"),
        (["--config", "/none.toml"], 2, "The settings file /none.toml can't be read"),
        (["--host", "no.such.host.invalid"], 1, "no.such.host.invalid"),
        (["--host", "192.0.2.1"], 1, "give an address of this machine with --host"),
    ],
)
def test_what_can_not_be_is_one_sentence(words: list[str], code: int, said: str, turnwire: "Program") -> None:
    assert said in turnwire.fails("serve", "--port", "0", "--model", "demo", *words, code=code)


def test_a_variable_that_nobody_knows_is_a_warning(turnwire: "Program", start: "Callable[..., Server]") -> None:
    server = start(TURNWIRE_WHATEVER="1", TURNWIRE_LOG_FORMAT="json")
    server.process.terminate()
    _, err = server.process.communicate(timeout=30)

    assert '"variable": "TURNWIRE_WHATEVER"' in err


def test_without_work_it_stops_at_once(start: "Callable[..., Server]") -> None:
    server = start()
    begin = time.monotonic()

    assert server.stop() == 0
    assert time.monotonic() - begin < 6


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_before_it_is_up_it_stops_as_asked(how: signal.Signals, turnwire: "Program") -> None:
    from cli.conftest import PROGRAM

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        # The server asks this one for its models, and waits seconds for an answer.
        env = turnwire.env | {"OPENAI_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        process = subprocess.Popen(
            [PROGRAM, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        connection, _ = silent.accept()
        with connection:
            process.send_signal(how)
            out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_that_nobody_reads_the_start_up_lines_stops_no_server(turnwire: "Program") -> None:
    from cli.conftest import PROGRAM

    words = [PROGRAM, "serve", "--port", "0", "--model", "demo"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=turnwire.env)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    for line in process.stderr:
        if "start-up lines could not be printed" in line:
            break
    time.sleep(0.2)
    assert process.poll() is None

    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()


@pytest.mark.parametrize(
    ("settings", "address", "said"),
    [
        (Settings(sqlite_synchronous="NORMAL"), LOCAL, "SQLITE_SYNCHRONOUS=NORMAL"),
        (Settings(), Address("0.0.0.0", 80), "0.0.0.0 without TLS"),
        (Settings(), Address("example.org", 80), "example.org without TLS"),
        (Settings(cors_origins=["*"]), LOCAL, "any web page"),
        (Settings(trusted_proxies=["*"]), LOCAL, "any caller"),
    ],
)
def test_what_an_operator_should_know_is_a_warning(settings: Settings, address: Address, said: str) -> None:
    (warning,) = warnings(settings, address, WORKS)

    assert said in warning
    lines = startup_lines(
        settings, address, DataDir(Path("/d")), AccessKey("k", "key file"), why="", sandbox=WORKS, terminal=False
    )
    assert f"  warning  {warning}" in lines


@pytest.mark.parametrize("address", [LOCAL, Address("::1", 1), Address("localhost", 1), Address("127.0.0.9", 1)])
def test_the_defaults_warn_of_nothing(address: Address) -> None:
    assert warnings(Settings(), address, WORKS) == []


def lines_with(sandbox: Status, settings: Settings | None = None) -> list[str]:
    key = AccessKey("k", "key file")
    return startup_lines(
        settings or Settings(), LOCAL, DataDir(Path("/d")), key, why="", sandbox=sandbox, terminal=False
    )


def test_the_lines_name_the_sandbox() -> None:
    assert "  sandbox  bubblewrap (the system's)" in lines_with(WORKS)


def test_where_no_sandbox_works_the_lines_say_why_and_what_to_install() -> None:
    lines = lines_with(Status("bubblewrap", "There is no bwrap.", "install bubblewrap."))

    (line,) = [line for line in lines if line.startswith("  sandbox ")]
    assert "no bash" in line
    assert "There is no bwrap." in line
    assert "install bubblewrap." in line


@pytest.mark.parametrize(
    ("setting", "network", "says"),
    [
        ("off", Network("", "The setting is off."), "none for commands. The setting is off."),
        ("on", Network("", "Nothing there.", "install it."), "none for commands. Nothing there. To do: install it."),
        ("session", Network("pasta"), "by pasta for commands of sessions with network=true; only public addresses"),
        ("on", Network("pasta"), "by pasta for commands of all sessions but those with network=false; only public "),
    ],
)
def test_the_lines_say_which_commands_have_a_network_and_why(setting: str, network: Network, says: str) -> None:
    lines = lines_with(Status("bubblewrap", network=network), Settings(sandbox_network=setting))  # type: ignore[arg-type]

    (line,) = [line for line in lines if line.startswith("  network ")]
    assert line.startswith(f"  network  {says}")


def test_running_without_a_sandbox_is_a_warning_that_names_the_setting() -> None:
    lines = lines_with(NoSandbox().status, Settings(sandbox="none"))

    assert "  sandbox  none" in lines
    assert any(line.startswith("  warning  ") and "TURNWIRE_SANDBOX=none" in line for line in lines)


@pytest.mark.slow
def test_mcp_servers_are_told_in_the_startup_lines(start: "Callable[..., Server]", tmp_path: Path) -> None:
    file = tmp_path / "turnwire.toml"
    program = f'command = "{sys.executable}"\nargs = ["-m", "mcp_server_time"]\nsandbox = false'
    file.write_text(f'[mcp.time]\n{program}\n[mcp.gone]\nurl = "http://127.0.0.1:9/mcp"\n')
    lines = start("--config", str(file)).lines

    assert "  mcp      time: up, 2 tools, without a sandbox (sandbox = false)" in lines
    assert any(line.startswith("  mcp      gone: down: ") for line in lines)
