"""`turnwire sessions`, `files` and `skills`: what a server has, from the shell."""

import json
import re
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from chat.conftest import Ran
from client.canned import RECORD, Canned, answer
from files.served import KEY, PROGRAM, Served
from turnwire.chat.plain import plain
from turnwire.cli import Failed, access
from turnwire.datadir import DataDir

Turnwire = Callable[..., Ran]


@pytest.fixture
def session(turnwire: Turnwire) -> str:
    ran = turnwire("chat", "--workspace", "private", "--json", "-m", "/think hm\n/text Hello.\n/call list_files")
    return json.loads(ran.out.splitlines()[0])["session_id"]


def test_sessions_are_listed_shown_and_deleted(turnwire: Turnwire, session: str) -> None:
    head, first, *_ = turnwire("sessions", "list").out.splitlines()
    assert head.split() == ["ID", "LAST", "ACTIVITY", "STATE", "TITLE"]
    assert first.startswith(session) and first.endswith("  ready  /think hm /text Hello. /call list_files")
    assert json.loads(turnwire("sessions", "list", "--json", "--limit", "1").out)["id"] == session

    shown = turnwire("sessions", "show", session).out
    assert "\nuser\n  /think hm\n" in shown and "(thought: hm)" in shown
    assert "[list_files {}]" in shown and "  Hello.\n" in shown
    messages = json.loads(turnwire("sessions", "show", session, "--json").out)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]

    assert turnwire("sessions", "delete", session).out == f"deleted {session}\n"
    assert turnwire("sessions", "delete", session).err == f"turnwire: There is no session {session}.\n"


def test_pruning_asks_and_deletes_the_old_ones_alone(turnwire: Turnwire, session: str) -> None:
    assert turnwire("sessions", "prune", "--older-than", "1d").code == 2
    assert turnwire("sessions", "prune", "--older-than", "1d2h", "--yes").out == "deleted 0 sessions\n"
    for age in ("", "soon", "1w", "-1h"):
        ran = turnwire("sessions", "prune", f"--older-than={age}", "--yes")
        assert ran.code == 2 and "is no age such as 7d, 12h or 1h30m" in ran.err
    assert session in turnwire("sessions", "list").out


def test_files_go_there_and_back(turnwire: Turnwire, session: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "bills.csv", tmp_path / "copy.csv"
    source.write_bytes(bytes(range(256)) * 1000)
    assert turnwire("files", "put", session, str(source), "--to", "in/").out == "in/bills.csv  256000\n"
    assert turnwire("files", "put", session, "-", "--to", "notes.md", stdin="# Notes\n").out == "notes.md  8\n"

    assert [line.split()[-1] for line in turnwire("files", "ls", session).out.splitlines()] == [
        "NAME",
        "in/",
        "notes.md",
    ]
    assert json.loads(turnwire("files", "ls", session, "in", "--json").out)["size"] == 256000

    assert turnwire("files", "get", session, "in/bills.csv", str(copy)).out == f"{copy}\n"
    assert copy.read_bytes() == source.read_bytes()
    assert turnwire("files", "get", session, "notes.md", "-").out == "# Notes\n"
    again = turnwire("files", "get", session, "in/bills.csv", str(copy))
    assert again.code == 1 and "is there already: say --overwrite" in again.err
    assert turnwire("files", "get", session, "in/bills.csv", str(copy), "--overwrite").code == 0
    assert turnwire("files", "get", session, "--zip", "", str(tmp_path / "all.zip")).code == 0
    assert zipfile.ZipFile(tmp_path / "all.zip").namelist()

    kept = turnwire("files", "put", session, str(source), "--to", "in/bills.csv", "--keep")
    assert (kept.code, kept.err) == (1, "turnwire: The file is there already (If-None-Match).\n")
    assert turnwire("files", "rm", session, "in/bills.csv", "in").out == "deleted in/bills.csv\ndeleted in\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["put", "SESSION", "/nowhere/x"], 1, "/nowhere/x: No such file or directory."),
        (["put", "SESSION", "-"], 2, "--to: what comes from standard input needs a name."),
        (["put", "SESSION", "a", "b", "--to", "c"], 2, "--to: with several files it is a folder"),
        (["get", "SESSION", "nothing.txt"], 1, "nothing.txt"),
        (["get", "SESSION", "../x", "y"], 2, "'../x' is no path of a file in the workspace."),
        (["get", "SESSION", "x", "/nowhere/y"], 1, "/nowhere"),
        (["get", "SESSION", "--zip", "", "-"], 2, "A zip goes to a file: say which."),
        (["rm", "SESSION", "nothing.txt"], 1, "nothing.txt"),
        (["ls", "SESSION", "nothing"], 1, "nothing"),
    ],
)
def test_what_is_wrong_with_files_is_one_sentence(
    turnwire: Turnwire, session: str, words: list[str], code: int, sentence: str
) -> None:
    ran = turnwire("files", *(session if word == "SESSION" else word for word in words))

    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith("turnwire: ") and ran.err.count("\n") == 1 and sentence in ran.err, ran.err


