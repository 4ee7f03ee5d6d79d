"""The two surfaces are one: the same names, the same parameters; and they are typed for those who use them."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import turnwire
from turnwire import Client

PAIRS = ["Client", "Sessions", "Session", "Turn", "Files", "Skills"]
RENAMED = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}


def methods(cls: type) -> dict[str, object]:
    found = {name: member for name, member in vars(cls).items() if not name.startswith("_") or name in OWN}
    return {RENAMED.get(name, name): member for name, member in found.items()}


OWN = {"__init__", "__repr__", *RENAMED, *RENAMED.values()}


@pytest.mark.parametrize("name", PAIRS)
def test_the_asynchronous_class_has_the_same_methods_and_parameters(name: str) -> None:
    blocking, concurrent = methods(getattr(turnwire, name)), methods(getattr(turnwire, f"Async{name}"))

    assert list(blocking) == list(concurrent)
    for method, member in blocking.items():
        if callable(member):
            other = concurrent[method]
            assert callable(other)
            assert list(inspect.signature(member).parameters) == list(inspect.signature(other).parameters), method
            assert [p.default for p in inspect.signature(member).parameters.values()] == [
                p.default for p in inspect.signature(other).parameters.values()
            ], method


@pytest.mark.parametrize("name", PAIRS)
def test_both_say_the_same_of_a_method(name: str) -> None:
    blocking, concurrent = methods(getattr(turnwire, name)), methods(getattr(turnwire, f"Async{name}"))

    assert {method: inspect.getdoc(member) for method, member in blocking.items() if method != "__init__"} == {
        method: inspect.getdoc(member) for method, member in concurrent.items() if method != "__init__"
    }


def test_a_typed_program_is_understood_by_pyright(tmp_path: Path) -> None:
    program = Path(__file__).with_name("typed_usage.py")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)

    told = json.loads(done.stdout)
    assert told["generalDiagnostics"] == []
    assert told["summary"]["filesAnalyzed"] == 1


def test_a_client_of_your_own_http_library_is_used(demo) -> None:
    import httpx2

    seen: list[str] = []
    headers = {"Authorization": f"Bearer {demo.key}"}
    with httpx2.Client(
        headers=headers, event_hooks={"request": [lambda request: seen.append(request.url.path)]}
    ) as http:
        with Client(demo.url, http=http) as tw:
            assert tw.sessions.create().send("/text hi").text() == "hi"
        assert not http.is_closed

    assert seen[0] == "/v1/sessions"
