"""A process that writes to a store until it is killed, and whether the store has all that it was told is written."""

import subprocess
import sys
import time

from turnwire.protocol.codec import split_frames
from turnwire.seams.store import Store
from turnwire.stores.postgres import PostgresStore
from turnwire.stores.sqlite import SQLiteStore
from turnwire.testing.store_cases import deltas, frames_of

TURNS = 8
PROGRAM = f"""
import asyncio, sys
from {{module}} import {{store}}
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import an_append, appended, begin, make_session

async def main():
    store, clock = await {{store}}.open(sys.argv[1]), TurnableClock()

    async def stream():
        turn = await begin(store, await make_session(store, clock))
        print(turn.id, 0, flush=True)
        for seq in range(1, 1_000_000, 3):
            await appended(store, an_append(turn, seq, 3))
            print(turn.id, seq + 2, flush=True)

    await asyncio.gather(*(stream() for _ in range({TURNS})))

asyncio.run(main())
"""


class WriterProcess:
    """Writes to many turns at once, and says of each how far it is durable."""

    def __init__(self, store: type[SQLiteStore | PostgresStore], where: str) -> None:
        """`where`: what the store opens."""
        program = PROGRAM.format(module=store.__module__, store=store.__name__)
        self._process = subprocess.Popen([sys.executable, "-c", program, where], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._stdout = self._process.stdout
        self._lines: list[str] = []

    def run_for(self, seconds: float) -> None:
        """Let it write, from its first word on."""
        self._lines.append(self._stdout.readline())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._lines.append(self._stdout.readline())

    def kill(self) -> dict[str, int]:
        """The last event of each turn that was acknowledged."""
        self._process.kill()
        self._lines += self._stdout.read().splitlines(keepends=True)
        self._stdout.close()
        self._process.wait()
        whole = [line.split() for line in self._lines if line.endswith("\n")]
        acknowledged = {turn_id: int(seq) for turn_id, seq in whole}
        assert len(acknowledged) == TURNS and min(acknowledged.values()) > 0
        return acknowledged


async def check_all_there(store: Store, acknowledged: dict[str, int]) -> None:
    """What was acknowledged is there, as it was written; beyond it, one append at the most."""
    for turn_id, last in acknowledged.items():
        page = await store.read_events(turn_id, 0, bytes_max=100_000_000)
        assert last <= page.last_seq <= last + 3
        assert frames_of(page)[1:] == split_frames(deltas(1, page.last_seq))
    taken = await store.take_over("next", lease_s=1, everything=True)
    assert set(acknowledged) <= {turn.id for turn in taken}
