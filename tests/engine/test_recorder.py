"""The one writer: what is recorded is written once, in order, and shown when it is durable."""

import asyncio
from collections.abc import Callable

import pytest

from turnwire.engine.follow import Tail
from turnwire.engine.limits import PENDING_BYTES_MAX
from turnwire.engine.recorder import Recorder, TurnLost
from turnwire.protocol.codec import decode_frames, encode_frame
from turnwire.protocol.errors import LocalProtocolError
from turnwire.protocol.events import (
    MessageCancelled,
    MessageCompleted,
    MessageCreated,
    TextDelta,
    TextStart,
    TextStop,
    Usage,
)
from turnwire.protocol.grammar import Grammar
from turnwire.protocol.transcript import Transcript
from turnwire.seams.store import Append, AppendDone, Appended, StoreUnavailable, Turn
from turnwire.testing.virtual_time import run

TURN = Turn(
    id="msg_1", session_id="sess_1", tenant="acme", created_at=0.0, message_id="m_1", message=b"[]"
)  # fmt: skip


class Log:
    """A store's `append`: it keeps what it is handed, and answers when the test says so."""

    def __init__(self) -> None:
        self.appends: list[tuple[Append, AppendDone]] = []

    def append(self, append: Append, done: AppendDone) -> None:
        self.appends.append((append, done))

    def answer(self, result: Appended | Exception = Appended.WRITTEN) -> Append:
        """Answer the one append that is under way."""
        append, done = self.appends.pop(0)
        assert not self.appends, "one append at a time"
        done(result)
        return append


def recorder() -> tuple[Recorder, Log, Tail]:
    log, tail = Log(), Tail(0)
    grammar, transcript = Grammar(), Transcript()
    created = MessageCreated("msg_1", "sess_1")
    grammar.check(created)
    transcript.add(created)
    tail.keep(0, encode_frame(created))
    return Recorder(log, TURN, tail, grammar, transcript), log, tail  # type: ignore[arg-type]


def in_virtual_time(test: Callable[[], object]) -> Callable[[], None]:
    def test_in_virtual_time() -> None:
        run(test())  # type: ignore[arg-type]

    test_in_virtual_time.__doc__ = test.__doc__
    return test_in_virtual_time


@in_virtual_time
async def test_what_gathers_while_an_append_is_under_way_is_the_next() -> None:
    rec, log, _ = recorder()
    rec.record([TextStart(), TextDelta("a")])
    rec.record([TextDelta("b")])
    rec.record([TextDelta("c"), TextStop()])

    first, second = log.answer(), log.answer()
    assert (first.first_seq, first.last_seq) == (1, 2)
    assert (second.first_seq, second.last_seq) == (3, 5)
    assert decode_frames(first.frames + second.frames) == [
        TextStart(), TextDelta("a"), TextDelta("b"), TextDelta("c"), TextStop(),
    ]  # fmt: skip


@in_virtual_time
async def test_nothing_is_shown_before_it_is_durable() -> None:
    rec, log, tail = recorder()
    rec.record([TextStart()])
    assert tail.last_seq == 0

    log.answer()
    assert tail.last_seq == 1
    assert tail.find(1) is not None


@in_virtual_time
async def test_an_event_that_breaks_the_grammar_reaches_no_store() -> None:
    rec, log, _ = recorder()

    with pytest.raises(LocalProtocolError):
        rec.record([TextDelta("without a start")])
    assert log.appends == []


@in_virtual_time
async def test_a_store_that_is_unavailable_is_tried_again_with_the_same_append() -> None:
    rec, log, tail = recorder()
    rec.record([TextStart()])
    first = log.answer(StoreUnavailable("full"))
    with pytest.raises(StoreUnavailable):
        await rec.durable()
    with pytest.raises(StoreUnavailable):
        await rec.room()

    await asyncio.sleep(10)
    again = log.answer()
    assert (again.first_seq, again.frames) == (first.first_seq, first.frames)
    assert tail.last_seq == 1
    await rec.durable()


@in_virtual_time
async def test_a_fenced_writer_stops_and_its_followers_are_cut_off() -> None:
    rec, log, tail = recorder()
    rec.record([TextStart()])
    log.answer(Appended.FENCED)

    with pytest.raises(TurnLost):
        await rec.durable()
    assert tail.closed and not tail.ended and tail.last_seq == 0


@in_virtual_time
async def test_room_is_waited_for_when_too_much_is_pending() -> None:
    rec, log, _ = recorder()
    rec.record([TextStart()])
    rec.record([TextDelta("x" * PENDING_BYTES_MAX)])
    waiting = asyncio.ensure_future(rec.room())
    await asyncio.sleep(1)
    assert not waiting.done()

    log.answer()
    await asyncio.wait_for(waiting, 1)


@in_virtual_time
async def test_the_ending_carries_usage_and_content_in_its_own_append() -> None:
    rec, log, tail = recorder()
    rec.record([TextStart(), TextDelta("hi"), TextStop()], usage=Usage(input_tokens=3))
    ending = asyncio.ensure_future(rec.end(MessageCompleted("msg_1", usage=Usage(input_tokens=3))))
    await asyncio.sleep(0)
    log.answer()
    append = log.answer()
    await ending

    assert append.ending is not None and append.ending.status == "completed"
    assert append.ending.usage.input_tokens == 3
    assert append.ending.content == b'[{"type":"text","text":"hi"}]'
    assert tail.ended


@in_virtual_time
async def test_a_turn_that_is_to_be_cancelled_ends_as_cancelled() -> None:
    rec, log, tail = recorder()
    ending = asyncio.ensure_future(rec.end(MessageCompleted("msg_1", usage=Usage())))
    await asyncio.sleep(0)
    assert log.answer(Appended.CANCEL_FIRST).ending.status == "completed"  # type: ignore[union-attr]
    append = log.answer()
    await ending

    assert append.ending is not None and append.ending.status == "cancelled"
    assert decode_frames(append.frames) == [MessageCancelled("msg_1", usage=Usage())]
    assert tail.ended


@in_virtual_time
async def test_an_ending_waits_for_the_store_however_long() -> None:
    rec, log, _ = recorder()
    ending = asyncio.ensure_future(rec.end(MessageCompleted("msg_1", usage=Usage())))
    for _ in range(50):
        await asyncio.sleep(6)
        log.answer(StoreUnavailable("full"))
    await asyncio.sleep(6)
    assert not ending.done()

    log.answer()
    await ending
