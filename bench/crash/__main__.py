"""Kill a server under load, again and again, and look for anything lost, doubled or left open.

    python -m bench.crash [--kills 200] [--seed N] [--sessions 6] [--seconds 1800] [--folder DIR]
                          [--database URL]

The same seed gives the same turns and the same plan of kills. Exit code 1 when anything was wrong.
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from pathlib import Path

from bench.crash.postgres import require_empty
from bench.crash.run import Report, Run
from bench.crash.takeup import measure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--sessions", type=int, default=6, help="how many clients, each with a session of its own")
    parser.add_argument("--seconds", type=float, default=1800, help="no kill after so long")
    parser.add_argument("--take-up", type=int, default=100, metavar="TURNS", help="0: leave that measurement out")
    parser.add_argument("--folder", type=Path, help="keep the data there")
    parser.add_argument(
        "--database", metavar="URL", help="an empty PostgreSQL database, in place of the embedded store"
    )
    args = parser.parse_args()
    if args.database is not None:
        asyncio.run(require_empty(args.database))
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(
            folder,
            seed=args.seed,
            kills=args.kills,
            sessions=args.sessions,
            seconds_max=args.seconds,
            database=args.database,
        )
        report = asyncio.run(run.run())
        print_report(report)
        if args.take_up:
            print(asyncio.run(measure(folder / "take-up", args.take_up, args.database)))
    return 1 if report.faults or not report.kills else 0


def print_report(report: Report) -> None:
    kills = max(report.kills, 1)
    print(f"{report.kills} kills in {report.seconds:.0f} s; a start takes {statistics.median(report.starts_s):.2f} s")
    print(f"{report.turns} turns, {report.events} events, {report.requests} model requests, {report.breaks} breaks")
    print("kills by what was open (a kill counts for every turn's state):")
    for state, count in report.open.most_common():
        print(f"  {state:24} {count:5}  {count / kills:4.0%}   turns taken up: {report.recovered[state]}")
    print("kills by what they aimed at: " + ", ".join(f"{aim} {n}" for aim, n in report.aims.most_common()))
    print(f"{len(report.faults)} faults")
    for fault in report.faults[:50]:
        print(f"  {fault}")


if __name__ == "__main__":
    sys.exit(main())
