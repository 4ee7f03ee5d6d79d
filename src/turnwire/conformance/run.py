"""Runs cases against a server, several at a time, and says of each: passed, failed, or not offered."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from turnwire.conformance import steps
from turnwire.conformance.cases import Behaviours, Case
from turnwire.conformance.match import fill
from turnwire.conformance.wire import Request, Target, WireError, ask

CLEAN_UP_S = 10.0
"""Seconds that the deletion of one session may take."""


@dataclass(frozen=True)
class Kit:
    """What the cases run against, and with."""

    target: Target
    behaviours: Behaviours
    other_key: str | None = None
    """A key of another tenant."""
    heartbeat_s: float = 15.0
    """The server's heartbeat interval."""
    jobs: int = 4


@dataclass(frozen=True)
class Result:
    """What became of a case. `rule`: the one that it broke; `why`: a sentence."""

    case: Case
    verdict: Literal["passed", "failed", "not offered"]
    rule: str
    why: str = ""
    seconds: float = 0.0


@dataclass
class Sessions:
    """What a run has made, to be deleted behind it."""

    target: Target
    ids: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, session_id: str, key: str) -> None:
        with self.lock:
            self.ids.append((session_id, key))

    def delete_all(self) -> list[str]:
        """The ids of those that could not be deleted."""
        left: list[str] = []
        for session_id, key in self.ids:
            request = Request("DELETE", f"/v1/sessions/{session_id}", {"Authorization": f"Bearer {key}"})
            try:
                status = ask(self.target, request, time.monotonic() + CLEAN_UP_S).status
            except WireError:
                status = 0
            if status not in (204, 404):
                left.append(session_id)
        return left


def check_server(kit: Kit) -> list[dict[str, Any]]:
    """The server's models. `WireError`, a sentence, when no server of this wire answers there, or not to this key."""
    request = Request("GET", "/v1/models", {"Authorization": f"Bearer {kit.target.key}"})
    answer = ask(kit.target, request, time.monotonic() + CLEAN_UP_S)
    if answer.status == 401:
        raise WireError("The server does not know this key: give one by --key, or in POKEE_KEY.")
    found = answer.json() if answer.status == 200 else None
    if not isinstance(found, list):
        raise WireError(f"This is no server of this protocol: GET /v1/models answers {answer.status}.")
    return found  # pyright: ignore[reportUnknownVariableType]


def run_cases(kit: Kit, cases: Iterable[Case]) -> Iterator[Result]:
    """The result of each case, in their order, as soon as it and those before it are there."""
    with ThreadPoolExecutor(kit.jobs) as pool:
        futures = [pool.submit(run_case, kit, case) for case in cases]
        for future in futures:
            yield future.result()


def run_case(kit: Kit, case: Case) -> Result:
    """One case, from its session to the deletion of all that it made."""
    began = time.monotonic()
    missing = _missing(kit, case)
    if missing:
        return Result(case, "not offered", case.rules[0], missing)
    sessions = Sessions(kit.target)
    run = steps.CaseRun(
        kit.target, case, variables(kit), sessions.note, other_key=kit.other_key, model=kit.behaviours.model
    )
    try:
        outcome = _outcome(run, case)
    finally:
        run.close()
        left = sessions.delete_all()
    verdict, rule, why = outcome
    if verdict == "passed" and left:
        verdict, rule, why = "failed", "P-4.7", f"The session {left[0]} could not be deleted."
    return Result(case, verdict, rule, why, time.monotonic() - began)


def _outcome(run: steps.CaseRun, case: Case) -> tuple[Literal["passed", "failed", "not offered"], str, str]:
    try:
        run.run()
    except steps.NotOffered as exc:
        return "not offered", case.rules[0], str(exc)
    except steps.StepFailed as exc:
        return "failed", exc.rule, steps.sentence(exc)
    return "passed", case.rules[0], ""


def _missing(kit: Kit, case: Case) -> str:
    """Why the case can't be run here; empty when it can."""
    lacking = [name for name in case.needs if name not in kit.behaviours.behaviours]
    if lacking:
        return f"No message is known that makes the model show: {', '.join(lacking)}."
    if case.other_tenant and kit.other_key is None:
        return "It needs a key of another tenant: --other-key."
    return ""


def variables(kit: Kit) -> dict[str, Any]:
    """What cases may name: `say.NAME` is a behaviour's message, `NAME.FIELD` what else it has."""
    found: dict[str, Any] = {"heartbeat_s": kit.heartbeat_s, "silence_s": round(kit.heartbeat_s * 1.3 + 1, 2)}
    for name, behaviour in kit.behaviours.behaviours.items():
        for key, value in behaviour.items():
            found[f"say.{name}" if key == "message" else f"{name}.{key}"] = value
    return {name: fill(value, found) for name, value in found.items()}


def exit_code(results: Iterable[Result], *, strict: bool = False) -> int:
    """0 when nothing failed; with `strict`, what is not offered counts as failed."""
    bad = {"failed", "not offered"} if strict else {"failed"}
    return int(any(result.verdict in bad for result in results))
