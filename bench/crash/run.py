"""A run: the load, the kills, and what became of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench.crash.checks import conversation_faults, log_faults, read_log, tool_faults
from bench.crash.client import Client, Seen, http_session
from bench.crash.plan import Kill, kills_of, turn_of
from bench.crash.process import Server
from bench.crash.provider import Provider
from turnwire.protocol.events import Event, ToolUseExecuting
from turnwire.protocol.grammar import Grammar, State

AIM_TIMEOUT_S = 3.0
COMMIT_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 60.0
OPEN = {
    State.TEXT: "text",
    State.THINKING: "thinking",
    State.INPUT: "tool input",
    State.CALLED: "tool input",
}


@dataclass
class Report:
    """`open`: in how many kills some turn was in that state; a kill counts for each state that some turn was in."""

    seed: int
    kills: int = 0
    open: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    """The same by turns that were taken up."""
    aims: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    events: int = 0
    breaks: int = 0
    requests: int = 0
    starts_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Run:
    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        kills: int,
        sessions: int,
        seconds_max: float,
        database: str | None = None,
    ) -> None:
        self.report = Report(seed)
        self._folder = folder
        self._seed = seed
        self._database = database
        self._kills = kills_of(seed, kills)
        self._sessions = sessions
        self._deadline = time.monotonic() + seconds_max
        self._provider = Provider()
        self._clients: list[Client] = []

    async def run(self) -> Report:
        begun = time.monotonic()
        await self._provider.start()
        server = Server(self._folder, self._provider.base_url, database=self._database, TURNWIRE_RECOVERIES_MAX="1000")
        stop = asyncio.Event()
        async with http_session() as http:
            self._clients = [Client(http, server.base_url, self._seed, n) for n in range(self._sessions)]
            tasks = [asyncio.create_task(client.run(stop)) for client in self._clients]
            try:
                for kill in self._kills:
                    if time.monotonic() > self._deadline or any(task.done() for task in tasks):
                        break
                    await self._kill(server, kill)
                await server.start()
                stop.set()
                done, late = await asyncio.wait(tasks, timeout=SETTLE_TIMEOUT_S)
                self.report.faults += [f"a client failed: {t.exception()!r}" for t in done if t.exception()]
                self.report.faults += [f"a client is still waiting after {SETTLE_TIMEOUT_S:g} s" for _ in late]
                for client in self._clients:
                    self.report.faults += client.faults
                await self._check(http, server)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await server.close()
        await self._provider.stop()
        self.report.faults += self._provider.faults
        self.report.requests = self._provider.requests
        self.report.seconds = time.monotonic() - begun
        return self.report

    # Killing

    async def _kill(self, server: Server, kill: Kill) -> None:
        for seen in self._current():
            seen.torn = False
        await server.start(kill.commit if kill.aim == "commit" else 0)
        self.report.starts_s.append(server.start_s)
        if kill.aim == "commit":
            with suppress(TimeoutError):
                await asyncio.wait_for(server.gone(), COMMIT_TIMEOUT_S)
            await server.kill()
        else:
            await asyncio.sleep(kill.delay_s)
            if kill.aim != "any":
                await self._aim(kill)
            await server.kill()
        # The kernel still holds what the server had sent: the clients read it first.
        await _until(lambda: not any(seen.attached for seen in self._current()), AIM_TIMEOUT_S)
        self.report.kills += 1
        self.report.aims[kill.aim] += 1
        await self._classify(server)

    async def _aim(self, kill: Kill) -> None:
        await _until(lambda: any(seen.open == kill.aim for seen in self._current()), AIM_TIMEOUT_S)
        await asyncio.sleep(kill.jitter_s)

    def _current(self) -> list[Seen]:
        return [client.turns[-1] for client in self._clients if client.turns]

    async def _classify(self, server: Server) -> None:
        torn = {seen.response_id: seen for seen in self._current() if seen.torn}
        in_flight = _in_flight(server.marks)
        states: set[str] = set()
        for turn_id, events in (await server.committed()).items():
            state = _state_of(events, in_flight)
            seen = torn.get(turn_id)
            self.report.recovered[state] += 1
            states.add(state)
            if seen is not None and len(seen.events) < len(events):
                states.add("between commit and send")
                self.report.recovered["between commit and send"] += 1
        for seen in self._current():
            committed = server.last_committed.get(seen.response_id or "")
            if committed is not None and len(seen.events) > committed + 1:
                self.report.faults.append(f"{seen.name}: shown {len(seen.events)} events, committed {committed + 1}")
        self.report.open.update(states)

    # Checking

    async def _check(self, http: aiohttp.ClientSession, server: Server) -> None:
        contents: dict[str, list[dict[str, Any]]] = {}
        steps_of = {}
        for number, client in enumerate(self._clients):
            conversation = await _conversation(http, server.base_url, client.session_id)
            async with http.get(f"{server.base_url}/v1/sessions/{client.session_id}") as answer:
                record = await answer.json()
            if record["busy"]:
                self.report.faults.append(f"{client.session_id} is busy")
            for index, seen in enumerate(client.turns):
                if not seen.ended:
                    self.report.faults.append(f"{seen.name} did not end")
                    continue
                steps = steps_of[seen.name] = turn_of(self._seed, number, index)
                self.report.turns += 1
                self.report.events += len(seen.events)
                self.report.breaks += seen.breaks
                self.report.faults += log_faults(seen, await read_log(http, server.base_url, seen))
                contents[seen.name] = conversation[str(seen.response_id)]
                self.report.faults += conversation_faults(seen.name, steps, conversation[str(seen.response_id)])
        self.report.faults += tool_faults(server.marks, steps_of, contents)


async def _until(true: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:  # noqa: ASYNC110  (nothing tells of it)
        await asyncio.sleep(0.002)


def _in_flight(marks: Path) -> set[str]:
    """Tokens of calls that have begun and not ended."""
    lines = [line.split() for line in marks.read_text().splitlines()] if marks.exists() else []
    return {token for what, token in lines if what == "begin"} - {token for what, token in lines if what == "end"}


def _state_of(events: list[Event], in_flight: set[str]) -> str:
    grammar = Grammar()
    grammar.check_all(events)
    if grammar.state in OPEN:
        return OPEN[grammar.state]
    tokens = {c.input.get("token") for c in grammar.unanswered.values() if isinstance(c, ToolUseExecuting)}
    return "executing" if tokens & in_flight else "between blocks"


async def _conversation(http: aiohttp.ClientSession, base_url: str, session_id: str) -> dict[str, list[dict[str, Any]]]:
    """The contents of all answers of a session, by their ids, page by page."""
    contents: dict[str, list[dict[str, Any]]] = {}
    url: str | None = f"{base_url}/v1/sessions/{session_id}/messages?limit=7"
    while url is not None:
        async with http.get(url) as answer:
            answer.raise_for_status()
            for message in await answer.json():
                if message["role"] == "assistant":
                    assert message["id"] not in contents
                    contents[message["id"]] = message["content"]
            link = answer.links.get("next")
            url = None if link is None else str(link["url"])
    return contents
