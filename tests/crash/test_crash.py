"""A short run of the crash bench, and that its checks see what they look for."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # the benches are no part of the package

from bench.crash.checks import conversation_faults, log_faults, tool_faults  # noqa: E402
from bench.crash.client import Seen  # noqa: E402
from bench.crash.plan import Call, Step, kills_of, turn_of  # noqa: E402
from bench.crash.provider import faults_of, message_of  # noqa: E402
from bench.crash.takeup import measure  # noqa: E402

STEPS = [Step(thinking=0, text=2, calls=[Call("count", 0.1)], rate=50), Step(0, 1, [], 50)]
CREATED = ("message.created", {"id": "msg_1", "session_id": "sess_1", "status": "in_progress"})
COMPLETED = ("message.completed", {"id": "msg_1", "status": "completed", "usage": {}})
CONTENT = [
    {"type": "text", "text": "t.0.1:0 t.0.1:1 "},
    {"type": "tool_use", "id": "call_1", "name": "count", "input": {"token": "t.0.1:c0"}},
    {"type": "tool_result", "id": "call_1", "content": "done", "is_error": False},
    {"type": "text", "text": "t.1.0:0 "},
]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.tool("postgres"))])
def test_fifteen_kills_lose_and_double_nothing(store: str, request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-m", "bench.crash", "--kills", "15", "--seed", "5", "--take-up", "0"]
    if store == "postgres":
        command += ["--database", request.getfixturevalue("database")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 5\n15 kills" in done.stdout
    turns, events = re.findall(r"(\d+) turns, (\d+) events", done.stdout)[0]
    assert int(turns) > 3 and int(events) > 500
    for state in ("text", "tool input", "executing", "between commit and send"):
        assert re.search(rf"^  {state} +[1-9]", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
def test_turns_are_taken_up_at_once_and_their_readers_find_them(tmp_path: Path) -> None:
    taken_up = asyncio.run(measure(tmp_path / "take-up", 20))

    assert taken_up.beyond_start_s < 3, taken_up  # a bound for a busy machine: the bench has the figure
    assert taken_up.cut_off == 0, "a reader was answered before its turn was taken up"


def test_a_seed_makes_one_plan() -> None:
    assert kills_of(7, 50) == kills_of(7, 50) != kills_of(8, 50)
    assert turn_of(7, 1, 2) == turn_of(7, 1, 2)


def test_the_client_notices_what_is_doubled_or_skipped() -> None:
    seen = Seen("t", "sess_1")

    assert seen.add(0, *CREATED) is None
    assert "got the event 0 where 1 comes next" in str(seen.add(0, *CREATED))
    assert "got the event 2 where 1 comes next" in str(seen.add(2, *COMPLETED))
    assert seen.add(1, *COMPLETED) is None
    assert "behind the ending" in str(seen.add(2, *COMPLETED))


def test_the_checks_of_a_log_see_another_event_a_missing_ending_and_bad_grammar() -> None:
    seen = Seen("t", "sess_1")
    seen.events = [CREATED, COMPLETED]

    assert log_faults(seen, [CREATED, COMPLETED]) == []
    assert "not those of the log, from number 1 on" in log_faults(seen, [CREATED, ("text.start", {}), COMPLETED])[0]
    assert any("0 endings" in fault for fault in log_faults(seen, [CREATED]))
    assert any("2 endings" in fault for fault in log_faults(seen, [CREATED, COMPLETED, COMPLETED]))
    assert any("can't follow" in fault for fault in log_faults(seen, [CREATED, ("text.stop", {}), COMPLETED]))


def test_the_checks_of_a_conversation_see_what_is_superseded_or_missing() -> None:
    assert conversation_faults("t", STEPS, CONTENT) == []

    superseded = [{"type": "text", "text": "t.0.0:0 "}, *CONTENT]
    assert "shows the attempts ['t.0.0', 't.0.1']" in conversation_faults("t", STEPS, superseded)[0]
    assert "is not whole" in conversation_faults("t", STEPS, [{"type": "text", "text": "t.0.1:0 "}, *CONTENT[1:]])[0]
    assert "results []" in conversation_faults("t", STEPS, [*CONTENT[:2], CONTENT[3]])[0]


def test_the_checks_of_tools_see_a_second_run_and_a_result_that_lies(tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def faults(text: str) -> list[str]:
        marks.write_text(text)
        return tool_faults(marks, {"t": STEPS}, {"t": CONTENT})

    once = "begin t.0.1:c0\nend t.0.1:c0\n"
    assert faults(once) == []
    assert faults(once * 2) == ["t.0.1:c0 ran 2 times"]
    assert faults("begin t.0.1:c0\n") == ["t.0.1:c0 never ran to its end, but has a result"]
    assert faults(once + "begin t.0.0:c0\n") == ["t.0.0:c0 ran, though its step was superseded"]


def test_the_provider_sees_a_history_that_no_provider_takes() -> None:
    user = {"role": "user", "content": message_of("t", STEPS)}
    call = {"id": "c", "function": {"name": "count", "arguments": '{"token": "t.0.1:c0"}'}}
    step = {"role": "assistant", "content": "t.0.1:0 t.0.1:1 ", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "done"}

    assert faults_of([user, step, result]) == []
    assert "calls without a result: ['c']" in faults_of([user, step])
    assert "two messages of the user in a row" in faults_of([user, user])
    assert "is not one whole attempt" in faults_of([user, {**step, "content": "t.0.1:0 t.0.0:1"}, result])[0]
