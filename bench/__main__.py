"""The server's benchmark: `python -m bench [CASE …] [--rounds 3] [--no-floor] [--json FILE] [--database URL]`. See
README.md.

Starts a real `turnwire serve`, a fake provider and a load client, each a process of its own, and prints what the
server costs. A case is run once a round, on the relay without a log (peers/relay.py) in the same round, so that a
neighbour who takes the machine's time takes it from both.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import track

from bench import cases, processes
from bench.load import LoadClient

Results = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What turnwire's server costs.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases.CASES)}; all without")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-floor", action="store_true", help="leave the relay out")
    parser.add_argument("--dir", default="/var/tmp", help="where the database lies: /tmp may be in memory")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL database; else the embedded store in --dir")
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    args = parser.parse_args()
    unknown = set(args.cases) - set(cases.CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    chosen = [name for name in cases.CASES if not args.cases or name in args.cases]
    ours: Results = {}
    floor: Results = {}
    with (
        tempfile.TemporaryDirectory(dir=args.dir, prefix="turnwire-bench-") as folder,
        processes.provider() as provider,
    ):
        for number in track(range(args.rounds), "rounds", console=Console(stderr=True), transient=True):
            data = Path(folder) / f"data{number}"
            _round(chosen, provider, data, args.database, ours, None if args.no_floor else floor)
    print()
    for line in _table(ours, floor):
        print(line)
    if args.json:
        args.json.write_text(json.dumps({"turnwire": ours, "relay": floor}, indent=1))


def _round(
    chosen: list[str], provider: str, data: Path, database: str | None, ours: Results, floor: Results | None
) -> None:
    """Both servers live through the whole round; each case is run on one, then on the other."""
    with ExitStack() as stack:
        server = stack.enter_context(processes.turnwire(provider, data, database=database))
        clients = [(server, LoadClient(server.url, processes.KEY), chosen, ours)]
        if floor is not None:
            other = stack.enter_context(processes.relay(provider, data.with_name(data.name + "-relay")))
            own_cases = [name for name in chosen if name in cases.FLOOR_CASES]
            clients.append((other, LoadClient(other.url, processes.KEY), own_cases, floor))
        for server, client, _, results in clients:
            results.setdefault("start", []).append(server.started_s)
            cases.warm_up(server, client)
            stack.callback(client.close)
        for name in chosen:
            for server, client, names, results in clients:
                if name in names:
                    for figure, value in cases.CASES[name](server, client).items():
                        results.setdefault(figure, []).append(value)


def _table(ours: Results, floor: Results) -> list[str]:
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}; median (least … most) of the rounds",
        "",
        "| what | aim | turnwire | relay without a log | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, (what, unit, aim) in cases.UNITS.items():
        if name not in ours:
            continue
        aimed = "" if aim is None else f"< {_number(aim)} {unit}" if aim > 0 else f"> {_number(-aim)} {unit}"
        value = statistics.median(ours[name])
        missed = aim is not None and (value >= aim if aim > 0 else value <= -aim)
        mine = _spread(ours[name], unit) + (" **missed**" if missed else "")
        theirs = _spread(floor[name], unit) if name in floor else ""
        ratio = f"{value / statistics.median(floor[name]):.1f}" if name in floor else ""
        lines.append(f"| {what} | {aimed} | {mine} | {theirs} | {ratio} |")
    return lines


def _spread(values: list[float], unit: str) -> str:
    return f"{_number(statistics.median(values))} ({_number(min(values))} … {_number(max(values))}) {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
