"""`turnwire chat` from scripts and pipes: what stdout gets, what stderr, and the exit code."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chat.conftest import Ran
from files.served import KEY, PROGRAM, Served, eventually

QUIET_DEMO = {"TURNWIRE_MODEL": "demo", "TURNWIRE_SHUTDOWN_GRACE_S": "1"}

Turnwire = Callable[..., Ran]


def test_stdout_gets_the_text_and_nothing_else(turnwire: Turnwire) -> None:
    lines = ["/think hm", "One.", '/call bash {"command": "echo x"}', "/then", "/text **Two**."]

    assert turnwire("chat", "--message", "\n".join(lines)) == Ran(0, "One.\n\n**Two**.\n", "")
    assert turnwire("chat", stdin="/text From a pipe.") == Ran(0, "From a pipe.\n", "")
    assert turnwire("chat", "-m", "-", stdin="/text The same.") == Ran(0, "The same.\n", "")


def test_a_message_leaves_stdin_alone(server: Served, env: dict[str, str]) -> None:
    loop = f'while read -r line; do {PROGRAM} chat -m "/text $line"; done'
    variables = env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY}

    done = subprocess.run(["sh", "-c", loop], input=b"one\ntwo\n", capture_output=True, env=variables, timeout=40)

    assert done.stdout == b"one\ntwo\n", done.stderr


def test_events_are_lines_of_json_with_their_numbers(turnwire: Turnwire) -> None:
    ran = turnwire(
        "chat", "--json", "-m", '/call bash {"command": "printf \'\\\\033[31m\\\\302\\\\233\'"}\n/fail after'
    )
    events = [json.loads(line) for line in ran.out.splitlines()]

    assert ran.code == 1
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "message.created" and events[-1]["type"] == "message.error"
    assert ran.out.isascii() and ran.out.replace("\n", "").isprintable()


def test_a_turn_that_fails_is_one_sentence_and_exit_code_1(turnwire: Turnwire) -> None:
    ran = turnwire("chat", "-m", "/text Half\n/fail after")

    assert ran.code == 1 and ran.out == "Half\n"
    assert ran.err.startswith("turnwire: ") and ran.err.count("\n") == 1


def test_ctrl_c_cancels_the_turn_with_exit_code_130(server: Served, env: dict[str, str]) -> None:
    variables = env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY}
    with subprocess.Popen(
        [PROGRAM, "chat", "-m", "/stream 1000 10"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables
    ) as chat:
        eventually(lambda: server.client.get("/v1/sessions", params={"status": "busy"}).json())
        time.sleep(0.5)
        chat.send_signal(signal.SIGINT)

        out, err = chat.communicate(timeout=20)
        assert (chat.returncode, err) == (130, b"") and out.startswith(b"1 2 ")
    assert server.client.get("/v1/sessions", params={"status": "busy"}).json() == []


def test_a_reader_that_has_enough_ends_it_quietly(server: Served, env: dict[str, str]) -> None:
    variables = env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY}
    pipe = f"{PROGRAM} chat --json -m '/stream 30 20' | head -n 1"

    done = subprocess.run(["bash", "-c", pipe], capture_output=True, env=variables, timeout=40)

    assert b"message.created" in done.stdout and done.stderr == b""
    eventually(lambda: server.client.get("/v1/sessions", params={"status": "busy"}).json() == [])


def test_the_server_is_killed_in_mid_answer_and_the_text_is_whole(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    served = Served(tmp_path / "s", {})
    variables = env | {"TURNWIRE_URL": served.url, "TURNWIRE_KEY": KEY}
    with subprocess.Popen(
        [PROGRAM, "chat", "--json", "-m", "/stream 40 20"], stdout=subprocess.PIPE, env=variables, text=True
    ) as chat:
        assert chat.stdout is not None
        first = [json.loads(chat.stdout.readline()) for _ in range(8)]
        served.close(kill=True)
        time.sleep(0.5)
        served.arguments = ("--model", "demo", "--port", str(served.port))
        served.start()
        events = first + [json.loads(line) for line in chat.stdout]
    served.close()

    assert chat.returncode == 0
    assert [event["seq"] for event in events] == list(range(len(events)))
    (resumed,) = [event for event in events if event["type"] == "message.resumed"]
    text = "".join(e["content"] for e in events[resumed["seq"] :] if e["type"] == "text.delta")
    assert text.split() == [str(number) for number in range(1, 41)]


def test_approvals_are_refused_unless_all_are_given(turnwire: Turnwire) -> None:
    message = '/call bash {"command": "echo done"}'

    refused = turnwire("chat", "--approve", "bash", "-m", message)
    assert refused.code == 0 and "There is nobody to ask." in refused.out and "--yes allows all" in refused.err

    assert "“done" in turnwire("chat", "--approve", "bash", "--yes", "-m", message).out


def test_a_session_is_gone_on_with(turnwire: Turnwire) -> None:
    created = json.loads(turnwire("chat", "--json", "-m", "/text first").out.splitlines()[0])

    assert "first" in turnwire("chat", "--session", created["session_id"], "-m", "/history").out
    assert "first" in turnwire("chat", "--last", "-m", "/history").out


def test_control_characters_do_not_get_into_a_pipe(turnwire: Turnwire) -> None:
    assert turnwire("chat", "-m", r'/text "a\u001b[31mb\u009bc\u202ed"').out == "a[31mbcd\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["-m", " "], 2, "The message is empty."),
        (["-m", "x", "--session", "sess_000000000000"], 1, "There is no session sess_000000000000."),
        (["-m", "x", "--session", "a/b"], 2, "'a/b' is no id of a session."),
        (["-m", "x", "--session", "sess_1", "--last"], 2, "--session and --last: say one of them."),
        (["-m", "x", "--last", "--approve", "bash"], 2, "--approve, --instructions and --workspace are of a new"),
        (["-m", "x", "--approve", "nothing"], 1, "nothing"),
        (["-m", "x", "--model", "nobody:x"], 1, "nobody"),
        (["-m", "x", "--key", "wrong"], 1, "This key is not known here"),
        (["-m", "x", "--url", "http://127.0.0.1:9"], 1, "No server answers at http://127.0.0.1:9"),
        (["-m", "x", "--url", "example.org"], 2, "--url: 'example.org' is no address of a server"),
    ],
)
def test_what_is_wrong_is_one_sentence(turnwire: Turnwire, words: list[str], code: int, sentence: str) -> None:
    ran = turnwire("chat", *words)

    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("turnwire: ") and ran.err.count("\n") == 1 and sentence in ran.err, ran.err


def test_json_and_yes_are_for_one_message(turnwire: Turnwire) -> None:
    assert turnwire("chat", stdin=b"\xff").err == "turnwire: What stands on standard input is no UTF-8 text.\n"


def test_a_server_is_started_for_one_message_too(env: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "chat"],
        input=b"/text Own server.",
        capture_output=True,
        env=env | {"TURNWIRE_MODEL": "demo"},
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (0, b"Own server.\n")
    assert done.stderr == b"turnwire: No server is running: starting one on ~/.local/share/turnwire.\n"
    pid = int((tmp_path / ".local/share/turnwire/lock").read_text().split()[0])
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_a_server_of_our_own_does_not_outlive_a_chat_that_is_killed(env: dict[str, str], tmp_path: Path) -> None:
    lock = tmp_path / ".local/share/turnwire/lock"
    with subprocess.Popen(
        [PROGRAM, "chat", "--json", "-m", "/stream 500 10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env | QUIET_DEMO,
    ) as chat:
        assert chat.stdout is not None and b"message.created" in chat.stdout.readline()
        pid = int(lock.read_text().split()[0])
        chat.kill()

    # The one that stops still holds the data folder: the next chat waits for that, and starts its own.
    again = subprocess.run(
        [PROGRAM, "chat", "-m", "/text Again."], capture_output=True, env=env | QUIET_DEMO, timeout=60
    )
    assert (again.returncode, again.stdout) == (0, b"Again.\n"), again.stderr
    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_can_not_start_says_why(env: dict[str, str]) -> None:
    done = subprocess.run(
        [PROGRAM, "chat", "-m", "x"], capture_output=True, env=env | {"TURNWIRE_MODEL": "nobody:x"}, timeout=60
    )

    assert done.returncode == 1 and done.stdout == b""
    assert b"has ended. TURNWIRE_MODEL in the environment: " in done.stderr and b"Traceback" not in done.stderr


def test_without_the_server_s_parts_it_says_what_to_do(env: dict[str, str]) -> None:
    hidden = "import sys; sys.modules['fastapi'] = None; from turnwire.cli import main; main()"

    done = subprocess.run([sys.executable, "-c", hidden, "chat", "-m", "x"], capture_output=True, env=env, timeout=60)

    assert done.returncode == 1
    assert b"pip install 'turnwire[server]'" in done.stderr and done.stderr.count(b"\n") == 1


def test_it_imports_nothing_of_the_server(server: Served, env: dict[str, str]) -> None:
    program = (
        "import sys\nfrom turnwire.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('fastapi', 'pydantic_ai', 'turnwire.settings', 'turnwire.engine', 'turnwire.server')\n"
        "print(*[name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    variables = env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY}

    for words in (["chat", "-m", "/text x"], ["sessions", "list"]):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, env=variables, timeout=60)
        assert done.stdout and done.stderr == b"\n"