def test_a_file_s_name_controls_no_terminal(turnwire: Turnwire, session: str, server: Served, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b[31mb"
    evil.write_text("x")

    assert "\x1b" not in turnwire("files", "put", session, str(evil)).out + turnwire("files", "ls", session).out


EVIL = "\x1b]0;title\x07\x1b[31m\x9b5m\u202e"


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["sessions", "list"], [answer(404, {"error": "not_found", "message": f"No{EVIL}"})]),
        (["sessions", "list"], [answer(200, [RECORD | {"id": EVIL, "status": EVIL, "last_activity": 1e20}])]),
        (["sessions", "list", "--json"], [answer(200, [RECORD | {"id": EVIL, "metadata": {"title": EVIL}}])]),
        (
            ["sessions", "show", "sess_1"],
            [
                answer(200, RECORD | {"status": EVIL}),
                answer(200, [{"role": "user", "content": [{"type": "file", "path": EVIL, "media_type": EVIL}]}]),
            ],
        ),
        (["sessions", "show", "sess_1"], [answer(200, RECORD | {"id": EVIL})]),
        (["skills", "list"], [answer(200, [{"name": EVIL, "description": EVIL, "modified": -1e20}])]),
        (["skills", "list", "--json"], [answer(200, [{"name": EVIL}])]),
        (["files", "ls", "sess_1", "--json"], [answer(200, RECORD), answer(200, [{"name": EVIL, "type": "file"}])]),
    ],
)
def test_nothing_that_a_server_says_controls_a_terminal(
    turnwire: Turnwire, words: list[str], answers: list[bytes]
) -> None:
    with Canned(*answers).running() as canned:
        ran = turnwire(*words, TURNWIRE_URL=canned.url)

    assert plain(ran.out + ran.err) == ran.out + ran.err
    if ran.code == 0 and "--json" in words:
        assert EVIL in json.loads(ran.out).values()


def test_json_is_valid_in_every_encoding(turnwire: Turnwire) -> None:
    record = RECORD | {"metadata": {"title": "é 😀 \ud800"}}
    with Canned(answer(200, [record])).running() as canned:
        ran = turnwire("sessions", "list", "--json", TURNWIRE_URL=canned.url, PYTHONIOENCODING="ascii")

    assert json.loads(ran.out)["metadata"] == record["metadata"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("turnwire chat <&-", 2),
        ("turnwire chat -m '/text Hi' <&-", 0),
        ("turnwire chat -m '/text Hi' >&-", 0),
        ("turnwire chat -m '/text Hi' --json 2>&-", 0),
        ("turnwire sessions list >&- 2>&-", 0),
        ("turnwire sessions list | true; exit ${PIPESTATUS[0]}", 1),
    ],
)
def test_streams_that_are_closed_are_no_failure(server: Served, env: dict[str, str], line: str, code: int) -> None:
    variables = env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY}
    line = line.replace("turnwire", str(PROGRAM), 1)
    ran = subprocess.run(["bash", "-c", line], env=variables, capture_output=True, text=True, timeout=40)

    assert ran.returncode == code
    assert "Traceback" not in ran.stderr and "Exception" not in ran.stderr


