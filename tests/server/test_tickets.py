"""How long a ticket works, by a clock that the test turns."""

import pytest

from turnwire.engine.limits import TICKET_S
from turnwire.protocol.errors import NotFound, Unauthorized
from turnwire.seams.store import Turn
from turnwire.server.tickets import Tickets
from turnwire.stores.memory import MemoryStore
from turnwire.testing.clock import TurnableClock
from turnwire.testing.store_cases import begin, end, make_session

TURN_TIMEOUT_S = 5400


class World:
    def __init__(self) -> None:
        self.clock = TurnableClock()
        self.store = MemoryStore(clock=self.clock)
        self.tickets = Tickets(self.store, self.clock, turn_timeout_s=TURN_TIMEOUT_S)

    async def begun(self) -> Turn:
        return await begin(self.store, await make_session(self.store, self.clock))

    async def check(self, text: str, turn: Turn) -> str:
        return await self.tickets.check(text, turn.session_id, turn.id)


async def test_a_ticket_works_while_its_turn_runs_and_ten_minutes_more() -> None:
    world = World()
    turn = await world.begun()
    text, expires_at = await world.tickets.make(turn)
    assert expires_at == turn.created_at + TURN_TIMEOUT_S + TICKET_S

    world.clock.turn(TURN_TIMEOUT_S * 3)  # a turn may be taken up again after days
    assert await world.check(text, turn) == turn.tenant
    await end(world.store, turn, 1)
    world.clock.turn(TICKET_S)
    assert await world.check(text, turn) == turn.tenant

    world.clock.turn(1)
    with pytest.raises(Unauthorized, match="run out"):
        await world.check(text, turn)


async def test_a_ticket_of_a_turn_that_has_ended_counts_from_the_end() -> None:
    world = World()
    turn = await world.begun()
    await end(world.store, turn, 1)
    ended = await world.store.get_turn(turn.tenant, turn.session_id, turn.id)
    world.clock.turn(TICKET_S - 1)

    text, expires_at = await world.tickets.make(ended)

    assert ended.ended_at is not None
    assert expires_at == ended.ended_at + TICKET_S
    assert await world.check(text, turn) == turn.tenant
    world.clock.turn(2)
    with pytest.raises(Unauthorized, match="run out"):
        await world.check(text, turn)


async def test_a_ticket_is_for_one_turn_and_one_store() -> None:
    world, other_world = World(), World()
    turn, other = await world.begun(), await world.begun()
    text, _ = await world.tickets.make(turn)

    with pytest.raises(Unauthorized, match="another response"):
        await world.check(text, other)
    with pytest.raises(Unauthorized, match="none of this server's"):
        await other_world.check(text, turn)


async def test_a_ticket_of_a_deleted_session_finds_nothing() -> None:
    world = World()
    turn = await world.begun()
    text, _ = await world.tickets.make(turn)
    await world.store.delete_session(turn.tenant, turn.session_id)

    with pytest.raises(NotFound):
        await world.check(text, turn)
