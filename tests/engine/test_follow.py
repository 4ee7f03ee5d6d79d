"""The one reader: history from the log, then the live tail, through one gate."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwire.engine.follow import Follower, Tail
from turnwire.engine.limits import TAIL_BYTES_MAX
from turnwire.protocol.codec import number
from turnwire.seams.store import Page, Segment
from turnwire.testing.virtual_time import run


def frame(seq: int, size: int = 0) -> bytes:
    return b'event: text.delta\ndata: {"content":"' + (f"{seq}".encode() + b"x" * size) + b'"}\n\n'


class Log:
    """A store's `read_events`, over segments; reading takes `delay_s`."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.segments: list[Segment] = []
        self.ended = False
        self.reads = 0
        self.delay_s = delay_s

    def write(self, count: int, size: int = 0) -> Segment:
        first = self.segments[-1].last_seq + 1 if self.segments else 0
        frames = b"".join(frame(seq, size) for seq in range(first, first + count))
        self.segments.append(Segment(first, first + count - 1, frames))
        return self.segments[-1]

    @property
    def all(self) -> bytes:
        return b"".join(segment.frames for segment in self.segments)

    async def read_events(self, turn_id: str, first_seq: int, *, bytes_max: int) -> Page:
        self.reads += 1
        segments, ended = list(self.segments), self.ended
        await asyncio.sleep(self.delay_s)
        page: list[Segment] = []
        for segment in segments:
            if segment.last_seq >= first_seq and sum(len(s.frames) for s in page) < bytes_max:
                page.append(segment)
        return Page(page, segments[-1].last_seq, ended)


def follower(log: Log, tail: Tail | None, first: int = 0, *, numbered: bool = False) -> Follower:
    return Follower(log, "msg_1", lambda: tail, first, numbered=numbered)  # type: ignore[arg-type]


async def read(follower: Follower) -> bytes:
    return b"".join([data async for data in follower])


@pytest.mark.parametrize("first", [0, 1, 4, 5, 9])
@pytest.mark.parametrize("numbered", [False, True])
def test_a_finished_turn_is_read_from_any_number_on(first: int, numbered: bool) -> None:
    log = Log()
    for count in (1, 4, 5):
        log.write(count)
    log.ended = True
    reader = follower(log, None, first, numbered=numbered)

    data = run(read(reader))
    plain = b"".join(frame(seq) for seq in range(first, 10))
    assert data == (number(plain, first) if numbered else plain)
    assert not reader.cut_off


def test_a_turn_that_runs_elsewhere_is_followed_in_its_log_to_its_end() -> None:
    async def story() -> None:
        log = Log()
        log.write(3)
        reader = follower(log, None)
        task = asyncio.ensure_future(read(reader))
        await asyncio.sleep(3)
        log.write(2)
        await asyncio.sleep(3)
        assert not task.done()
        log.write(1)
        log.ended = True
        assert await task == log.all
        assert not reader.cut_off

    run(story())


def test_a_follower_that_keeps_up_never_reads_the_log() -> None:
    async def story() -> None:
        log, tail = Log(), Tail(-1)
        reader = follower(log, tail)
        task = asyncio.ensure_future(read(reader))
        for n in range(20):
            await asyncio.sleep(0.1)
            segment = log.write(n % 3 + 1)
            tail.publish(segment.first_seq, segment.frames, ended=n == 19)
        assert await task == log.all
        assert log.reads == 0 and not reader.cut_off

    run(story())


def test_memory_holds_no_more_than_its_bound_and_the_rest_is_read_from_the_log() -> None:
    async def story() -> None:
        log, tail = Log(), Tail(-1)
        for n in range(20):
            segment = log.write(1, TAIL_BYTES_MAX // 4)
            tail.publish(segment.first_seq, segment.frames, ended=n == 19)
        assert tail.find(0) is None and tail.find(19) is not None
        assert await read(follower(log, tail)) == log.all
        assert log.reads > 0

    run(story())


def test_a_cut_tail_ends_its_followers_without_an_ending() -> None:
    async def story() -> None:
        log, tail = Log(), Tail(-1)
        reader = follower(log, tail)
        task = asyncio.ensure_future(read(reader))
        segment = log.write(2)
        tail.publish(segment.first_seq, segment.frames, ended=False)
        await asyncio.sleep(1)
        tail.cut()
        assert await task == log.all
        assert reader.cut_off

    run(story())


def test_a_nudge_gives_nothing_once_and_only_while_it_waits() -> None:
    async def story() -> None:
        log, tail = Log(), Tail(-1)
        reader = follower(log, tail)
        reader.nudge()

        async def take() -> list[bytes]:
            return [data async for data in reader]

        task = asyncio.ensure_future(take())
        await asyncio.sleep(1)
        reader.nudge()
        reader.nudge()
        await asyncio.sleep(1)
        segment = log.write(1)
        tail.publish(segment.first_seq, segment.frames, ended=True)
        assert await task == [b"", log.all]

    run(story())


Story = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.0, 0.01, 0.5])), min_size=1, max_size=15)


@settings(max_examples=60, deadline=None)
@given(Story, st.integers(0, 40), st.sampled_from([0.0, 0.02, 0.7]), st.sampled_from([0.0, 0.05]), st.booleans())
def test_slow_or_late_a_follower_gets_each_event_once(
    story: Sequence[tuple[int, float]], first: int, pause_s: float, delay_s: float, numbered: bool
) -> None:
    size = TAIL_BYTES_MAX // 6  # so that a follower that is late finds its events gone from memory

    async def follow() -> None:
        log, tail = Log(delay_s), Tail(-1)
        total = sum(count for count, _ in story)
        start = min(first, total - 1)
        reader = follower(log, tail, start, numbered=numbered)
        got: list[bytes] = []

        async def take() -> None:
            async for data in reader:
                got.append(data)
                await asyncio.sleep(pause_s)

        task = asyncio.ensure_future(take())
        for n, (count, wait_s) in enumerate(story):
            segment = log.write(count, size)
            log.ended = n == len(story) - 1
            tail.publish(segment.first_seq, segment.frames, ended=log.ended)
            await asyncio.sleep(wait_s)
        await task
        plain = b"".join(frame(seq, size) for seq in range(start, total))
        assert b"".join(got) == (number(plain, start) if numbered else plain)
        assert not reader.cut_off

    run(follow())
