"""`turnwire conformance`: the black-box kit against a server."""

from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from turnwire.cli import Failed
from turnwire.conformance.cases import Behaviours, Case, load_behaviours, load_cases
from turnwire.conformance.report import console, print_list, print_table, write_junit
from turnwire.conformance.run import Kit, Result, check_server, exit_code, run_cases
from turnwire.conformance.wire import Target, WireError


class WrongUse(Failed):
    exit_code = 2


def list_cases(only: str | None) -> None:
    """Print the cases."""
    print_list(choose(only), console())


def conformance(
    url: str,
    key: str,
    *,
    other_key: str | None,
    behaviours: Path | None,
    heartbeat_s: float,
    jobs: int,
    only: str | None,
    junit: Path | None,
    strict: bool,
) -> int:
    """Run the cases, print the table; the exit code."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUse(f"{url!r} is no address of a server, such as http://127.0.0.1:8080.")
    cases = choose(only)
    found = load_behaviours(behaviours)
    kit = Kit(Target(url.rstrip("/"), key), found, other_key or None, heartbeat_s, jobs)
    try:
        models = check_server(kit)
    except WireError as exc:
        raise Failed(str(exc)) from exc
    notes = Console(stderr=True, highlight=False)
    if behaviours is None and all(model.get("id") != found.model for model in models):
        notes.print("The server does not offer the model demo: what needs a behaviour of the model is left out.")
        notes.print("A file that says how its model shows each behaviour is given by --behaviours.")
        kit = Kit(kit.target, Behaviours({}), kit.other_key, heartbeat_s, jobs)
    results = _run(kit, cases, notes)
    if junit is not None:
        try:
            write_junit(results, junit)
        except OSError as exc:
            raise Failed(f"{junit} can't be written: {exc.strerror or exc}.") from exc
    print_table(results, console())
    return exit_code(results, strict=strict)


def choose(only: str | None) -> list[Case]:
    """The cases whose name, or one of whose rules, `only` matches (`*`, `?`); all without it."""
    cases = load_cases()
    if only is None:
        return cases
    chosen = [case for case in cases if any(fnmatchcase(name, only) for name in (case.id, *case.rules))]
    if not chosen:
        raise WrongUse(f"No case has a name or rule like {only!r}: --list shows them all.")
    return chosen


def _run(kit: Kit, cases: list[Case], notes: Console) -> list[Result]:
    results: list[Result] = []
    with notes.status("") as status:
        for result in run_cases(kit, cases):
            results.append(result)
            failed = sum(one.verdict == "failed" for one in results)
            status.update(f"{len(results)} of {len(cases)} cases, {failed} failed")
    return results
