"""How long it takes to take up many running turns after a restart, beyond the start itself."""

import asyncio
import time
from pathlib import Path
from typing import NamedTuple

import aiohttp

from bench.crash.client import http_session
from bench.crash.plan import Step
from bench.crash.process import Server
from bench.crash.provider import Provider, message_of
from turnwire.protocol.sse import SSEDecoder

WORDS = 2000
RATE = 5.0
POLL_S = 0.02


class TakenUp(NamedTuple):
    """Seconds: a start without turns, a start with them, and from the start until a client of each turn that
    reconnects had seen it go on. `cut_off`: streams that ended before that."""

    turns: int
    empty_start_s: float
    start_s: float
    all_s: float
    cut_off: int

    @property
    def beyond_start_s(self) -> float:
        return self.all_s - self.empty_start_s

    def __str__(self) -> str:
        return (
            f"{self.turns} running turns: ready after {self.start_s:.2f} s (without turns {self.empty_start_s:.2f} s), "
            f"the last was seen to go on after {self.all_s:.2f} s: {self.beyond_start_s:.2f} s beyond the start itself"
        )


async def measure(folder: Path, turns: int, database: str | None = None) -> TakenUp:
    """Kill a server that runs so many turns, start it again, and look when they go on."""
    folder.mkdir(parents=True)  # noqa: ASYNC240
    provider = Provider()
    await provider.start()
    server = Server(folder, provider.base_url, database=database)
    try:
        await server.start()
        await server.kill()
        await server.start()
        empty_s = server.start_s
        async with http_session() as http:
            ids = [await _begin(http, server.base_url, n) for n in range(turns)]
            await asyncio.sleep(1.0)
            await server.kill()
            waiting = [asyncio.create_task(_resumed(http, server.base_url, *id_)) for id_ in ids]
            begun = time.monotonic()
            await server.start()
            ready_s = server.start_s
            resumed = await asyncio.gather(*waiting)
    finally:
        await server.close()
        await provider.stop()
    all_s = max(at for at, _ in resumed) - begun
    return TakenUp(turns, empty_s, ready_s, all_s, sum(cut_off for _, cut_off in resumed))


async def _begin(http: aiohttp.ClientSession, base_url: str, number: int) -> tuple[str, str]:
    async with http.post(base_url + "/v1/sessions", json={"persistent": True}) as answer:
        session_id = (await answer.json())["id"]
    message = message_of(f"t{number}-0", [Step(0, WORDS, [], RATE)])
    async with http.post(f"{base_url}/v1/sessions/{session_id}/messages", json={"message": message}) as answer:
        answer.raise_for_status()
        return session_id, answer.headers["X-Response-Id"]


async def _resumed(http: aiohttp.ClientSession, base_url: str, session_id: str, response_id: str) -> tuple[float, int]:
    """When a client that reconnects had the turn's `message.resumed`, and how often it was cut off before."""
    cut_off = 0
    url = f"{base_url}/v1/sessions/{session_id}/responses/{response_id}/events"
    while True:
        decoder = SSEDecoder()
        try:
            async with http.get(url) as answer:
                answer.raise_for_status()
                cut_off += 1
                async for chunk in answer.content.iter_any():
                    if any(event.event == "message.resumed" for event in decoder.feed(chunk)):
                        return time.monotonic(), cut_off - 1
        except (aiohttp.ClientError, OSError):
            pass
        await asyncio.sleep(POLL_S)
