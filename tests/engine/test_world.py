"""The engine in a simulated world: whatever happens, in whatever order, its laws hold after each step."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.worlds import LEASE_S, Reader, World

LINES = st.sampled_from(
    [
        "/text {word}",
        "/text {word}",
        "/think {word}",
        "/stream 40",
        "/stream 60 20",
        '/call count {{"token": "{word}"}}',
        '/call count {{"token": "{word}", "seconds": 3}}',
        '/call look {{"token": "{word}", "seconds": 1}}',
        '/call count {{"wrong": "{word}"}}',
        '/call count {{"token": "{word}", "seconds": 100000}}',
        "/badjson look",
        "/unknown",
        "/cutcall count",
        "/stall 2",
        "/stall 200",
        "/fail before x1",
        "/fail after x1",
        "/fail after x9",
        "/interleave",
        "/unicode",
        "/empty",
    ]
)
PROGRAMS = st.lists(st.lists(LINES, max_size=4), min_size=1, max_size=3)
SERVERS = st.integers(0, 5)


class WorldMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._words = 0
        self.world: World

    @initialize(seed=st.integers(0, 99), recoveries_max=st.sampled_from([1, 3, 1000]))
    def begin_world(self, seed: int, recoveries_max: int) -> None:
        self.world = World(Path(self._folder.name), seed=seed, recoveries_max=recoveries_max)
        self.world.new_session()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.come_to_rest()
                for kind in self.world.kinds():
                    event(kind)
            finally:
                self.world.close()
        self._folder.cleanup()

    def _server(self, number: int):
        return self.world.servers[number % len(self.world.servers)]

    # Callers

    @rule()
    @precondition(lambda self: len(self.world.sessions) < 4)
    def new_session(self) -> None:
        self.world.new_session()

    @rule(server=SERVERS, session=SERVERS, program=PROGRAMS)
    @precondition(lambda self: self.world.servers)
    def send_message(self, server: int, session: int, program: list[list[str]]) -> None:
        words: list[str] = []
        steps: list[str] = []
        for step in program:
            lines: list[str] = []
            for line in step:
                self._words += 1
                word = f"w{self._words}"
                if line.startswith(("/text", "/think")):
                    words.append(word)
                lines.append(line.format(word=word))
            steps.append("\n".join(lines))
        last = [step for step in steps if "/call" in step or "/unknown" in step]
        text = "\n/then\n".join([*last, f"/text end{self._words}"]) if last else "\n".join(steps) or "/empty"
        if last:
            words = [word for word in words if any(word in step.split() for step in last)]
        session_id = self.world.sessions[session % len(self.world.sessions)]
        self.world.begin(self._server(server), session_id, text, words)

    @rule(
        session=SERVERS,
        program=PROGRAMS,
        after_s=st.lists(st.sampled_from([0.05, 0.2, 0.5, 1.0, 1.5, 2.5, 4.0]), min_size=1, max_size=3),
        at_once=st.booleans(),
    )
    @precondition(lambda self: self.world.servers)
    def the_server_of_a_message_dies(
        self, session: int, program: list[list[str]], after_s: list[float], at_once: bool
    ) -> None:
        """What matters most, and what rules drawn one by one seldom make: a death in the middle of a turn."""
        self.send_message(0, session, program)
        for seconds in after_s:
            self.world.loop.run_for(seconds)
            self.world.check()
            if at_once and len(self.world.servers) == 1:
                self.world.restart(self.world.servers[0])
            else:
                self.world.servers[0].die()
                self.world.start_server()
                self.world.loop.run_for(LEASE_S * 1.4)

    @rule(turn=SERVERS, first=st.integers(0, 30), pause_s=st.sampled_from([0.0, 0.0, 0.5, 5.0]), numbered=st.booleans())
    @precondition(lambda self: self.world.turns and len(self.world.readers) < 12)
    def follow(self, turn: int, first: int, pause_s: float, numbered: bool) -> None:
        followed = list(self.world.turns.values())[-1 - turn % len(self.world.turns)]
        if followed.session_id in self.world.deleted:
            return
        log = self.world.log_length(followed.id)
        self.world.readers.append(Reader(self.world, followed, min(first, log - 1), pause_s, numbered=numbered))

    @rule(server=SERVERS, turn=SERVERS)
    @precondition(lambda self: self.world.servers and self.world.turns)
    def cancel(self, server: int, turn: int) -> None:
        turns = list(self.world.turns.values())
        self.world.cancel(self._server(server), turns[-1 - turn % len(turns)])

    @rule(server=SERVERS, session=SERVERS)
    @precondition(lambda self: self.world.servers and len(self.world.deleted) + 1 < len(self.world.sessions))
    def delete_session(self, server: int, session: int) -> None:
        self.world.delete(self._server(server), self.world.sessions[session % len(self.world.sessions)])

    # The machines

    @rule()
    @precondition(lambda self: len(self.world.servers) < 3)
    def another_server_starts(self) -> None:
        self.world.start_server()

    @rule(server=SERVERS)
    @precondition(lambda self: self.world.servers)
    def a_server_dies(self, server: int) -> None:
        self._server(server).die()

    @rule()
    @precondition(lambda self: len(self.world.servers) == 1)
    def the_only_server_is_restarted(self) -> None:
        self.world.restart(self.world.servers[0])

    @rule(server=SERVERS, outage=st.booleans())
    @precondition(lambda self: self.world.servers)
    def outage(self, server: int, outage: bool) -> None:
        self._server(server).faults.outage = outage

    @rule(server=SERVERS, fails=st.sampled_from([0.0, 0.1]), loses=st.sampled_from([0.0, 0.2]))
    @precondition(lambda self: self.world.servers)
    def the_store_gets_unreliable(self, server: int, fails: float, loses: float) -> None:
        faults = self._server(server).faults
        faults.fails, faults.loses = fails, loses

    @rule(fails=st.sampled_from([0.0, 0.05]), hangs=st.sampled_from([0.0, 0.05]), loses=st.sampled_from([0.0, 0.2]))
    def models_and_tools_get_unreliable(self, fails: float, hangs: float, loses: float) -> None:
        self.world.model_faults.fails = self.world.tool_faults.fails = fails
        self.world.model_faults.hangs = self.world.tool_faults.hangs = hangs
        self.world.tool_faults.loses = loses

    # Time

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 1.0, 5.0]))
    def a_moment_passes(self, seconds: float) -> None:
        self.world.loop.run_for(seconds)

    @rule(seconds=st.sampled_from([LEASE_S / 2, LEASE_S * 1.5, 1000.0, 6000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.loop.run_for(seconds)

    @invariant()
    def the_laws_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            STEPS[type(self)] += 1


STEPS: Counter[type] = Counter()
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


class ShortWorld(WorldMachine):
    pass


class LongWorld(WorldMachine):
    pass


@pytest.mark.slow
class TestShortWorld(ShortWorld.TestCase):
    settings = settings(max_examples=25, stateful_step_count=30, derandomize=True, database=None, **_COMMON)


@pytest.mark.long
class TestLongWorld(LongWorld.TestCase):
    settings = settings(max_examples=500, stateful_step_count=60, database=None, **_COMMON)

    def runTest(self) -> None:  # noqa: N802
        super().runTest()
        print(f"{STEPS[LongWorld]} steps")
        assert STEPS[LongWorld] >= 10_000
