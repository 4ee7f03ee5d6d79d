"""What the Python client costs: `python -m bench.client [--rounds 15]`.

The time to import it, in fresh interpreters; and the CPU of reading a finished turn of 10,000 events from a real
server, by both clients, in this process.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from turnwire import AsyncClient, Client

EVENTS = 10_000
PROGRAM = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
IMPORTS = ("import turnwire", "from turnwire import Client, AsyncClient", "import httpx2, msgspec")
KEY = "tw_default_the-bench-of-the-client"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description="What the Python client costs.")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; median (least … most) of {rounds} rounds\n")
    for statement in IMPORTS:
        _show(statement, "ms", [_import_s(statement) * 1000 for _ in range(rounds)])
    with tempfile.TemporaryDirectory(prefix="turnwire-bench-") as folder:
        process, url = _serve(Path(folder))
        try:
            _read(url, rounds)
        finally:
            process.terminate()
            process.wait(30)


def _import_s(statement: str) -> float:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(statement)], capture_output=True, check=True, text=True)
    return float(done.stdout)


def _serve(folder: Path) -> "tuple[subprocess.Popen[str], str]":
    program = Path(sys.executable).with_name("turnwire")
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"TURNWIRE_API_KEY": KEY}
    command = [program, "serve", "--data-dir", folder, "--port", "0", "--model", "demo"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    url = next(line.split()[1] for line in process.stdout if line.strip().startswith("address"))
    next(line for line in process.stdout if line.startswith("curl "))
    return process, url


def _read(url: str, rounds: int) -> None:
    with Client(url, KEY) as tw:
        session = tw.sessions.create(persistent=True)
        session.send(f"/stream {EVENTS}").result()

        def blocking() -> int:
            return sum(1 for _ in session.follow())

        async def concurrent() -> int:
            async with AsyncClient(url, KEY) as atw:
                turn = (await atw.sessions.get(session.id)).follow()
                return len([event async for event in turn])

        _show("an event, Client", "µs of CPU", [_cost_us(blocking) for _ in range(rounds)])
        _show(
            "an event, AsyncClient", "µs of CPU", [_cost_us(lambda: asyncio.run(concurrent())) for _ in range(rounds)]
        )


def _cost_us(read: Callable[[], int]) -> float:
    began = time.process_time()
    count = read()
    assert count > EVENTS, count
    return (time.process_time() - began) / count * 1e6


def _show(what: str, unit: str, values: list[float]) -> None:
    print(f"{what:45} {statistics.median(values):6.1f} ({min(values):.1f} … {max(values):.1f}) {unit}")


if __name__ == "__main__":
    main()
