"""Ask one question about each row of a CSV file, several at once, and write the answers into another.

    python batch_csv.py reviews.csv answers.csv --ask "Is this review friendly? Say yes or no: {text}" --jobs 8

`{text}` is the column `text` of the row. Answers are written as they come, in any order, each with the number of its
row. Run it again with the same files and it goes on: rows that have an answer are not asked again, those that failed
are.

Needs: pip install turnwire, and POKEE_API and POKEE_KEY in the environment.
"""

import argparse
import asyncio
import csv
import sys
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress

from turnwire import AsyncClient, TurnwireError

FIELDS = ["row", "answer", "error", "tokens"]


async def ask(tw: AsyncClient, number: int, question: str) -> dict[str, object]:
    """A session of its own for each row: they know nothing of each other, and the server clears them away by itself."""
    try:
        session = await tw.sessions.create(workspace="private")
        done = await session.send(question).result()
        return {"row": number, "answer": done.text.strip(), "error": "", "tokens": done.usage.total_tokens}
    except TurnwireError as exc:
        return {"row": number, "answer": "", "error": str(exc), "tokens": 0}


async def run(rows: dict[int, dict[str, str]], template: str, jobs: int, out: TextIO) -> int:
    """Asks all rows, `jobs` at once; how many failed."""
    writer, failed = csv.DictWriter(out, FIELDS), 0
    waiting = iter(rows.items())
    progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
    bar = progress.add_task("rows", total=len(rows))

    async def work() -> None:
        nonlocal failed
        for number, row in waiting:  # shared: each row goes to the worker that is free
            answer = await ask(tw, number, template.format_map(row))
            writer.writerow(answer)
            out.flush()
            failed += bool(answer["error"])
            progress.advance(bar)

    async with AsyncClient() as tw:
        with progress:
            await asyncio.gather(*(work() for _ in range(jobs)))
    return failed


def answered(path: Path) -> list[dict[str, str]]:
    """The rows of the output that need not be asked again; ValueError when it is not an output of ours."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != FIELDS:
            raise ValueError(f"{path} is there, and was not written by this program")
        return [row for row in reader if not row["error"]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask one question about each row of a CSV file.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ask", required=True, metavar="TEXT", help="the question, with {column}s of the row in it")
    parser.add_argument("--jobs", type=int, default=4, help="rows at once (4)")
    args = parser.parse_args()

    try:
        with args.input.open(newline="") as file:
            rows = dict(enumerate(csv.DictReader(file), 1))
        done = answered(args.output)
    except (OSError, ValueError) as exc:
        parser.error(str(exc))
    try:
        for row in rows.values():
            args.ask.format_map(row)
    except (KeyError, ValueError, IndexError) as exc:
        parser.error(f"--ask names what no column is: {exc}; the columns are {', '.join(next(iter(rows.values())))}")
    left = {number: row for number, row in rows.items() if number not in {int(row["row"]) for row in done}}
    beside = args.output.with_name(f".{args.output.name}.part")
    with beside.open("w", newline="") as out:
        writer = csv.DictWriter(out, FIELDS)
        writer.writeheader()
        writer.writerows(done)
    beside.replace(args.output)  # so that answers that are there outlive a crash
    with args.output.open("a", newline="") as out:
        try:
            failed = asyncio.run(run(left, args.ask, max(1, args.jobs), out))
        except TurnwireError as exc:  # no server is named
            sys.exit(str(exc))
    print(f"{len(left) - failed} answered, {failed} failed, {len(done)} were there already.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
