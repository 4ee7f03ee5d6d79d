"""Named cases of the simulated world: deaths, cancels and outages at chosen moments, and what must come of them.

Times are virtual seconds. A failure that the state machine finds becomes one of these.
"""

from collections.abc import Generator
from pathlib import Path

import pytest

from engine.worlds import LEASE_S, Reader, World
from turnwire.engine.calls import INTERRUPTED, STOPPED, SUPERSEDED
from turnwire.protocol.events import Event, MessageCancelled, MessageError, MessageResumed, ToolResult
from turnwire.seams.store import Turn

COUNT = '/call count {"token": "c1", "seconds": 5}'
LOOK = '/call look {"token": "l1", "seconds": 5}'


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    world = World(tmp_path)
    world.new_session()
    yield world
    try:
        world.come_to_rest()
    finally:
        world.close()


def begin(world: World, text: str, *words: str) -> Turn:
    turn = world.begin(world.servers[0], world.sessions[0], text, list(words))
    assert turn is not None
    return turn


def log(world: World, turn: Turn) -> list[Event]:
    world.check()
    return world.log(turn.id)


def results(events: list[Event]) -> list[str]:
    return [event.content for event in events if isinstance(event, ToolResult)]


def ending_s(world: World, turn: Turn, limit_s: float = 1.0) -> float:
    """How long it takes until the turn has ended."""
    begun = world.loop.time()
    while log(world, turn)[-1].type not in ("message.completed", "message.error", "message.cancelled"):
        assert world.loop.time() - begun < limit_s, f"not ended after {limit_s} s"
        world.loop.run_for(0.01)
    return world.loop.time() - begun


# Death

