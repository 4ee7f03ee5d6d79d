"""What every store must do: the sentences of `turnwire.seams.store`, as cases.

Each case is an async function that takes an empty store and the clock that the store reads; `CASES` holds them all.
An adapter's own tests run them, with pytest for instance:

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
    async def test_conformance(case):
        clock = TurnableClock()
        store = await MyStore.open(..., clock=clock)
        await case(store, clock)
        await store.close()
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

from turnwire.protocol.codec import encode_frame, split_frames
from turnwire.protocol.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, SessionBusy, Unavailable
from turnwire.protocol.events import MessageCreated, TextDelta, Usage
from turnwire.protocol.ids import new_message_id, new_response_id, new_session_id
from turnwire.seams.store import (
    Append,
    Appended,
    Begun,
    CallAnswer,
    CallRequest,
    Ending,
    HistoryEntry,
    Key,
    NewTurn,
    Page,
    Session,
    SessionChanges,
    Store,
    Turn,
)
from turnwire.testing.clock import TurnableClock

Case = Callable[[Store, TurnableClock], Awaitable[None]]

CASES: list[Case] = []
"""All of them, in the order of the seam."""

TENANT = "acme"
OWNER = "server-1"
LEASE_S = 30.0
DAY_S = 24 * 3600


def _case(case: Case) -> Case:
    CASES.append(case)
    return case


class _Raised:
    """The error that `raises` caught."""

    error: Any = None


@contextmanager
def raises(expected: type[BaseException]) -> Generator[_Raised, None, None]:
    """The block must raise exactly this error."""
    raised = _Raised()
    try:
        yield raised
    except expected as exc:
        assert type(exc) is expected, f"expected {expected.__name__}, got {exc!r}"
        raised.error = exc
    else:
        raise AssertionError(f"expected {expected.__name__}, nothing was raised")


# What the cases are told with


def a_session(clock: TurnableClock, **fields: Any) -> Session:
    """A new session's record."""
    now = clock.now()
    values: dict[str, Any] = {"id": new_session_id(), "tenant": TENANT, "created_at": now, "last_activity": now}
    values["ttl"] = 14_400
    return Session(**(values | fields))


async def make_session(store: Store, clock: TurnableClock, **fields: Any) -> Session:
    """A session that is kept."""
    session = a_session(clock, **fields)
    await store.create_session(session)
    return session


def a_turn(session: Session, **fields: Any) -> NewTurn:
    """What begins a turn in `session`."""
    id_ = new_response_id()
    values: dict[str, Any] = {
        "id": id_,
        "session_id": session.id,
        "tenant": session.tenant,
        "message_id": new_message_id(),
        "message": b'[{"type":"text","text":"Hi"}]',
        "history": HistoryEntry("prompt", b"hi"),
        "frames": encode_frame(MessageCreated(id_, session.id)),
        "owner": OWNER,
        "lease_s": LEASE_S,
    }
    return NewTurn(**(values | fields))


async def begin(store: Store, session: Session, **fields: Any) -> Turn:
    """A turn that runs."""
    return (await store.begin_turn(a_turn(session, **fields))).turn


def deltas(first_seq: int, count: int) -> bytes:
    """Frames that say their own numbers."""
    return b"".join(encode_frame(TextDelta(f"{seq} ")) for seq in range(first_seq, first_seq + count))


def an_append(turn: Turn, first_seq: int, count: int = 1, **fields: Any) -> Append:
    """An append of `count` events from `first_seq` on."""
    values: dict[str, Any] = {
        "session_id": turn.session_id,
        "turn_id": turn.id,
        "epoch": turn.epoch,
        "first_seq": first_seq,
        "last_seq": first_seq + count - 1,
        "frames": deltas(first_seq, count),
    }
    return Append(**(values | fields))


def handed_in(store: Store, append: Append) -> "asyncio.Future[Appended | Exception]":
    """Hand an append in; the future is what `done` will be given, and fails when that is called twice."""
    future: asyncio.Future[Appended | Exception] = asyncio.get_running_loop().create_future()
    store.append(append, future.set_result)
    assert not future.done(), "append() returns before done is called"
    return future


async def appended(store: Store, append: Append) -> Appended | Exception:
    """Append, and wait for what became of it."""
    return await handed_in(store, append)


async def write(store: Store, turn: Turn, first_seq: int, count: int = 1, **fields: Any) -> None:
    """Append what must be written."""
    result = await appended(store, an_append(turn, first_seq, count, **fields))
    assert result is Appended.WRITTEN, result


COMPLETED = Ending("completed", Usage(1, 2, 3), b'[{"type":"text","text":"Yes"}]')
CANCELLED = Ending("cancelled", Usage(), b"[]")


async def end(store: Store, turn: Turn, first_seq: int = 1, ending: Ending = COMPLETED) -> None:
    """End a turn with one more event."""
    await write(store, turn, first_seq, ending=ending)


async def a_finished_turn(store: Store, session: Session, events: int = 1) -> Turn:
    """A turn that began and ended; `events` behind `message.created`."""
    turn = await begin(store, session)
    if events > 1:
        await write(store, turn, 1, events - 1)
    await end(store, turn, events)
    return turn


def frames_of(page: Page) -> list[bytes]:
    """The frames of a page, apart."""
    return [frame for segment in page.segments for frame in split_frames(segment.frames)]


# Sessions


@_case
async def a_session_comes_back_as_it_was_kept(store: Store, clock: TurnableClock) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    full = await make_session(
        store,
        clock,
        persistent=True,
        ttl=7,
        metadata={"a": [1, 2.5, None, {"ä": "\u2028"}]},
        file_access={"read": [""], "write": ["pub"]},
        model="demo",
        instructions="Be brief.",
        workspace="private",
        tools=[tool],
        approvals=["bash"],
        network=False,
    )
    plain = await make_session(store, clock)

    assert await store.get_session(TENANT, full.id) == full
    assert await store.get_session(TENANT, plain.id) == plain
    assert not plain.busy
    assert plain.response_id is None


@_case
async def lone_surrogates_are_kept_wherever_people_write(store: Store, clock: TurnableClock) -> None:
    odd = "x\ud800y\udfff\0ä"
    session = await make_session(store, clock, metadata={odd: odd}, instructions=odd, tenant=odd, model=odd)
    turn = await begin(store, session, idempotency_key=odd, model=odd)
    await end(store, turn, ending=Ending("error", Usage(), b"[]", odd))

    assert (await store.get_session(odd, session.id)).metadata == {odd: odd}
    assert (await store.get_session(odd, session.id)).instructions == odd
    kept = await store.get_turn(odd, session.id, turn.id)
    assert (kept.error, kept.model, kept.tenant) == (odd, odd, odd)
    assert [found.id for found in await store.list_sessions(odd)] == [session.id]
    for name in (odd, "x\ud800y\udfff", "\0", ""):
        with raises(NotFound):
            await store.get_session(TENANT, name)
        with raises(NotFound):
            await store.get_turn(odd, session.id, name)
        with raises(NotFound):
            await store.read_events(name, 0, bytes_max=1)
        with raises(InvalidRequest):
            await store.list_sessions(odd, after=name)


