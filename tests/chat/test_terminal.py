"""`turnwire chat` in a real terminal, before a real server."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from chat.conftest import Open
from chat.terminal import Terminal
from files.served import PROGRAM, Served, eventually

pytestmark = pytest.mark.tool("tmux")

NUMBERS = re.compile(r"\b\d+\b")


def answer_of(text: str, question: str) -> str:
    """What stands between a question and the next prompt."""
    return text.split(question, 1)[1].split("❯", 1)[0]


def test_an_answer_is_shown_as_markdown_with_thinking_and_calls_shortened(chat: Open) -> None:
    with chat("--workspace", "private") as term:
        term.until("❯")
        term.send(
            "/think Two files, I suppose.",
            "# A head",
            "It is **bold**.",
            '/call write_file {"path": "notes.md", "content": "one\\ntwo\\n"}',
            "/then",
            '/call read_file {"path": "notes.md"}',
            "/then",
            '/text "```py\\nx = 1\\n\\ny = 2\\n```\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n"',
        )
        term.until(" in · ")
        shown = answer_of(term.everything(), "| 1 | 2 |")

        assert "▸ thought" in shown and "I suppose" not in shown
        assert "A head" in shown and "#" not in shown
        assert "It is bold." in shown and re.search(r"\x1b\[[0-9;]*1[;m][^\n]*bold", term.colored())
        assert re.search(r"✓ write_file  notes\.md  \d\.\d s\n", shown)
        assert re.search(r"✓ read_file  notes\.md  \d\.\d s\n  1?\s*one", shown)
        assert "\nx = 1\n\ny = 2\n" in shown
        assert re.search(r"a +b\n ?─+\n ?1 +2\n", shown)

        term.press("C-o")
        assert "▾" in term.until("Two files, I suppose.")
        term.press("C-d")
        assert "turnwire chat --session sess_" in term.until("To go on")
        assert term.exit_code() == 0


def test_what_is_finished_stays_and_few_rows_are_drawn_again(chat: Open) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/text one\\n\\n", "", "/stream 40 20")
        term.until(" 12 ")
        screen = term.until("Ctrl-C stops")
        assert "writing" in screen
        term.until(" in · ")

        shown = answer_of(term.everything(), "/stream 40 20")
        assert [int(number) for number in NUMBERS.findall(shown.split(" in · ")[0])][:40] == list(range(1, 41))
        assert "Ctrl-C stops" not in term.everything()


def test_a_window_may_change_its_size_in_the_middle(chat: Open) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/stream 90 25")
        for number, (columns, rows) in enumerate([(40, 20), (110, 30), (33, 12)]):
            term.until(f" {10 + 22 * number} ")
            term.resize(columns, rows)
        term.until(" in · ")

        assert "stops" not in term.everything()
        shown = answer_of(term.everything(), "/stream 90 25").split(" in · ")[0]
        numbers = [int(number) for number in NUMBERS.findall(shown)][:-1]
        assert numbers[-90:] == list(range(1, 91))
        # A terminal that becomes narrower while it is filled to its first row moves rows out of reach, which stay.
        assert len(numbers) < 90 + 40


def test_ctrl_c_stops_the_turn_and_the_conversation_goes_on(chat: Open, server: Served) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/stream 1000 10")
        term.until(" 5 ")
        term.press("C-c")
        term.until("■ stopped")
        term.send("/text Still here.")
        term.until("\nStill here.\n")
        term.at_rest()
        term.press("Up")
        term.press("Up")
        term.until("❯ /stream 1000 10")
        term.press("C-c")
        term.press("C-d")

        assert term.exit_code() == 0
        assert server.client.get("/v1/sessions", params={"status": "busy"}).json() == []


def test_ctrl_c_twice_leaves_and_the_turn_is_cancelled(chat: Open, server: Served) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/stream 1000 10")
        term.until(" 5 ")
        term.press("C-c", "C-c")

        assert term.exit_code() == 0
        assert "To go on" in term.screen()
        eventually(lambda: server.client.get("/v1/sessions", params={"status": "busy"}).json() == [])


def test_ctrl_c_twice_at_an_empty_line_leaves(chat: Open) -> None:
    with chat() as term:
        term.until("❯")
        term.type("half a line")
        term.until("half a line")
        term.press("C-c")
        term.until("half a line", gone=True)
        term.press("C-c", "C-c")

        assert term.exit_code() == 0


def test_a_call_is_allowed_refused_or_changed(chat: Open) -> None:
    with chat("--approve", "write_file", "--workspace", "private") as term:
        term.until("❯")
        term.send('/call write_file {"path": "a.txt", "content": "\\u202etxt"}')
        screen = term.until("[y]es [n]o [e]dit")
        assert '"path": "a.txt"' in screen and "\\u202etxt" in screen, "nobody says yes to what they can't see"
        time.sleep(0.6)
        term.press("y")
        assert "✓ write_file" in term.until(" in · ")
        term.at_rest()

        term.send('/call write_file {"path": "b.txt", "content": "no"}')
        term.until("[y]es")
        time.sleep(0.6)
        term.press("n")
        term.until("⊘ write_file")
        term.at_rest()

        term.send('/call write_file {"path": "c.txt", "content": "x"}')
        term.until('"c.txt"')
        term.until("[y]es")
        time.sleep(0.6)
        term.press("e")
        term.until("Enter allows it so")
        term.press("BSpace", "Enter")
        term.until("This is no JSON")
        term.until("[y]es")
        time.sleep(0.6)
        term.press("e")
        term.until("Enter allows it so")
        term.press("Up", "Up", "C-e", *["BSpace"] * 5)
        term.type('md",')
        term.press("Enter")
        term.until("✓ write_file  c.md")
        term.at_rest()
        term.send("/files")
        eventually(lambda: " c.md\n" in term.screen().split("/files")[-1])
        shown = term.screen().split("/files")[-1]
        assert "a.txt" in shown and "b.txt" not in shown and "c.txt" not in shown


def test_keys_that_were_on_their_way_allow_nothing(chat: Open) -> None:
    with chat("--approve", "bash") as term:
        term.until("❯")
        term.send('/call bash {"command": "touch x"}')
        for _ in range(8):
            term.type("y")
            time.sleep(0.05)
        term.until("[y]es")
        assert "✓ bash" not in term.screen()
        term.press("C-c")
        term.until("■ stopped")


def test_the_server_is_killed_in_the_middle_of_an_answer(chat: Open, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    served = Served(tmp_path / "s", {})
    with chat(on=served) as term:
        term.until("❯")
        term.send("/stream 60 20")
        term.until(" 8 ")
        served.close(kill=True)
        term.until("Reconnecting")
        served.arguments = ("--model", "demo", "--port", str(served.port))
        served.start()
        shown = term.until(" in · ", timeout_s=30)

        assert "The server restarted; this step is made again." in shown
        again = shown.split("made again.")[1].split(" in · ")[0]
        assert [int(number) for number in NUMBERS.findall(again)][:60] == list(range(1, 61))
        term.press("C-d")
        assert term.exit_code() == 0
    served.close()


def test_without_a_server_it_starts_one_and_ends_it(chat: Open, env: dict[str, str], tmp_path: Path) -> None:
    with chat(on=None, env={"TURNWIRE_MODEL": "demo"}) as term:
        assert "no server is running: starting one on ~/.local/share/turnwire" in term.until("❯")
        term.send("/stream 100 20")
        term.until(" 9 ")
        server = int((tmp_path / ".local/share/turnwire/lock").read_text().split()[0])
        os.kill(server, signal.SIGKILL)
        term.until("this step is made again", timeout_s=30)
        term.until(" 20 ")
        again = int((tmp_path / ".local/share/turnwire/lock").read_text().split()[0])
        assert again != server
        term.press("C-c")
        term.until("■ stopped")
        term.press("C-d")
        assert term.exit_code() == 0

        eventually(lambda: not Path(f"/proc/{again}").exists())


def test_a_server_that_is_there_is_found_by_its_data_folder_and_stays(chat: Open, server: Served) -> None:
    variables = {"TURNWIRE_API_KEY": server.env["TURNWIRE_API_KEY"]}
    with chat("--data-dir", str(server.data), on=None, env=variables) as term:
        assert server.url in term.until("❯")
        term.send("/text Found.")
        term.until("\nFound.\n")
        term.at_rest()
        term.press("C-d")
        assert term.exit_code() == 0

    assert server.client.get("/health").status_code == 200


def test_a_running_turn_is_attached_to_and_shown_from_its_beginning(chat: Open, server: Served) -> None:
    session = server.client.post("/v1/sessions", json={}).json()["id"]
    url = f"/v1/sessions/{session}/messages"
    server.client.post(url, json={"message": "/text Earlier answer."})
    with server.client.stream("POST", url, json={"message": "/stream 80 20"}) as stream:
        next(stream.iter_lines())
    with chat("--session", session) as term:
        shown = term.until(" 79 80", timeout_s=15)
        term.until("demo ·")
        term.at_rest()
        shown = term.everything()

        assert "A turn is running" in shown
        assert list(map(int, NUMBERS.findall(shown.split("beginning.")[1])))[:80] == list(range(1, 81))
        term.send("/history")
        term.until("Earlier answer.")


def test_what_a_model_says_controls_no_terminal(chat: Open) -> None:
    with chat() as term:
        term.until("❯")
        title = title_of(term)
        term.send(r'/text "a\u001b]0;owned\u0007b\u001b[2Jc\u009b31md\u202ee\rf\u0008g"', "/unicode")
        shown = term.until(" in · ")

        assert "a]0;ownedb[2Jc31mdefg" in shown
        assert title_of(term) == title


def title_of(term: Terminal) -> str:
    return term._tmux("display-message", "-p", "#{pane_title}")


def test_a_text_with_colours_is_pasted_where_the_terminal_does_not_say_that_it_is(chat: Open) -> None:
    with chat() as shown:
        shown.until("❯")
        shown.type("/text one \x1b[31mred\x1b[0m two")
        shown.press("Enter")

        shown.until("one red two\n\n")
        assert "Traceback" not in shown.everything() and "ENTER" not in shown.everything()


def test_what_is_typed_during_a_turn_is_kept_for_the_next_line(chat: Open) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/stream 30 20")
        term.until(" 4 ")
        term.type("/text and nowx")
        term.press("BSpace")
        assert "stops" in term.until("❯ /text and now\n")
        term.until(" in · ")
        term.until("❯ /text and now\n")
        time.sleep(0.3)
        term.press("Enter")
        term.until("\nand now\n")


def test_lines_are_kept_for_the_next_time_readable_by_their_owner_alone(chat: Open, tmp_path: Path) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/text remember me")
        term.until("\nremember me\n")
        term.at_rest()
        term.press("C-d")
        term.exit_code()
    history = tmp_path / ".local/state/turnwire/history"
    assert history.stat().st_mode & 0o777 == 0o600 and "remember me" in history.read_text()
    with chat() as term:
        term.until("❯")
        term.press("Up")
        term.until("❯ /text remember me")


def test_commands_help_new_sessions_model_files(chat: Open, tmp_path: Path) -> None:
    (tmp_path / "bills.csv").write_text("a,b\n")
    with chat("--workspace", "private", rows=50) as term:
        term.until("❯")
        term.send("/put ~/bills.csv")
        term.until("begins with your first message")
        term.send("/text Hello.")
        term.until("\nHello.\n")
        term.at_rest()
        term.send("/put ~/bills.csv in/bills.csv")
        term.until("in/bills.csv: 4 bytes")
        term.send(f"/get in/bills.csv {tmp_path}/copy.csv")
        term.until("Written to")
        assert (tmp_path / "copy.csv").read_text() == "a,b\n"
        term.send("/help")
        term.until("Alt-Enter")
        term.send("/model")
        term.until("✓ demo")
        term.send("/thinking")
        term.until("Write it so: /thinking LEVEL|show|hide")
        term.send("/open sess_000000000000")
        term.until("There is no session sess_000000000000.")
        term.send("/sessions")
        term.until("/text Hello.")
        term.send("/new")
        term.until("The next message begins")
        term.send("/quit")
        assert term.exit_code() == 0


def test_no_color_means_none(chat: Open) -> None:
    with chat(env={"NO_COLOR": "1"}) as term:
        term.until("❯")
        term.send("`code` and [a](https://example.org)")
        term.until(" in · ")

        assert not re.search(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|4[0-7])m", term.colored())


def test_an_answer_of_100_000_characters_is_shown_whole_and_in_time(chat: Open) -> None:
    with chat(rows=30) as term:
        term._tmux("set-option", "-g", "history-limit", "20000")
        term.until("❯")
        began = time.monotonic()
        term.send("/big 100000")
        term.until(" in · ", timeout_s=30)

        assert time.monotonic() - began < 20


def test_the_prompt_is_there_after_little_work(chat: Open) -> None:
    with chat() as term:
        term.until("❯")
        pid = next(
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and _runs(folder, f"{PROGRAM}\0chat")
        )
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

        assert (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") < 0.7


def _runs(folder: Path, what: str) -> bool:
    try:
        return what in (folder / "cmdline").read_text()
    except OSError:
        return False


def test_a_terminal_that_goes_away_ends_it(chat: Open, server: Served) -> None:
    with chat() as term:
        term.until("❯")
        term.send("/stream 500 20")
        term.until(" 5 ")
        panes = term._tmux("list-panes", "-F", "#{pane_pid}")
        term.close()

    (busy,) = server.client.get("/v1/sessions", params={"status": "busy"}).json()  # the turn goes on
    server.client.delete(f"/v1/sessions/{busy['id']}")
    eventually(lambda: not Path(f"/proc/{panes.strip()}").exists())
    eventually(lambda: not any(_runs(folder, f"{PROGRAM}\0chat") for folder in Path("/proc").glob("[0-9]*")))