def test_skills_are_installed_from_folders_and_zips(turnwire: Turnwire, tmp_path: Path) -> None:
    folder = tmp_path / "pdf-tools"
    (folder / "scripts").mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: pdf-tools\ndescription: Takes text out of PDFs.\n---\nRun it.\n")
    (folder / "scripts" / "extract.py").write_text("print()\n")
    (folder / "secret").symlink_to("/etc/passwd")

    assert turnwire("skills", "install", str(folder)).out == "installed pdf-tools: Takes text out of PDFs.\n"
    assert re.search(r"^pdf-tools +\d+ .*Takes text out of PDFs\.$", turnwire("skills", "list").out, re.MULTILINE)
    with zipfile.ZipFile(tmp_path / "pdf-tools.zip", "w") as archive:
        archive.write(folder / "SKILL.md", "SKILL.md")
    assert turnwire("skills", "install", str(tmp_path / "pdf-tools.zip")).code == 0
    assert turnwire("skills", "remove", "pdf-tools").out == "removed pdf-tools\n"

    for words, sentence in (
        (["install", str(tmp_path / "nothing.zip")], "No such file or directory"),
        (["install", str(folder / "scripts")], "has no SKILL.md: it is no skill."),
        (["remove", "pdf-tools"], "pdf-tools"),
    ):
        ran = turnwire("skills", *words)
        assert ran.code == 1 and sentence in ran.err and ran.err.count("\n") == 1, ran


def test_without_a_server_they_say_how_to_get_one(turnwire: Turnwire) -> None:
    ran = turnwire("sessions", "list", TURNWIRE_URL="", TURNWIRE_KEY="")

    assert ran.code == 1 and ran.err == (
        "turnwire: No server is running on the data folder ~/.local/share/turnwire: start one by "
        "`turnwire serve`, or name one by --url or TURNWIRE_URL.\n"
    )


def test_the_server_on_a_data_folder_is_found_with_its_key(turnwire: Turnwire, server: Served) -> None:
    given = {"TURNWIRE_URL": "", "TURNWIRE_KEY": "", "TURNWIRE_API_KEY": server.env["TURNWIRE_API_KEY"]}

    assert turnwire("sessions", "list", "--data-dir", str(server.data), **given).code == 0
    assert turnwire("sessions", "list", **given, TURNWIRE_DATA_DIR=str(server.data)).code == 0
    assert turnwire("sessions", "list", "--url", server.url, TURNWIRE_DATA_DIR=str(server.data), **given).code == 0


def test_a_key_that_is_chosen_is_used_for_the_server_on_a_data_folder(turnwire: Turnwire, server: Served) -> None:
    ran = turnwire("sessions", "list", "--data-dir", str(server.data), TURNWIRE_URL="", TURNWIRE_KEY="tw_other_wrong")

    assert ran.code == 1
    assert "key" in ran.err


def test_a_server_that_starts_is_waited_for(turnwire: Turnwire, server: Served, tmp_path: Path) -> None:
    given = {"TURNWIRE_URL": "", "TURNWIRE_KEY": "", "TURNWIRE_API_KEY": server.env["TURNWIRE_API_KEY"]}
    with DataDir.open(tmp_path / "starting") as data:
        listens = threading.Timer(2.0, data.announce, [server.url])
        listens.start()
        began = time.monotonic()
        ran = turnwire("sessions", "list", "--data-dir", str(data.path), **given)
        took_s = time.monotonic() - began
        listens.join()

    assert (ran.code, ran.err) == (0, "") and took_s > 1.5


def test_whoever_holds_the_folder_and_says_no_address_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "STARTING_TIMEOUT_S", 0.2)
    for name in ("TURNWIRE_URL", "POKEE_API"):
        monkeypatch.delenv(name, raising=False)

    with DataDir.open(tmp_path / "held"), pytest.raises(Failed, match="which does not say its address"):
        access.find(access.Given(data_dir=tmp_path / "held"))


@pytest.mark.tool("tmux")
def test_a_long_transfer_shows_a_bar_on_a_terminal(
    session: str, server: Served, env: dict[str, str], tmp_path: Path
) -> None:
    from chat.terminal import terminal
    from files.served import KEY

    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(600_000_000)
    variables = env | {"TURNWIRE_URL": server.url, "TURNWIRE_KEY": KEY}
    with terminal(tmp_path / "t", [str(PROGRAM), "files", "put", session, str(big)], variables) as term:
        assert "MB" in term.until("big.bin ━")
        term.press("C-c")
        assert term.exit_code() != 0