@_case
async def tenants_that_differ_in_odd_characters_differ(store: Store, clock: TurnableClock) -> None:
    names = ["a\ud800", "a\ud801", "a?", "a", "\0a", "\x0061"]
    for name in names:
        await make_session(store, clock, tenant=name)

    for name in names:
        assert [session.tenant for session in await store.list_sessions(name)] == [name]


@_case
async def an_id_that_is_taken_is_a_conflict(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)

    with raises(Conflict):
        await store.create_session(session)
    with raises(Conflict):
        await store.create_session(a_session(clock, id=session.id, tenant="other"))
    assert await store.get_session(TENANT, session.id) == session


@_case
async def what_belongs_to_another_tenant_is_not_found(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)

    for call in (
        store.get_session("other", session.id),
        store.update_session("other", session.id, SessionChanges(ttl=1)),
        store.delete_session("other", session.id),
        store.get_turn("other", session.id, turn.id),
        store.list_turns("other", session.id),
        store.request_cancel("other", session.id, turn.id),
        store.begin_turn(a_turn(session, tenant="other")),
    ):
        with raises(NotFound):
            await call
    assert await store.list_sessions("other") == []
    with raises(InvalidRequest):
        await store.list_sessions("other", after=session.id)
    assert await store.delete_sessions("other", idle=True, older_than_s=None) == 0
    assert not (await store.get_turn(TENANT, session.id, turn.id)).cancel_requested


@_case
async def what_was_never_there_is_not_found(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)

    for call in (
        store.get_session(TENANT, "sess_000000000000"),
        store.update_session(TENANT, "sess_000000000000", SessionChanges()),
        store.delete_session(TENANT, "sess_000000000000"),
        store.list_turns(TENANT, "sess_000000000000"),
        store.get_turn(TENANT, session.id, "msg_0"),
        store.request_cancel(TENANT, session.id, "msg_0"),
        store.read_events("msg_0", 0, bytes_max=1),
        store.read_history("sess_000000000000"),
        store.begin_turn(a_turn(a_session(clock))),
    ):
        with raises(NotFound):
            await call


