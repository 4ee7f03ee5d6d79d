"""Each example does what its head says, and goes on where it should when something breaks."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docs.chrome import chrome
from e2e.harness import KEY, Server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


def environ(server: Server, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"POKEE_API": server.url, "POKEE_KEY": KEY, "PYTHONUNBUFFERED": "1"} | more


def run(server: Server, name: str, *arguments: str | Path, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        input=stdin,
        env=environ(server),
        capture_output=True,
        text=True,
        timeout=40,
    )


def answers(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def test_the_batch_answers_all_rows_and_asks_again_only_what_failed(server: Server, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('text\n/text one\n/fail after\n"/text a, b"\n')

    first = run(server, "batch_csv.py", source, target, "--ask", "{text}", "--jobs", "3")
    failed = answers(target)["2"]
    source.write_text('text\n/text not asked\n/text two\n"/text a, b"\n')
    second = run(server, "batch_csv.py", source, target, "--ask", "{text}")

    assert (first.returncode, first.stdout) == (1, "2 answered, 1 failed, 0 were there already.\n"), first.stderr
    assert len(failed["error"]) > 15 and not failed["answer"]
    assert (second.returncode, second.stdout) == (0, "1 answered, 0 failed, 2 were there already.\n"), second.stderr
    assert {row: item["answer"] for row, item in answers(target).items()} == {"1": "one", "2": "two", "3": "a, b"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["in.csv", "out.csv", "--ask", "{nope}"], "--ask names what no column is: 'nope'"),
        (["missing.csv", "out.csv", "--ask", "x"], "No such file or directory: 'missing.csv'"),
        (["in.csv", "in.csv", "--ask", "x"], "in.csv is there, and was not written by this program"),
    ],
)
def test_the_batch_says_what_is_wrong_with_its_input(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nhello\n")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "batch_csv.py", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["batch_csv.py", "chat_bot.py", "long_job.py", "support_desk.py", "web_chat.py"])
def test_without_a_server_it_says_what_to_set(name: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nhello\n")
    arguments = {"batch_csv.py": ["in.csv", "out.csv", "--ask", "{text}"], "long_job.py": ["list"]}.get(name, [])
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.returncode == 1
    assert "POKEE_API" in done.stderr and "Traceback" not in done.stderr


def test_the_bot_serves_threads_at_once_and_knows_them_again_after_a_restart(server: Server) -> None:
    said = [
        {"thread": "a", "user": "ann", "text": "/stream 30 20"},
        {"thread": "b", "user": "bob", "text": "/text greetings"},
        {"thread": "a", "user": "ann", "text": "/text second"},
    ]
    first = run(server, "chat_bot.py", stdin="no JSON\n" + "".join(json.dumps(item) + "\n" for item in said))
    again = run(server, "chat_bot.py", stdin=json.dumps({"thread": "a", "user": "ann", "text": "/history"}) + "\n")

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stderr == "This is no message: no JSON\n"
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    thread_of = {line["post"]: line["thread"] for line in lines if "post" in line}
    last = {line["update"]: line["text"] for line in lines if "update" in line}
    assert [line.get("post", line.get("update")) for line in lines][-1] == 3  # b was answered while a was written
    assert sorted(thread_of.values()) == ["a", "a", "b"]
    assert sorted(last.values()) == ["".join(f"{n} " for n in range(1, 31)), "greetings", "second"]
    assert "/stream 30 20" in again.stdout and "second" in again.stdout and "greetings" not in again.stdout


def test_the_support_desk_asks_before_it_gives_money_or_writes(server: Server) -> None:
    lines = [
        '/call order_status {"order": "1042"}',
        '/call refund {"order": "1042", "euros": 34}',
        "y",
        '/call refund {"order": "1042", "euros": 10}',
        "n",
        '/call refund {"order": "1043", "euros": 100}',
        '/call write_file {"path": "a", "content": "b"}',
        "n",
    ]
    done = run(server, "support_desk.py", stdin="\n".join(lines) + "\n")

    assert done.returncode == 0, done.stderr
    assert "lost in the post" in done.stdout
    assert "34.00 euros are on their way." in done.stdout
    assert "was refused by the person in charge" in done.stdout
    assert "Only 12.5 euros were paid for the order 1043." in done.stdout
    assert "[it failed: Not allowed by the person in charge.]" in done.stdout
    assert done.stdout.count("[y/N]") == 3


JOB = """/call update_plan {"steps": [{"step": "read", "state": "done"}, {"step": "count", "state": "in_progress"}]}
/call set_status {"status": "counting"}
/then
/stream 160 20"""


def test_a_long_job_goes_on_without_its_watcher_and_over_the_death_of_the_server(server: Server) -> None:
    command = [sys.executable, EXAMPLES / "long_job.py", "start", JOB]
    with subprocess.Popen(command, env=environ(server), stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout
        begun = watcher.stdout.readline()
        assert watcher.stdout.readline() == "[1/2] count\n"
        time.sleep(0.5)
        watcher.send_signal(signal.SIGINT)
        rest = watcher.stdout.read()
    session = re.match(r"(sess_[0-9a-f]{12}) has begun", begun)
    assert session and watcher.returncode == 0 and f"watch {session[1]}" in rest, rest

    assert f"{session[1]}  running, counting" in run(server, "long_job.py", "list").stdout
    server.kill()
    server.restart()
    seen = run(server, "long_job.py", "watch", session[1])

    assert seen.returncode == 0, seen.stderr
    assert "[1/2] count\n" in seen.stdout and "… counting" in seen.stdout
    assert "the server was restarted" in seen.stdout
    assert "".join(f"{n} " for n in range(1, 161)) in seen.stdout
    assert f"{session[1]}  ended" in run(server, "long_job.py", "list").stdout


def test_a_long_job_can_be_cancelled(server: Server) -> None:
    command = [sys.executable, EXAMPLES / "long_job.py", "start", "/stall 60"]
    with subprocess.Popen(
        command, env=environ(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout and job.stderr
        session = job.stdout.readline().split()[0]
        cancelled = run(server, "long_job.py", "cancel", session)
        said = job.stderr.read()

    assert (cancelled.returncode, cancelled.stdout) == (0, "It is being cancelled.\n")
    assert (job.returncode, said) == (1, "It was cancelled.\n")
    assert run(server, "long_job.py", "cancel", session).stdout == "It had ended already.\n"


@contextmanager
def web_chat(server: Server) -> Iterator[str]:
    command = [sys.executable, EXAMPLES / "web_chat.py"]
    with subprocess.Popen(command, env=environ(server, PORT="0"), stderr=subprocess.PIPE, text=True) as backend:
        assert backend.stderr
        try:
            for line in backend.stderr:
                if address := re.search(r"running on (http://\S+)", line):
                    yield address[1]
                    return
            raise AssertionError("the backend did not start")
        finally:
            backend.terminate()


SHOWN = "[...document.querySelectorAll('article span')].map((span) => span.textContent)"


@pytest.mark.tool("chromium")
def test_the_web_chat_streams_and_goes_on_after_a_reload_in_the_middle(server: Server) -> None:
    hostile = "<img src=x onerror=document.title=1>"
    with web_chat(server) as address, chrome() as page:
        page.goto(address)

        def say(text: str) -> None:
            page.wait_for_selector("body[data-ready]")
            page.get_by_label("Message").fill(text)
            page.get_by_role("button", name="Send").click()

        say(f"/text {hostile}")
        page.wait_for_function(f"{SHOWN}[1]?.endsWith('>')")
        page.wait_for_function("!document.querySelector('button').disabled")
        assert page.evaluate(SHOWN) == [f"/text {hostile}", hostile]

        say("/stream 40 20")
        page.wait_for_function(f"{SHOWN}[3]?.startsWith('1 2 3 ')")
        page.reload()
        page.wait_for_function("document.body.dataset.ready && document.querySelectorAll('article').length === 4")
        texts = page.evaluate(SHOWN)
        title = page.title()

    assert texts == [f"/text {hostile}", hostile, "/stream 40 20", "".join(f"{n} " for n in range(1, 41))]
    assert title == "Chat"
