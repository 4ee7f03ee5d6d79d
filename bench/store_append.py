"""What an append to the store costs: CPU of the whole process, in groups of 1, 2, 20 and 200 turns.

    python bench/store_append.py [--synchronous FULL|NORMAL] [--events 1] [--seconds 2] [--dir DIR]
    python bench/store_append.py --database URL

A turn appends again as soon as its append is acknowledged, as a recorder under load does, so N turns make groups of N.
On PostgreSQL the CPU is that of our side alone. `wait` is the median time from `append()` to `done`, the fsync
included; compare only runs on one disk.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from turnwire.protocol.codec import encode_frame
from turnwire.protocol.events import TextDelta
from turnwire.seams.store import Append, Appended, Turn
from turnwire.stores.postgres import PostgresStore
from turnwire.stores.sqlite import SQLiteStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import begin, make_session


class Appender:
    """A turn that always has one append under way, until it is told to stop."""

    def __init__(self, store: SQLiteStore | PostgresStore, turn: Turn, frames: bytes, events: int) -> None:
        self.store, self.turn, self.frames, self.events = store, turn, frames, events
        self.count = 0
        self.waits: list[float] = []
        self.stopped: asyncio.Future[None] | None = None
        self._seq = 1

    def go(self) -> None:
        self._since = time.perf_counter()
        last = self._seq + self.events - 1
        turn = self.turn
        append = Append(
            session_id=turn.session_id,
            turn_id=turn.id,
            epoch=turn.epoch,
            first_seq=self._seq,
            last_seq=last,
            frames=self.frames,
        )
        self.store.append(append, self._done)

    def _done(self, result: Appended | Exception) -> None:
        assert result is Appended.WRITTEN, result
        self.waits.append(time.perf_counter() - self._since)
        self.count += 1
        self._seq += self.events
        if self.stopped is None:
            self.go()
        else:
            self.stopped.set_result(None)


def size_of(folder: str) -> int:
    """Bytes of the database and its write-ahead log."""
    return sum(path.stat().st_size for path in Path(folder).iterdir())


async def measure(group: int, args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        store = (
            await PostgresStore.open(args.database)
            if args.database
            else await SQLiteStore.open(Path(folder) / "turnwire.db", synchronous=args.synchronous)
        )
        clock = TurnableClock(time.time())
        turns = [await begin(store, await make_session(store, clock)) for _ in range(group)]
        frames = encode_frame(TextDelta("hello ")) * args.events
        appenders = [Appender(store, turn, frames, args.events) for turn in turns]
        commits, cpu, wall = store.commits, time.process_time(), time.perf_counter()
        for appender in appenders:
            appender.go()
        await asyncio.sleep(args.seconds)
        for appender in appenders:
            appender.stopped = asyncio.get_running_loop().create_future()
        await asyncio.gather(*(appender.stopped for appender in appenders if appender.stopped))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        count = sum(appender.count for appender in appenders)
        waits = [wait for appender in appenders for wait in appender.waits]
        print(
            f"{group:>5} {cpu / count * 1e6:>12.1f} {count / wall:>12.0f} {count / (store.commits - commits):>10.1f}"
            f" {statistics.median(waits) * 1e3:>9.2f} {size_of(folder) / count:>9.0f}"
        )
        await store.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per append of the store.")
    parser.add_argument("--synchronous", choices=["FULL", "NORMAL"], default="FULL")
    parser.add_argument("--events", type=int, default=1, help="events in an append")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each size of group is measured")
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 20, 200])
    parser.add_argument("--dir", default=".", help="a folder on the disk to measure; /tmp may be in memory")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL database, in place of SQLite")
    args = parser.parse_args()
    print(f"synchronous={args.synchronous}, {args.events} event(s) an append")
    print(f"{'turns':>5} {'µs CPU/append':>13} {'appends/s':>11} {'per commit':>10} {'wait ms':>9} {'B/append':>9}")
    for group in args.groups:
        await measure(group, args)


if __name__ == "__main__":
    uvloop.run(main())  # as the server does