@_case
async def a_turn_is_found_in_its_own_session_only(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    turn = await begin(store, session)

    with raises(NotFound):
        await store.get_turn(TENANT, other.id, turn.id)
    with raises(NotFound):
        await store.request_cancel(TENANT, other.id, turn.id)
    with raises(InvalidRequest):
        await store.list_turns(TENANT, other.id, after=turn.id)


@_case
async def sessions_are_listed_newest_first_a_page_at_a_time(store: Store, clock: TurnableClock) -> None:
    made: list[str] = []
    for i in range(7):
        made.append((await make_session(store, clock)).id)
        clock.turn(1.0 if i % 2 else 0.0)  # some at the same instant
    await make_session(store, clock, tenant="other")

    whole = [session.id for session in await store.list_sessions(TENANT)]
    assert sorted(whole) == sorted(made)
    assert [made.index(id_) // 2 for id_ in whole] == [3, 2, 2, 1, 1, 0, 0]
    paged: list[str] = []
    while page := await store.list_sessions(TENANT, after=paged[-1] if paged else None, limit=2):
        assert len(page) <= 2
        paged += [session.id for session in page]
    assert paged == whole


@_case
async def pages_of_sessions_are_stable_while_sessions_come_and_go(store: Store, clock: TurnableClock) -> None:
    made: list[str] = []
    for _ in range(6):
        made.append((await make_session(store, clock)).id)
        clock.turn(1)
    first = [session.id for session in await store.list_sessions(TENANT, limit=2)]
    assert first == [made[5], made[4]]
    await make_session(store, clock)
    await store.delete_session(TENANT, made[4])

    assert [s.id for s in await store.list_sessions(TENANT, after=made[4], limit=2)] == [made[3], made[2]]
    await store.purge_sessions(limit=10)
    assert [s.id for s in await store.list_sessions(TENANT, after=made[4], limit=2)] == [made[3], made[2]]
    with raises(InvalidRequest):
        await store.list_sessions(TENANT, after=new_session_id())


@_case
async def sessions_are_listed_by_whether_they_are_busy(store: Store, clock: TurnableClock) -> None:
    idle, busy, done = [await make_session(store, clock) for _ in range(3)]
    await begin(store, busy)
    await a_finished_turn(store, done)

    assert [s.id for s in await store.list_sessions(TENANT, busy=True)] == [busy.id]
    assert {s.id for s in await store.list_sessions(TENANT, busy=False)} == {idle.id, done.id}
    assert len(await store.list_sessions(TENANT)) == 3
    assert await store.list_sessions(TENANT, busy=True, after=busy.id) == []


@_case
async def a_change_merges_metadata_and_leaves_the_rest(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock, metadata={"a": 1, "b": {"x": 1}, "c": None}, model="m", ttl=5)

    changed = await store.update_session(
        TENANT, session.id, SessionChanges(metadata={"a": None, "b": {"y": 2}, "d": 4}, instructions="Do.")
    )
    assert changed.metadata == {"b": {"y": 2}, "c": None, "d": 4}
    assert (changed.model, changed.ttl, changed.instructions) == ("m", 5, "Do.")
    changed = await store.update_session(TENANT, session.id, SessionChanges(model=None, ttl=9))
    assert (changed.model, changed.ttl, changed.instructions) == (None, 9, "Do.")
    assert changed.metadata == {"b": {"y": 2}, "c": None, "d": 4}
    assert await store.get_session(TENANT, session.id) == changed
    assert await store.update_session(TENANT, session.id, SessionChanges()) == changed


@_case
async def changes_at_the_same_time_lose_nothing(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)

    await asyncio.gather(
        *(store.update_session(TENANT, session.id, SessionChanges(metadata={f"k{i}": i})) for i in range(20))
    )
    assert (await store.get_session(TENANT, session.id)).metadata == {f"k{i}": i for i in range(20)}


@_case
async def what_was_read_is_not_what_is_kept(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock, metadata={"a": [1]})

    (await store.get_session(TENANT, session.id)).metadata["a"].append(2)
    session.metadata["a"].append(3)
    assert (await store.get_session(TENANT, session.id)).metadata == {"a": [1]}


@_case
async def last_activity_is_the_latest_begin_or_end_of_a_turn(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    made = clock.now()

    async def last_activity() -> float:
        return (await store.get_session(TENANT, session.id)).last_activity

    clock.turn(10)
    assert await last_activity() == made
    turn = await begin(store, session)
    began = clock.now()
    clock.turn(10)
    await write(store, turn, 1)
    await store.update_session(TENANT, session.id, SessionChanges(ttl=8))
    await store.take_over(OWNER, lease_s=1, everything=True)
    assert await last_activity() == began
    turn = await store.get_turn(TENANT, session.id, turn.id)
    await end(store, turn, 2)
    assert await last_activity() == clock.now()


@_case
async def a_session_shows_its_running_or_latest_turn(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)

    await write(store, turn, 1, pending_calls=2)
    seen = await store.get_session(TENANT, session.id)
    assert (seen.busy, seen.response_id, seen.pending_calls) == (True, turn.id, 2)
    await write(store, turn, 2)
    assert (await store.get_session(TENANT, session.id)).pending_calls == 2
    await end(store, turn, 3)
    seen = await store.get_session(TENANT, session.id)
    assert (seen.busy, seen.response_id, seen.pending_calls) == (False, turn.id, 0)
    later = await begin(store, session)
    seen = (await store.list_sessions(TENANT))[0]
    assert (seen.busy, seen.response_id) == (True, later.id)


# Deleting


@_case
async def a_deleted_session_is_not_found_at_once(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await a_finished_turn(store, session)

    assert await store.delete_session(TENANT, session.id) is None
    for call in (
        store.get_session(TENANT, session.id),
        store.delete_session(TENANT, session.id),
        store.update_session(TENANT, session.id, SessionChanges()),
        store.get_turn(TENANT, session.id, turn.id),
        store.list_turns(TENANT, session.id),
        store.request_cancel(TENANT, session.id, turn.id),
        store.begin_turn(a_turn(session)),
    ):
        with raises(NotFound):
            await call
    assert await store.list_sessions(TENANT) == []


@_case
async def deleting_a_busy_session_cancels_its_turn(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)

    assert await store.delete_session(TENANT, session.id) == turn.id
    assert await store.cancel_requests(OWNER) == [turn.id]
    assert await store.purge_sessions(limit=10) == []
    await write(store, turn, 1)
    assert await appended(store, an_append(turn, 2, ending=COMPLETED)) is Appended.CANCEL_FIRST
    await end(store, turn, 2, CANCELLED)
    page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
    assert (page.last_seq, page.ended) == (2, True)
    purged = await store.purge_sessions(limit=10)
    assert [gone.id for gone in purged] == [session.id]


@_case
async def purging_removes_everything_of_a_session_and_nothing_else(store: Store, clock: TurnableClock) -> None:
    kept, gone = await make_session(store, clock), await make_session(store, clock, workspace="private")
    kept_turn = await a_finished_turn(store, kept, 5)
    gone_turns = [await a_finished_turn(store, gone, 3) for _ in range(3)]
    await store.delete_session(TENANT, gone.id)

    (purged,) = await store.purge_sessions(limit=10)
    assert (purged.id, purged.tenant, purged.workspace) == (gone.id, TENANT, "private")
    assert await store.purge_sessions(limit=10) == []
    for turn in gone_turns:
        with raises(NotFound):
            await store.read_events(turn.id, 0, bytes_max=1)
    with raises(NotFound):
        await store.read_history(gone.id)
    assert len(frames_of(await store.read_events(kept_turn.id, 0, bytes_max=1_000_000))) == 6
    assert len(await store.read_history(kept.id)) == 1
    assert await appended(store, an_append(gone_turns[0], 4)) is Appended.FENCED


@_case
async def purging_takes_at_most_its_limit(store: Store, clock: TurnableClock) -> None:
    for _ in range(5):
        session = await make_session(store, clock)
        await store.delete_session(TENANT, session.id)

    assert [len(await store.purge_sessions(limit=2)) for _ in range(4)] == [2, 2, 1, 0]


@_case
async def bulk_delete_never_takes_a_busy_session(store: Store, clock: TurnableClock) -> None:
    idle, busy, done = [await make_session(store, clock) for _ in range(3)]
    await begin(store, busy)
    await a_finished_turn(store, done)
    other = await make_session(store, clock, tenant="other")

    assert await store.delete_sessions(TENANT, idle=True, older_than_s=None) == 2
    assert [s.id for s in await store.list_sessions(TENANT)] == [busy.id]
    assert await store.get_session("other", other.id) == other
    with raises(NotFound):
        await store.get_session(TENANT, idle.id)
    assert await store.delete_sessions(TENANT, idle=True, older_than_s=None) == 0


@_case
async def bulk_delete_goes_by_the_last_activity(store: Store, clock: TurnableClock) -> None:
    old, active = await make_session(store, clock), await make_session(store, clock)
    clock.turn(100)
    await a_finished_turn(store, active)
    clock.turn(50)

    assert await store.delete_sessions(TENANT, idle=False, older_than_s=150) == 0
    assert await store.delete_sessions(TENANT, idle=True, older_than_s=149) == 1
    with raises(NotFound):
        await store.get_session(TENANT, old.id)
    assert await store.delete_sessions(TENANT, idle=False, older_than_s=49) == 1


@_case
async def bulk_delete_without_a_condition_is_refused(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)

    with raises(InvalidRequest):
        await store.delete_sessions(TENANT, idle=False, older_than_s=None)
    assert await store.get_session(TENANT, session.id) == session


@_case
async def sessions_expire_by_their_own_rule(store: Store, clock: TurnableClock) -> None:
    persistent = await make_session(store, clock, persistent=True, ttl=1000)
    passing = await make_session(store, clock, ttl=1)
    used = await make_session(store, clock)
    clock.turn(200)
    await a_finished_turn(store, used)

    async def live() -> set[str]:
        return {session.id for session in await store.list_sessions(TENANT)}

    clock.turn(99)
    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 0
    clock.turn(1)
    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 1
    assert await live() == {persistent.id, used.id}
    assert passing.id not in await live()
    clock.turn(200)
    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 1
    assert await live() == {persistent.id}
    clock.turn(499)
    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 0
    clock.turn(1)
    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 1
    assert await live() == set()


@_case
async def a_busy_session_never_expires(store: Store, clock: TurnableClock) -> None:
    persistent = await make_session(store, clock, persistent=True, ttl=10)
    passing = await make_session(store, clock)
    turns = [await begin(store, session) for session in (persistent, passing)]
    clock.turn(100_000)

    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 0
    for turn in turns:
        await end(store, turn)
    assert await store.expire_sessions(idle_ttl_s=300, limit=10) == 1
    assert [s.id for s in await store.list_sessions(TENANT)] == [passing.id]


@_case
async def expiring_takes_at_most_its_limit(store: Store, clock: TurnableClock) -> None:
    for i in range(5):
        await make_session(store, clock, persistent=i % 2 == 0, ttl=10)
    clock.turn(1000)

    assert [await store.expire_sessions(idle_ttl_s=300, limit=2) for _ in range(4)] == [2, 2, 1, 0]


# Beginning a turn


@_case
async def a_turn_begins_in_one_go(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock, metadata={"k": "v"}, instructions="Do.")
    clock.turn(5)
    new = a_turn(session, model="demo", settings=b'{"temperature":0}')

    begun = await store.begin_turn(new)
    assert not begun.replayed
    assert begun.turn == Turn(
        id=new.id,
        session_id=session.id,
        tenant=TENANT,
        created_at=clock.now(),
        message_id=new.message_id,
        message=new.message,
        model="demo",
        settings=new.settings,
    )
    assert begun.turn == await store.get_turn(TENANT, session.id, new.id)
    assert begun.session == await store.get_session(TENANT, session.id)
    assert begun.session.busy
    page = await store.read_events(new.id, 0, bytes_max=1)
    assert (frames_of(page), page.last_seq, page.ended) == ([new.frames], 0, False)
    assert await store.read_history(session.id) == [HistoryEntry("prompt", b"hi", 1, new.id)]


@_case
async def one_of_fifty_simultaneous_turns_wins(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    news = [a_turn(session) for _ in range(50)]

    results = await asyncio.gather(*(store.begin_turn(new) for new in news), return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, Begun)]
    losers = [result for result in results if isinstance(result, SessionBusy)]
    assert len(losers) == 49
    assert {loser.response_id for loser in losers} == {winner.turn.id}
    assert [turn.id for turn in await store.list_turns(TENANT, session.id)] == [winner.turn.id]
    assert len(await store.read_history(session.id)) == 1


@_case
async def fifty_sessions_begin_turns_at_the_same_time(store: Store, clock: TurnableClock) -> None:
    sessions = [await make_session(store, clock) for _ in range(50)]

    begun = await asyncio.gather(*(store.begin_turn(a_turn(session)) for session in sessions))
    assert [one.turn.session_id for one in begun] == [session.id for session in sessions]


@_case
async def a_session_is_busy_until_its_turn_has_ended(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    await write(store, turn, 1, 3)
    await store.request_cancel(TENANT, session.id, turn.id)
    await store.take_over("server-2", lease_s=1, everything=True)

    with raises(SessionBusy) as raised:
        await store.begin_turn(a_turn(session))
    assert raised.error.response_id == turn.id
    turn = await store.get_turn(TENANT, session.id, turn.id)
    await end(store, turn, 4, CANCELLED)
    assert (await begin(store, session)).last_seq == 0


@_case
async def a_begin_whose_acknowledgement_was_lost_finds_itself(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    new = a_turn(session)
    first = await store.begin_turn(new)

    again = await store.begin_turn(new)
    assert again.turn == first.turn
    assert len(await store.list_turns(TENANT, session.id)) == 1
    assert len(await store.read_history(session.id)) == 1


# Idempotency keys


def keyed(session: Session, key: str = "k1", fingerprint: bytes = b"f1", **fields: Any) -> NewTurn:
    return a_turn(session, idempotency_key=key, fingerprint=fingerprint, **fields)


@_case
async def the_same_key_and_message_give_the_same_turn(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    first = await store.begin_turn(keyed(session))

    again = await store.begin_turn(keyed(session))
    assert (again.turn, again.replayed) == (first.turn, True)
    await end(store, first.turn)
    later = await store.begin_turn(keyed(session))
    assert (later.turn.id, later.turn.status, later.replayed) == (first.turn.id, "completed", True)
    assert not later.session.busy
    assert len(await store.list_turns(TENANT, session.id)) == 1


@_case
async def simultaneous_retries_start_one_turn(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)

    begun = await asyncio.gather(*(store.begin_turn(keyed(session)) for _ in range(20)))
    assert len({one.turn.id for one in begun}) == 1
    assert sorted(one.replayed for one in begun) == [False] + [True] * 19


@_case
async def another_message_under_a_key_is_a_mismatch(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    await begin(store, session, idempotency_key="k1", fingerprint=b"f1")

    with raises(IdempotencyMismatch):
        await store.begin_turn(keyed(session, fingerprint=b"f2"))
    with raises(IdempotencyMismatch):
        await store.begin_turn(keyed(other))
    with raises(SessionBusy):
        await store.begin_turn(keyed(session, key="k2"))


@_case
async def keys_belong_to_their_tenant(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    other = await make_session(store, clock, tenant="other")

    assert not (await store.begin_turn(keyed(session))).replayed
    assert not (await store.begin_turn(keyed(other, fingerprint=b"f2"))).replayed


@_case
async def a_refused_call_does_not_use_up_its_key(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)

    with raises(SessionBusy):
        await store.begin_turn(keyed(session))
    with raises(NotFound):
        await store.begin_turn(keyed(a_session(clock), key="k2"))
    await end(store, turn)
    assert not (await store.begin_turn(keyed(session, fingerprint=b"f2"))).replayed
    assert not (await store.begin_turn(keyed(await make_session(store, clock), key="k2"))).replayed


@_case
async def where_no_turn_may_begin_a_key_still_finds_its_own(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    first = await begin(store, session, idempotency_key="k1", fingerprint=b"f1")
    full = Unavailable("There is no place.")

    assert (await store.begin_turn(keyed(session, refusal=full))).turn.id == first.id
    with raises(IdempotencyMismatch):
        await store.begin_turn(keyed(session, fingerprint=b"f2", refusal=full))
    with raises(Unavailable):
        await store.begin_turn(keyed(other, key="k2", refusal=full))
    assert not (await store.begin_turn(keyed(other, key="k2"))).replayed


@_case
async def a_key_is_forgotten_after_a_day(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    first = await begin(store, session, idempotency_key="k1", fingerprint=b"f1")
    await end(store, first)

    clock.turn(DAY_S - 1)
    await store.purge_sessions(limit=10)
    assert (await store.begin_turn(keyed(session))).replayed
    clock.turn(1)
    second = await store.begin_turn(keyed(session, fingerprint=b"f2"))
    assert not second.replayed
    assert second.turn.id != first.id
    assert (await store.begin_turn(keyed(session, fingerprint=b"f2"))).turn.id == second.turn.id


@_case
async def a_key_of_a_deleted_session_is_not_found(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    await end(store, await begin(store, session, idempotency_key="k1", fingerprint=b"f1"))
    await store.delete_session(TENANT, session.id)

    with raises(NotFound):
        await store.begin_turn(keyed(session))
    await store.purge_sessions(limit=10)
    with raises(NotFound):
        await store.begin_turn(keyed(session))
    with raises(IdempotencyMismatch):
        await store.begin_turn(keyed(session, fingerprint=b"f2"))


@_case
async def a_key_outlives_the_events_of_its_turn(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    first = await begin(store, session, idempotency_key="k1", fingerprint=b"f1")
    await end(store, first)
    clock.turn(60)
    await store.drop_events(ended_before=clock.now(), limit=10)

    again = await store.begin_turn(keyed(session))
    assert (again.turn.id, again.replayed) == (first.id, True)


# Appending


@_case
async def events_are_read_as_they_were_appended(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    await write(store, turn, 1)
    await write(store, turn, 2, 5)
    await write(store, turn, 7, 2)

    page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
    assert frames_of(page)[1:] == split_frames(deltas(1, 8))
    assert [(s.first_seq, s.last_seq) for s in page.segments][-1][1] == 8
    assert (page.last_seq, page.ended) == (8, False)
    assert (await store.get_turn(TENANT, session.id, turn.id)).last_seq == 8


@_case
async def any_bytes_can_be_a_frame(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    frames = bytes(range(256)) * 4096

    await write(store, turn, 1, frames=frames)
    (segment,) = (await store.read_events(turn.id, 1, bytes_max=1)).segments
    assert segment.frames == frames


@_case
async def done_is_called_once_for_each_of_many(store: Store, clock: TurnableClock) -> None:
    turns = [await begin(store, await make_session(store, clock)) for _ in range(300)]

    results = await asyncio.gather(*(handed_in(store, an_append(turn, 1)) for turn in turns))
    assert results == [Appended.WRITTEN] * 300
    results = await asyncio.gather(*(handed_in(store, an_append(turn, 2)) for turn in turns[:77]))
    assert results == [Appended.WRITTEN] * 77
    for turn in (turns[0], turns[76], turns[77], turns[299]):
        page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
        assert page.last_seq == (2 if turn in turns[:77] else 1)
        assert frames_of(page)[1:] == split_frames(deltas(1, page.last_seq))


@_case
async def the_next_append_may_be_handed_in_by_done(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    loop_thread = asyncio.get_running_loop()

    def go_on(seq: int, result: Appended | Exception) -> None:
        assert asyncio.get_running_loop() is loop_thread
        assert result is Appended.WRITTEN
        if seq == 50:
            finished.set_result(None)
        else:
            store.append(an_append(turn, seq + 1), lambda result: go_on(seq + 1, result))

    store.append(an_append(turn, 1), lambda result: go_on(1, result))
    await asyncio.wait_for(finished, 20)
    assert len(frames_of(await store.read_events(turn.id, 0, bytes_max=1_000_000))) == 51


@_case
async def an_append_under_another_epoch_is_fenced(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    await write(store, turn, 1)
    (taken,) = await store.take_over("server-2", lease_s=LEASE_S, everything=True)

    for stale in (an_append(turn, 2), an_append(turn, 2, ending=COMPLETED), an_append(turn, 1), an_append(taken, 3)):
        assert await appended(store, stale) is Appended.FENCED
    assert await appended(store, an_append(taken, 2, epoch=taken.epoch + 1)) is Appended.FENCED
    assert (await store.get_turn(TENANT, session.id, turn.id)).last_seq == 1
    await write(store, taken, 2)
    assert await appended(store, an_append(turn, 2)) is Appended.FENCED


@_case
async def an_append_that_does_not_follow_is_fenced(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    await write(store, turn, 1, 4)

    for wrong in (an_append(turn, 6), an_append(turn, 3), an_append(turn, 2, 2), an_append(turn, 4, 2)):
        assert await appended(store, wrong) is Appended.FENCED
    page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
    assert frames_of(page)[1:] == split_frames(deltas(1, 4))


@_case
async def nothing_follows_the_ending(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    await end(store, turn)

    assert await appended(store, an_append(turn, 2)) is Appended.FENCED
    assert await appended(store, an_append(turn, 2, ending=COMPLETED)) is Appended.FENCED
    assert await appended(store, an_append(turn, 1)) is Appended.FENCED
    assert (await store.read_events(turn.id, 0, bytes_max=1_000_000)).last_seq == 1


@_case
async def an_append_to_an_unknown_turn_is_fenced(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))

    assert await appended(store, an_append(turn, 1, turn_id=new_response_id())) is Appended.FENCED


@_case
async def an_append_whose_acknowledgement_was_lost_is_written_once(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    append = an_append(turn, 1, 3, history=(HistoryEntry("response", b"r"),))

    assert await appended(store, append) is Appended.WRITTEN
    assert await appended(store, append) is Appended.WRITTEN
    assert len(await store.read_history(session.id)) == 2
    ending = an_append(turn, 4, ending=COMPLETED)
    assert await appended(store, ending) is Appended.WRITTEN
    ended_at = clock.now()
    clock.turn(5)
    assert await appended(store, ending) is Appended.WRITTEN
    kept = await store.get_turn(TENANT, session.id, turn.id)
    assert (kept.ended_at, kept.last_seq) == (ended_at, 4)
    assert len(frames_of(await store.read_events(turn.id, 0, bytes_max=1_000_000))) == 5


@_case
async def neighbours_in_a_group_do_not_hurt_each_other(store: Store, clock: TurnableClock) -> None:
    sessions = [await make_session(store, clock) for _ in range(6)]
    plain, ahead, retried, cancelled, ended, busy = [await begin(store, session) for session in sessions]
    await write(store, retried, 1)
    await store.request_cancel(TENANT, cancelled.session_id, cancelled.id)
    await end(store, ended)

    appends = [
        an_append(ahead, 5),
        an_append(plain, 1, 2, history=(HistoryEntry("response", b"r"),)),
        an_append(retried, 1),
        an_append(cancelled, 1, ending=COMPLETED),
        an_append(ended, 2),
        an_append(busy, 1, ending=COMPLETED),
    ]
    futures = [handed_in(store, append) for append in appends]
    refused = [store.begin_turn(a_turn(sessions[0])), store.create_session(sessions[1])]
    outcomes = await asyncio.gather(*refused, return_exceptions=True)
    assert [await future for future in futures] == [
        Appended.FENCED,
        Appended.WRITTEN,
        Appended.WRITTEN,
        Appended.CANCEL_FIRST,
        Appended.FENCED,
        Appended.WRITTEN,
    ]
    assert [type(outcome) for outcome in outcomes] == [SessionBusy, Conflict]
    assert (await store.read_events(plain.id, 0, bytes_max=1_000_000)).last_seq == 2
    assert len(await store.read_history(sessions[0].id)) == 2
    assert not (await store.get_session(TENANT, sessions[5].id)).busy


@_case
async def every_fence_holds_in_a_group(store: Store, clock: TurnableClock) -> None:
    turns = [await begin(store, await make_session(store, clock)) for _ in range(8)]
    for turn in turns:
        await write(store, turn, 1, 2)
    await end(store, turns[4], 3)
    wrong = [
        an_append(turns[0], 3, epoch=2),
        an_append(turns[1], 3, epoch=0),
        an_append(turns[2], 4),
        an_append(turns[3], 9, ending=COMPLETED),
        an_append(turns[4], 4),
        an_append(turns[5], 3, turn_id=new_response_id()),
    ]
    right = [an_append(turn, 3, 3) for turn in turns[6:]]

    results = await asyncio.gather(*(handed_in(store, append) for append in (right[0], *wrong, right[1])))
    assert results == [Appended.WRITTEN, *[Appended.FENCED] * 6, Appended.WRITTEN]
    for turn, last_seq in zip(turns, (2, 2, 2, 2, 3, 2, 5, 5), strict=True):
        page = await store.read_events(turn.id, 0, bytes_max=1_000_000)
        assert page.last_seq == last_seq
        assert len(frames_of(page)) == last_seq + 1


@_case
async def two_writers_of_one_turn_are_told_apart(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    (taken,) = await store.take_over("server-2", lease_s=LEASE_S, everything=True)

    results = await asyncio.gather(
        *(handed_in(store, append) for append in (an_append(turn, 1), an_append(taken, 1, 2), an_append(turn, 1)))
    )
    assert results == [Appended.FENCED, Appended.WRITTEN, Appended.FENCED]
    assert frames_of(await store.read_events(turn.id, 1, bytes_max=1)) == split_frames(deltas(1, 2))


@_case
async def usage_and_pending_calls_change_when_given(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)

    async def state() -> tuple[Usage, int]:
        kept = await store.get_turn(TENANT, session.id, turn.id)
        return kept.usage, kept.pending_calls

    assert await state() == (Usage(), 0)
    await write(store, turn, 1, usage=Usage(5, 6, 11, 1, 2, 1, 3))
    await write(store, turn, 2, pending_calls=2)
    assert await state() == (Usage(5, 6, 11, 1, 2, 1, 3), 2)
    await write(store, turn, 3, pending_calls=0)
    assert await state() == (Usage(5, 6, 11, 1, 2, 1, 3), 0)


# Ending


@_case
async def an_ending_is_one_with_the_freeing_of_the_session(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    for status in ("completed", "error", "cancelled"):
        turn = await begin(store, session)
        clock.turn(3)
        error = "It failed, try again." if status == "error" else None
        ending = Ending(status, Usage(1, 2, 3, 4, 5, 6, 7), b"[1]", error)
        await write(store, turn, 1, 2, ending=ending, history=(HistoryEntry("response", b"r", 3),))

        kept = await store.get_turn(TENANT, session.id, turn.id)
        assert (kept.status, kept.ended_at, kept.usage) == (status, clock.now(), ending.usage)
        assert (kept.content, kept.error, kept.last_seq) == (b"[1]", error, 2)
        page = await store.read_events(turn.id, 1, bytes_max=1_000_000)
        assert (page.last_seq, page.ended) == (2, True)
        assert not (await store.get_session(TENANT, session.id)).busy
        assert (await store.read_history(session.id))[-1] == HistoryEntry("response", b"r", 3, turn.id)


@_case
async def after_a_cancel_a_turn_ends_as_cancelled_only(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    asked = await store.request_cancel(TENANT, session.id, turn.id)
    assert (asked.cancel_requested, asked.status) == (True, "in_progress")

    await write(store, turn, 1)
    assert await appended(store, an_append(turn, 2, ending=COMPLETED)) is Appended.CANCEL_FIRST
    error = Ending("error", Usage(), b"[]", "It failed.")
    assert await appended(store, an_append(turn, 2, ending=error)) is Appended.CANCEL_FIRST
    assert (await store.get_turn(TENANT, session.id, turn.id)).last_seq == 1
    await end(store, turn, 2, CANCELLED)
    assert (await store.get_turn(TENANT, session.id, turn.id)).status == "cancelled"


@_case
async def a_cancel_after_the_ending_changes_nothing(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await a_finished_turn(store, session)

    kept = await store.request_cancel(TENANT, session.id, turn.id)
    assert (kept.status, kept.cancel_requested) == ("completed", False)
    assert await store.get_turn(TENANT, session.id, turn.id) == kept


@_case
async def cancel_and_completion_race_to_one_answer(store: Store, clock: TurnableClock) -> None:
    for _ in range(20):
        session = await make_session(store, clock)
        turn = await begin(store, session)
        ended = handed_in(store, an_append(turn, 1, ending=COMPLETED))
        asked = await store.request_cancel(TENANT, session.id, turn.id)
        result = await ended

        kept = await store.get_turn(TENANT, session.id, turn.id)
        if asked.status == "completed":
            assert (result, kept.status) == (Appended.WRITTEN, "completed")
        else:
            assert (result, kept.status) == (Appended.CANCEL_FIRST, "in_progress")
            await end(store, turn, 1, CANCELLED)


# Turns


@_case
async def turns_are_listed_in_the_order_in_which_they_began(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    made: list[str] = []
    for i in range(5):
        made.append((await a_finished_turn(store, session)).id)
        await a_finished_turn(store, other)
        clock.turn(1.0 if i % 2 else 0.0)

    async def walk(newest_first: bool) -> list[str]:
        seen: list[str] = []
        while page := await store.list_turns(
            TENANT, session.id, after=seen[-1] if seen else None, limit=2, newest_first=newest_first
        ):
            seen += [turn.id for turn in page]
        return seen

    assert await walk(newest_first=False) == made
    assert await walk(newest_first=True) == made[::-1]
    assert [turn.id for turn in await store.list_turns(TENANT, session.id)] == made[::-1]
    with raises(InvalidRequest):
        await store.list_turns(TENANT, session.id, after=new_response_id())


# Calls that wait for their caller


async def _requested(store: Store, clock: TurnableClock, *call_ids: str) -> tuple[Session, Turn]:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    requests = tuple(CallRequest(id_, "tool", clock.now() + 600) for id_ in call_ids)
    await write(store, turn, 1, requests=requests)
    return session, turn


@_case
async def answers_are_kept_all_or_none(store: Store, clock: TurnableClock) -> None:
    session, turn = await _requested(store, clock, "call_a", "call_b")
    a, b = CallAnswer("call_a", "tool", b"1"), CallAnswer("call_b", "tool", b"2")

    with raises(NotFound):
        await store.answer_calls(TENANT, session.id, [a, CallAnswer("call_c", "tool", b"3")])
    assert await store.call_answers(turn.id) == {"call_a": None, "call_b": None}
    assert await store.answer_calls(TENANT, session.id, [b]) == [turn.id]
    assert await store.answer_calls(TENANT, session.id, [a, b]) == [turn.id]
    assert await store.call_answers(turn.id) == {"call_a": a, "call_b": b}
    with raises(NotFound):
        await store.answer_calls("others", session.id, [a])
    with raises(NotFound):
        await store.answer_calls(TENANT, (await make_session(store, clock)).id, [a])


@_case
async def another_answer_is_a_conflict_and_one_of_the_other_kind_is_none_at_all(
    store: Store, clock: TurnableClock
) -> None:
    session, _ = await _requested(store, clock, "call_a")
    await store.answer_calls(TENANT, session.id, [CallAnswer("call_a", "tool", b"1")])

    with raises(Conflict):
        await store.answer_calls(TENANT, session.id, [CallAnswer("call_a", "tool", b"2")])
    with raises(InvalidRequest):
        await store.answer_calls(TENANT, session.id, [CallAnswer("call_a", "approval", b"1")])


@_case
async def a_call_that_was_given_up_takes_no_answer_and_one_that_was_answered_is_not_given_up(
    store: Store, clock: TurnableClock
) -> None:
    session, turn = await _requested(store, clock, "call_a", "call_b")
    a, b = CallAnswer("call_a", "tool", b"1"), CallAnswer("call_b", "tool", b"2")
    await store.answer_calls(TENANT, session.id, [a])

    assert await store.give_up_calls(turn.id, ["call_a", "call_b"]) == {"call_a": a}
    with raises(Conflict):
        await store.answer_calls(TENANT, session.id, [b])
    assert await store.answer_calls(TENANT, session.id, [a]) == [turn.id]
    assert await store.call_answers(turn.id) == {"call_a": a, "call_b": None}


@_case
async def when_the_turn_has_ended_only_the_same_answer_is_taken(store: Store, clock: TurnableClock) -> None:
    session, turn = await _requested(store, clock, "call_a", "call_b")
    a, b = CallAnswer("call_a", "tool", b"1"), CallAnswer("call_b", "tool", b"2")
    await store.answer_calls(TENANT, session.id, [a])
    await end(store, turn, 2)

    assert await store.answer_calls(TENANT, session.id, [a]) == []
    with raises(Conflict):
        await store.answer_calls(TENANT, session.id, [b])


# Leases


@_case
async def leases_that_run_out_are_taken_over(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    turn = await begin(store, session, lease_s=10)
    long = await begin(store, other, lease_s=100)

    clock.turn(9)
    assert await store.take_over("server-2", lease_s=10) == []
    clock.turn(1)
    (taken,) = await store.take_over("server-2", lease_s=10)
    assert (taken.id, taken.epoch, taken.recoveries, taken.message) == (turn.id, 2, 1, turn.message)
    assert taken == await store.get_turn(TENANT, session.id, turn.id)
    assert await store.take_over("server-3", lease_s=10) == []
    clock.turn(10)
    (taken,) = await store.take_over("server-3", lease_s=200)
    assert (taken.epoch, taken.recoveries) == (3, 2)
    assert (await store.get_turn(TENANT, other.id, long.id)).epoch == 1


@_case
async def everything_that_runs_can_be_taken_over(store: Store, clock: TurnableClock) -> None:
    sessions = [await make_session(store, clock) for _ in range(4)]
    running = [await begin(store, session) for session in sessions[:3]]
    await a_finished_turn(store, sessions[3])

    taken = await store.take_over("server-2", lease_s=10, everything=True)
    assert {turn.id for turn in taken} == {turn.id for turn in running}
    assert {turn.epoch for turn in taken} == {2}


@_case
async def released_turns_can_be_taken_up_at_once_and_it_is_no_recovery(store: Store, clock: TurnableClock) -> None:
    kept = await begin(store, await make_session(store, clock))
    released = await begin(store, await make_session(store, clock))

    await store.release_turns("another server", [kept.id])
    await store.release_turns(OWNER, [released.id])
    taken = await store.take_over("server-2", lease_s=LEASE_S)

    assert [(turn.id, turn.epoch, turn.recoveries) for turn in taken] == [(released.id, 2, 0)]


@_case
async def renewed_leases_last_and_lost_ones_are_named(store: Store, clock: TurnableClock) -> None:
    sessions = [await make_session(store, clock) for _ in range(4)]
    kept, lost, ended, lapsed = [await begin(store, session, lease_s=10) for session in sessions]
    await end(store, ended)
    clock.turn(9)
    assert await store.renew_leases(OWNER, [kept.id], lease_s=10) == set()
    assert await store.renew_leases("server-2", [lost.id], lease_s=10) == {lost.id}
    clock.turn(1)
    assert await store.renew_leases(OWNER, [lapsed.id], lease_s=10) == set()

    assert [turn.id for turn in await store.take_over("server-2", lease_s=10)] == [lost.id]
    everything = [kept.id, lost.id, ended.id, lapsed.id, "msg_unknown"]
    assert await store.renew_leases(OWNER, everything, lease_s=10) == {lost.id, ended.id, "msg_unknown"}
    assert await store.renew_leases("server-2", [lost.id], lease_s=10) == set()
    assert await store.renew_leases(OWNER, [], lease_s=10) == set()


@_case
async def many_leases_are_renewed_at_once(store: Store, clock: TurnableClock) -> None:
    sessions = [await make_session(store, clock) for _ in range(300)]
    turns = [await begin(store, session, lease_s=10) for session in sessions]
    clock.turn(9)

    assert await store.renew_leases(OWNER, [turn.id for turn in turns], lease_s=10) == set()
    clock.turn(9)
    assert await store.take_over("server-2", lease_s=10) == []


@_case
async def cancel_requests_go_to_the_owner_of_the_turn(store: Store, clock: TurnableClock) -> None:
    sessions = [await make_session(store, clock) for _ in range(3)]
    first, second, _ = [await begin(store, session) for session in sessions]
    await begin(store, await make_session(store, clock), owner="server-2")

    assert await store.cancel_requests(OWNER) == []
    for turn in (first, second, second):
        await store.request_cancel(TENANT, turn.session_id, turn.id)
    assert set(await store.cancel_requests(OWNER)) == {first.id, second.id}
    assert await store.cancel_requests("server-2") == []
    await end(store, first, 1, CANCELLED)
    assert await store.cancel_requests(OWNER) == [second.id]
    await store.take_over("server-2", lease_s=1, everything=True)
    assert await store.cancel_requests("server-2") == [second.id]
    assert await store.cancel_requests(OWNER) == []


# Reading


@_case
async def a_page_is_whole_segments_until_its_bytes_are_reached(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    for i in range(10):
        await write(store, turn, 1 + 3 * i, 3)
    size = len(deltas(1, 3))

    for bytes_max in (1, size, 2 * size, 5 * size, 1_000_000):
        seen: list[bytes] = []
        next_seq = 1
        while next_seq <= 30:
            page = await store.read_events(turn.id, next_seq, bytes_max=bytes_max)
            assert (page.last_seq, page.ended) == (30, False)
            sizes = [len(segment.frames) for segment in page.segments]
            assert sum(sizes[:-1]) < bytes_max
            assert page.segments[0].first_seq <= next_seq
            assert sum(sizes) >= bytes_max or page.segments[-1].last_seq == 30
            seen += frames_of(page)
            next_seq = page.segments[-1].last_seq + 1
        assert seen == split_frames(deltas(1, 30))


@_case
async def reading_may_begin_in_the_middle_of_a_segment(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    await write(store, turn, 1, 10)

    for seq in range(1, 11):
        page = await store.read_events(turn.id, seq, bytes_max=1)
        (segment,) = page.segments
        assert segment.first_seq <= seq <= segment.last_seq
        frame = split_frames(segment.frames)[seq - segment.first_seq]
        assert frame == deltas(seq, 1)


@_case
async def reading_behind_the_last_event_gives_an_empty_page(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))
    await write(store, turn, 1)

    assert await store.read_events(turn.id, 2, bytes_max=1) == Page([], 1, False)
    assert await store.read_events(turn.id, 2_000, bytes_max=1) == Page([], 1, False)
    await end(store, turn, 2)
    assert await store.read_events(turn.id, 3, bytes_max=1) == Page([], 2, True)


@_case
async def what_done_has_acknowledged_can_be_read(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))

    for seq in range(1, 30):
        await write(store, turn, seq)
        assert (await store.read_events(turn.id, seq, bytes_max=1)).last_seq == seq


@_case
async def readers_see_a_prefix_while_it_grows(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))

    async def follow() -> list[bytes]:
        seen: list[bytes] = []
        while True:
            page = await store.read_events(turn.id, len(seen), bytes_max=100)
            seen += frames_of(page)
            if page.ended and len(seen) > page.last_seq:
                return seen

    followers = [asyncio.create_task(follow()) for _ in range(3)]
    for i in range(20):
        await write(store, turn, 1 + 2 * i, 2)
    await end(store, turn, 41)
    for follower in followers:
        assert (await asyncio.wait_for(follower, 20))[1:] == split_frames(deltas(1, 41))


@_case
async def history_is_read_oldest_first_over_turns(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    expected: list[HistoryEntry] = []
    for i in range(3):
        turn = await begin(store, session, history=HistoryEntry("prompt", b"p%d" % i, 2))
        await begin(store, other) if i == 0 else None
        call = (HistoryEntry("response", b"r%d" % i), HistoryEntry("return", b"x%d" % i))
        await write(store, turn, 1, history=call)
        await write(store, turn, 2, ending=COMPLETED, history=(HistoryEntry("response", b"\x00\xff"),))
        expected += [
            HistoryEntry("prompt", b"p%d" % i, 2, turn.id),
            HistoryEntry("response", b"r%d" % i, 1, turn.id),
            HistoryEntry("return", b"x%d" % i, 1, turn.id),
            HistoryEntry("response", b"\x00\xff", 1, turn.id),
        ]

    assert await store.read_history(session.id) == expected
    assert len(await store.read_history(other.id)) == 1


@_case
async def a_fenced_append_leaves_no_history(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    entry = (HistoryEntry("response", b"r"),)

    await appended(store, an_append(turn, 5, history=entry, pending_calls=3, usage=Usage(9)))
    assert len(await store.read_history(session.id)) == 1
    assert await store.get_turn(TENANT, session.id, turn.id) == turn


A_SUMMARY = HistoryEntry("summary", b"s", 1, upto=2)


@_case
async def a_summary_stands_for_the_entries_before_it(store: Store, clock: TurnableClock) -> None:
    session, other = await make_session(store, clock), await make_session(store, clock)
    turn, beside = await begin(store, session), await begin(store, other)
    await write(store, turn, 1, history=(HistoryEntry("response", b"r"), HistoryEntry("return", b"x")))

    assert await store.keep_summary(turn.id, turn.epoch, A_SUMMARY, Usage(7, requests=1))
    expected = [
        HistoryEntry("summary", b"s", 1, turn.id, 2),
        HistoryEntry("return", b"x", 1, turn.id),
    ]
    assert await store.read_history(session.id) == expected
    await write(store, turn, 2, history=(HistoryEntry("response", b"r2"),))
    assert await store.read_history(session.id) == [*expected, HistoryEntry("response", b"r2", 1, turn.id)]
    assert (await store.get_turn(TENANT, session.id, turn.id)).usage == Usage(7, requests=1)
    assert len(await store.read_history(other.id)) == 1
    await end(store, beside, 1)


@_case
async def the_latest_summary_counts_and_is_not_counted(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    await store.keep_summary(turn.id, turn.epoch, HistoryEntry("summary", b"first", upto=1), Usage())
    await write(store, turn, 1, history=(HistoryEntry("response", b"r"), HistoryEntry("return", b"x")))

    await store.keep_summary(turn.id, turn.epoch, A_SUMMARY, Usage())
    await end(store, turn, 2)
    following = await begin(store, session)

    assert await store.read_history(session.id) == [
        HistoryEntry("summary", b"s", 1, turn.id, 2),
        HistoryEntry("return", b"x", 1, turn.id),
        HistoryEntry("prompt", b"hi", 1, following.id),
    ]


@_case
async def a_summary_is_fenced(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    turn = await begin(store, session)
    [taken] = await store.take_over(OWNER, lease_s=LEASE_S, everything=True)

    assert not await store.keep_summary(turn.id, turn.epoch, A_SUMMARY, Usage(7))
    assert not await store.keep_summary("msg_000000000000000000000000", 1, A_SUMMARY, Usage(7))
    assert (await store.get_turn(TENANT, session.id, turn.id)).usage == Usage()
    await end(store, taken, 1)
    assert not await store.keep_summary(turn.id, taken.epoch, A_SUMMARY, Usage(7))
    assert (await store.get_turn(TENANT, session.id, turn.id)).usage == COMPLETED.usage
    assert [entry.kind for entry in await store.read_history(session.id)] == ["prompt"]


# Retention


@_case
async def dropped_events_are_gone_and_the_conversation_stays(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    old = await a_finished_turn(store, session, 5)
    clock.turn(100)
    new = await a_finished_turn(store, session, 5)
    running = await begin(store, session)

    assert await store.drop_events(ended_before=clock.now(), limit=10) == 1
    with raises(NotFound):
        await store.read_events(old.id, 0, bytes_max=1)
    with raises(NotFound):
        await store.read_events(old.id, 100, bytes_max=1)
    kept = await store.get_turn(TENANT, session.id, old.id)
    assert (kept.content, kept.last_seq) == (COMPLETED.content, 5)
    assert len(await store.read_history(session.id)) == 3
    assert len(frames_of(await store.read_events(new.id, 0, bytes_max=1_000_000))) == 6
    assert await store.drop_events(ended_before=clock.now(), limit=10) == 0
    clock.turn(1_000)
    assert await store.drop_events(ended_before=clock.now(), limit=10) == 1
    await write(store, running, 1)
    assert len(frames_of(await store.read_events(running.id, 0, bytes_max=1_000_000))) == 2


@_case
async def dropping_takes_at_most_its_limit_of_turns(store: Store, clock: TurnableClock) -> None:
    session = await make_session(store, clock)
    for _ in range(5):
        await a_finished_turn(store, session)
    clock.turn(1)

    assert [await store.drop_events(ended_before=clock.now(), limit=2) for _ in range(4)] == [2, 2, 1, 0]


# Access keys


@_case
async def access_keys_are_kept_found_and_removed(store: Store, clock: TurnableClock) -> None:
    first = Key(b"\x00\xff1", TENANT, "laptop", clock.now())
    second = Key(b"\x00\xff2", "t\ud800", "n\ud800", clock.now() + 1)
    await store.add_key(second)
    await store.add_key(first)

    assert await store.find_key(first.digest) == first
    assert await store.find_key(second.digest) == second
    assert await store.find_key(b"other") is None
    assert await store.list_keys() == [first, second]
    with raises(Conflict):
        await store.add_key(Key(first.digest, "other", "x", clock.now()))
    assert await store.remove_key(first.digest)
    assert not await store.remove_key(first.digest)
    assert await store.find_key(first.digest) is None
    assert await store.list_keys() == [second]


# Closing


@_case
async def a_secret_is_made_once(store: Store, clock: TurnableClock) -> None:
    first = await store.secret("tickets")

    assert len(first) == 32
    assert await store.secret("tickets") == first
    assert await store.secret("others") != first


@_case
async def closing_finishes_what_is_under_way(store: Store, clock: TurnableClock) -> None:
    turn = await begin(store, await make_session(store, clock))

    written = handed_in(store, an_append(turn, 1))
    await store.close()
    assert await asyncio.wait_for(written, 5) is Appended.WRITTEN
    refused = await asyncio.wait_for(handed_in(store, an_append(turn, 2)), 5)
    assert isinstance(refused, Exception)
