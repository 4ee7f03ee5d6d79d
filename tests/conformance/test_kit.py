"""The kit against our own server, where all must pass, and against servers with a fault each, which it must catch."""

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from conformance.faults import FAULTS
from conformance.faulty_proxy import Fault, Proxy
from e2e.harness import KEY, PROGRAM, Server
from turnwire.conformance.cases import Behaviours, load_behaviours, load_cases
from turnwire.conformance.run import Kit, Result, run_cases
from turnwire.conformance.wire import Target

HEARTBEAT_S = 0.5
CASES = {case.id: case for case in load_cases()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("kit"), HEARTBEAT_INTERVAL_S=HEARTBEAT_S) as server:
        yield server


@pytest.fixture(scope="module")
def other_key(server: Server) -> str:
    return key_of_another_tenant(server)


def key_of_another_tenant(server: Server) -> str:
    command = [PROGRAM, "keys", "create", "other", "--tenant", "other", "--data-dir", server.data_dir]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=server.env)
    return done.stdout.split()[-1]


def run(url: str, *names: str, other_key: str | None = None, behaviours: Behaviours | None = None) -> list[Result]:
    kit = Kit(Target(url, KEY), behaviours or load_behaviours(None), other_key, HEARTBEAT_S)
    return list(run_cases(kit, [CASES[name] for name in names or CASES]))


def conformance(*arguments: str | Path, code: int, **env: str) -> str:
    """What the command prints."""
    command = [PROGRAM, "conformance", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env | {"COLUMNS": "140"})
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def sessions(server: Server) -> list[object]:
    answer = httpx.get(f"{server.url}/v1/sessions", headers={"Authorization": f"Bearer {KEY}"})
    return answer.json()


@pytest.mark.slow
def test_our_own_server_passes_every_case_and_offers_all(server: Server, other_key: str, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"

    shown = conformance(
        server.url, "--heartbeat", str(HEARTBEAT_S), "--junit", junit, "--strict",
        code=0, POKEE_KEY=KEY, POKEE_OTHER_KEY=other_key,
    )  # fmt: skip

    assert f"{len(CASES)} passed, 0 failed, 0 not offered." in shown
    assert all(name in shown for name in CASES)
    suite = ET.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (str(len(CASES)), "0", "0")
    assert sessions(server) == []


@pytest.mark.slow
@pytest.mark.tool("postgres")
def test_our_own_server_passes_every_case_on_postgresql_too(database: str, tmp_path: Path) -> None:
    with Server(tmp_path, HEARTBEAT_INTERVAL_S=HEARTBEAT_S, DATABASE_URL=database) as server:
        shown = conformance(
            server.url, "--heartbeat", str(HEARTBEAT_S), "--strict",
            code=0, POKEE_KEY=KEY, POKEE_OTHER_KEY=key_of_another_tenant(server),
        )  # fmt: skip

    assert f"{len(CASES)} passed, 0 failed, 0 not offered." in shown


@pytest.mark.slow
def test_a_proxy_without_a_fault_changes_nothing(server: Server, other_key: str) -> None:
    with Proxy(server.url, Fault("", "")) as proxy:
        results = run(proxy.url, other_key=other_key)

    assert [(one.case.id, one.why) for one in results if one.verdict != "passed"] == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught(name: str, server: Server) -> None:
    fault = FAULTS[name]

    with Proxy(server.url, fault) as proxy:
        (result,) = run(proxy.url, fault.case)

    assert (result.verdict, result.rule) == ("failed", fault.rule), result.why
    assert result.why[0].isupper() or not result.why[0].isalpha()
    assert result.why.endswith(".")


def test_what_a_case_made_is_deleted_when_it_fails_too(server: Server) -> None:
    with Proxy(server.url, FAULTS["CRLF"]) as proxy:
        (result,) = run(proxy.url, "frames")

    assert result.verdict == "failed"
    assert sessions(server) == []


def test_a_failure_is_shown_with_its_rule_and_its_reason(server: Server, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"

    with Proxy(server.url, FAULTS["CRLF"]) as proxy:
        shown = conformance(proxy.url, "--only", "frames", "--junit", junit, code=1, POKEE_KEY=KEY)

    assert "0 passed, 1 failed, 0 not offered." in shown
    assert "The stream holds a carriage return" in shown
    assert "[P-1.2] The stream MUST be UTF-8" in shown
    failure = ET.parse(junit).getroot().find("testcase/failure")
    assert failure is not None and "carriage return" in failure.get("message", "")


def test_a_behaviour_that_is_not_known_leaves_its_cases_out(server: Server) -> None:
    known = Behaviours({"text": {"message": "hello", "text": "~.+"}})

    results = {one.case.id: one for one in run(server.url, "frames", "thinking", "health", behaviours=known)}

    assert {name: one.verdict for name, one in results.items()} == {
        "frames": "passed",
        "thinking": "not offered",
        "health": "passed",
    }
    assert results["thinking"].why == "No message is known that makes the model show: thinking."


def test_an_endpoint_that_is_missing_is_not_offered(server: Server) -> None:
    missing = Fault("", "", request=lambda raw: raw.replace(b"/ticket HTTP", b"/no-ticket HTTP"))

    with Proxy(server.url, missing) as proxy:
        (result,) = run(proxy.url, "ticket")

    assert result.verdict == "not offered"


def test_a_case_ends_in_its_time(server: Server) -> None:
    from msgspec.structs import replace

    kit = Kit(Target(server.url, KEY), load_behaviours(None))
    case = replace(CASES["cancel-in-silence"], limit_s=1.0, steps=[*CASES["cancel-in-silence"].steps[:1]] * 1)
    endless = replace(case, steps=[replace(case.steps[0], until=None)])

    (result,) = run_cases(kit, [endless])

    assert result.verdict == "failed"
    assert result.seconds < 5
    assert sessions(server) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["http://127.0.0.1:9"], 1, "The connection to 127.0.0.1:9 failed"),
        (["ftp://somewhere"], 2, "is no address of a server"),
        ([], 2, "give the server's address"),
        (["http://127.0.0.1:9", "--only", "nothing-like-this"], 2, "No case has a name or rule like"),
        (["http://127.0.0.1:9", "--behaviours", "/no/such/file"], 2, "can't be read"),
    ],
)
def test_wrong_use_is_one_sentence(arguments: list[str], code: int, says: str) -> None:
    assert says in conformance(*arguments, code=code)


def test_a_wrong_key_is_told(server: Server) -> None:
    assert "does not know this key" in conformance(server.url, "--key", "wrong", code=1)


def test_the_list_shows_what_each_case_needs() -> None:
    shown = conformance("--list", "--only", "P-5.11", code=0)

    assert "cancel-in-silence" in shown and "hang" in shown
    assert "frames" not in shown
