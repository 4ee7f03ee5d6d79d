"""The cases are tied to PROTOCOL.md: every MUST has one, or a reason why it has none."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec

from turnwire.conformance.cases import Behaviours, Case, Send, load_behaviours, load_cases
from turnwire.conformance.rules import read_rules

CASES = load_cases()
RULES = read_rules()

WITHOUT_CASE = {
    "P-2.11": "it binds clients: tests/clients",
    "P-3.6": "a server with a bug would be needed: tests/server",
    "P-4.20": "names that are no text come from the agent's side: tests/files",
    "P-5.8": "the server would have to be killed: tests/crash",
}


def test_every_must_of_the_protocol_has_a_case_or_a_reason() -> None:
    shown = {rule for case in CASES for rule in case.rules} | {
        step.rule for case in CASES for step in case.steps if step.rule
    }

    without = {rule for rule, text in RULES.items() if "MUST" in text} - shown
    assert without == set(WITHOUT_CASE)


def test_cases_name_rules_that_are_there() -> None:
    assert {rule for case in CASES for rule in case.rules} <= set(RULES)
    assert {step.rule for case in CASES for step in case.steps if step.rule} <= set(RULES)


def test_names_of_cases_are_theirs_alone() -> None:
    names = [case.id for case in CASES]

    assert len(set(names)) == len(names)


def test_behaviours_are_those_that_cases_need() -> None:
    needed = {name for case in CASES for name in case.needs}

    assert needed == set(load_behaviours(None).behaviours)


def test_no_case_deletes_what_is_not_its_own() -> None:
    deletions = [
        step.request
        for case in CASES
        for step in case.steps
        if isinstance(step, Send) and step.request.startswith("DELETE /v1/sessions?") and step.status == 200
    ]

    assert deletions == ["DELETE /v1/sessions?older_than=999999h1m1s"]


def test_titles_are_sentences() -> None:
    assert [case.id for case in CASES if not case.title.endswith(".") or not case.title[0].isupper()] == []


def test_the_guide_shows_a_case_as_it_is() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "conformance.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)

    behaviours, case = (tomllib.loads(block) for block in blocks)
    shown = msgspec.convert(case["case"][0], Case)
    assert shown == next(one for one in CASES if one.id == shown.id)
    assert msgspec.convert(behaviours, Behaviours).behaviours.keys() <= load_behaviours(None).behaviours.keys()


def test_the_kit_needs_no_part_of_the_server() -> None:
    program = "import sys, turnwire.cli.conformance; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    loaded = set(done.stdout.split())
    assert loaded & {"fastapi", "pydantic", "pydantic_ai", "uvicorn", "aiohttp", "structlog"} == set()