PHASES = {
    # what the model does, when the server dies, what is superseded from where, what the results are
    "before the model said anything": ("/stall 5\n/text w1", 1.0, None, []),
    "in a text": ("/text w1\n/stream 100 50", 1.0, 1, []),
    "in thinking": ("/think w1\n/stall 5\n/text x", 1.0, 1, []),
    "between two calls of one response": (f"{COUNT}\n/stall 5\n{LOOK}", 1.0, 1, [SUPERSEDED]),
    "in a call that may not run twice": (COUNT, 1.0, None, [INTERRUPTED]),
    "in a call that may": (LOOK, 1.0, None, ["looked at l1"]),
    "in both at once": (f"{COUNT}\n{LOOK}", 1.0, None, [INTERRUPTED, "looked at l1"]),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_turn_goes_on_from_its_last_durable_point(world: World, phase: str) -> None:
    text, at_s, superseded_from, expected = PHASES[phase]
    turn = begin(world, text, "w1") if "w1" in text else begin(world, text)
    world.loop.run_for(at_s)
    before = log(world, turn)

    world.restart(world.servers[0])
    world.loop.run_for(60)
    events = log(world, turn)
    [at] = [n for n, event in enumerate(events) if isinstance(event, MessageResumed)]
    resumed = events[at]
    assert isinstance(resumed, MessageResumed)
    assert (resumed.reason, resumed.superseded_from) == ("server_restarted", superseded_from or at)
    assert events[: len(before)] == before
    assert events[-1].type == "message.completed"
    assert results(events)[: len(expected)] == expected


def test_a_result_that_is_there_is_kept_when_its_neighbour_was_cut_off(world: World) -> None:
    turn = begin(world, '/call count {"token": "quick"}\n' + COUNT)
    world.loop.run_for(1.0)
    assert results(log(world, turn)) == ["counted quick"]

    world.restart(world.servers[0])
    world.loop.run_for(60)
    assert results(log(world, turn)) == ["counted quick", INTERRUPTED]
    assert world.marks == {"quick": 1, "c1": 1}


def test_a_turn_that_dies_too_often_ends_in_an_error(world: World) -> None:
    turn = begin(world, "/text w1\n/stall 3600", "w1")
    for _ in range(world.recoveries_max + 1):
        world.loop.run_for(1.0)
        world.restart(world.servers[0])
    world.loop.run_for(1.0)

    ending = log(world, turn)[-1]
    assert isinstance(ending, MessageError) and "stopped 4 times" in ending.error
    again = begin(world, "/text on", "on")
    world.loop.run_for(10)
    assert log(world, again)[-1].type == "message.completed"


def test_a_turn_is_taken_over_when_its_lease_has_run_out_and_not_before(world: World) -> None:
    turn = begin(world, "/text w1\n/stream 100 50", "w1")
    other = world.start_server()
    world.loop.run_for(0.5)
    world.servers[0].die()

    world.loop.run_for(LEASE_S / 2)
    assert not any(isinstance(event, MessageResumed) for event in log(world, turn))
    world.loop.run_for(LEASE_S)
    [resumed] = [event for event in log(world, turn) if isinstance(event, MessageResumed)]
    assert resumed.reason == "taken_over"
    world.loop.run_for(30)
    assert log(world, turn)[-1].type == "message.completed" and len(other.turns.supervisor) == 0


def test_a_server_that_was_cut_off_from_the_store_writes_nothing_more_once_its_turn_was_taken_over(
    world: World,
) -> None:
    turn = begin(world, "/text w1\n/stream 5000 20", "w1")
    cut_off = world.servers[0]
    world.start_server()
    world.loop.run_for(1.0)
    cut_off.faults.outage = True
    world.loop.run_for(LEASE_S * 2)
    cut_off.faults.outage = False
    world.loop.run_for(60)

    assert len([event for event in log(world, turn) if isinstance(event, MessageResumed)]) <= 1
    assert turn.id not in cut_off.turns.supervisor.turn_ids


def test_a_reader_sees_one_gapless_stream_across_deaths(world: World) -> None:
    turn = begin(world, f"/text w1\n/stream 60 20\n{LOOK}\n/then\n/text w2\n/stream 60 20", "w1", "w2")
    log(world, turn)
    world.readers = [Reader(world, turn, 0, 0.0, numbered=True), Reader(world, turn, 0, 0.3, numbered=False)]
    for at_s in (1.0, 2.0):
        world.loop.run_for(at_s)
        world.restart(world.servers[0])
    world.loop.run_for(120)

    events = log(world, turn)
    for reader in world.readers:
        assert reader.ended and len(reader.frames) == len(events)


# Cancel

BUSY_WITH = {
    "nothing yet": ("/stall 100", 0.0),
    "a silent provider": ("/stall 100\n/text w", 5.0),
    "a provider that fell silent in a text": ("/text w\n/stall 100", 5.0),
    "thinking": ("/think w\n/stall 100", 5.0),
    "a hanging tool": ('/call count {"token": "h", "seconds": 100}', 5.0),
    "two hanging tools": ('/call count {"token": "h", "seconds": 100}\n/call look {"token": "i", "seconds": 100}', 5.0),
    "a wait before another attempt": ("/fail before 503", 0.7),
}


@pytest.mark.parametrize("what", BUSY_WITH)
def test_a_cancelled_turn_ends_within_a_second(world: World, what: str) -> None:
    text, after_s = BUSY_WITH[what]
    turn = begin(world, text)
    world.loop.run_for(after_s)
    world.cancel(world.servers[0], turn)

    ending_s(world, turn)
    events = log(world, turn)
    assert isinstance(events[-1], MessageCancelled)
    assert set(results(events)) <= {STOPPED}
    again = begin(world, "/text on", "on")
    world.loop.run_for(10)
    assert log(world, again)[-1].type == "message.completed"


@pytest.mark.parametrize("what", BUSY_WITH)
def test_a_turn_that_is_cancelled_while_it_recovers_ends_as_cancelled_at_once(world: World, what: str) -> None:
    text, after_s = BUSY_WITH[what]
    turn = begin(world, text)
    world.loop.run_for(after_s)
    server = world.servers[0]
    server.die()
    new = world.start_server()
    taking = world.loop.create_task(new.turns.take_over(everything=True, reason="server_restarted"))
    world.loop.run_for(0.03)
    world.cancel(new, turn)
    world.loop.run_until_complete(taking)

    ending_s(world, turn)
    assert isinstance(log(world, turn)[-1], MessageCancelled)


@pytest.mark.parametrize("what", BUSY_WITH)
def test_a_cancel_outlives_the_server_that_answered_it(world: World, what: str) -> None:
    text, after_s = BUSY_WITH[what]
    turn = begin(world, text)
    world.loop.run_for(after_s)
    server = world.servers[0]
    server.turns.stop = lambda turn_id: None  # type: ignore[method-assign]  # it dies before it does anything
    world.cancel(server, turn)
    world.restart(server)

    ending_s(world, turn)
    assert isinstance(log(world, turn)[-1], MessageCancelled)


def test_a_cancel_that_another_server_was_asked_for_arrives(world: World) -> None:
    turn = begin(world, "/stall 1000")
    other = world.start_server()
    world.loop.run_for(1)
    world.cancel(other, turn)

    ending_s(world, turn, LEASE_S)
    assert isinstance(log(world, turn)[-1], MessageCancelled)


@pytest.mark.parametrize("at_ms", range(0, 320, 10))
def test_cancel_against_completion_has_one_right_answer(world: World, at_ms: int) -> None:
    turn = begin(world, "/stream 10 50")
    world.loop.run_for(at_ms / 1000)
    world.cancel(world.servers[0], turn)
    was_in_time = turn.id in world.cancelled

    ending_s(world, turn)
    ending = log(world, turn)[-1]
    assert isinstance(ending, MessageCancelled) == was_in_time


def test_cancel_twice_is_one_cancel_and_behind_the_ending_it_says_so(world: World) -> None:
    turn = begin(world, "/stall 100")
    world.loop.run_for(1)
    world.cancel(world.servers[0], turn)
    world.cancel(world.servers[0], turn)
    ending_s(world, turn)

    after = world.do(world.servers[0], world.servers[0].turns.cancel(turn.tenant, turn.session_id, turn.id))
    assert after.status == "cancelled"
    assert [event.type for event in log(world, turn)].count("message.cancelled") == 1


def test_a_session_that_is_deleted_ends_its_turn(world: World) -> None:
    world.new_session()
    turn = begin(world, "/text w\n/stall 100")
    world.loop.run_for(1)
    world.delete(world.servers[0], world.sessions[0])

    ending_s(world, turn)
    assert isinstance(log(world, turn)[-1], MessageCancelled)


# The store


@pytest.mark.parametrize("outage_s", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("what", ["/stream 200 50", f"{COUNT}\n{LOOK}", "/stall 1\n/text w"])
def test_an_outage_of_the_store_ends_and_nothing_stays_busy(world: World, what: str, outage_s: float) -> None:
    turn = begin(world, what)
    world.loop.run_for(0.5)
    world.servers[0].faults.outage = True
    world.loop.run_for(outage_s)
    log(world, turn)
    world.servers[0].faults.outage = False

    ending_s(world, turn, 60)
    assert log(world, turn)[-1].type in ("message.completed", "message.error")


def test_a_turn_that_is_cancelled_during_an_outage_ends_when_it_is_over(world: World) -> None:
    turn = begin(world, "/stall 1000")
    world.loop.run_for(0.5)
    world.cancel(world.servers[0], turn)
    world.servers[0].faults.outage = True
    world.loop.run_for(10)
    world.servers[0].faults.outage = False

    ending_s(world, turn, 10)
    assert isinstance(log(world, turn)[-1], MessageCancelled)


def test_a_turn_whose_history_can_not_be_read_ends_when_it_can(world: World) -> None:
    turn = begin(world, "/text w", "w")
    world.servers[0].faults.outage = True
    world.loop.run_for(5)
    world.servers[0].faults.outage = False

    ending_s(world, turn, 10)


def test_lost_acknowledgements_double_nothing(world: World) -> None:
    world.servers[0].faults.loses = 0.3
    for n in range(5):
        turn = world.begin(world.servers[0], world.new_session(), f"/text w{n}\n/stream 100 50", [f"w{n}"])
        if turn is not None:
            ending_s(world, turn, 60)
    world.check()
