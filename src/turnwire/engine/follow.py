"""The one reader of a turn: history from the log, then the live tail, from any sequence number, once and in order.

A turn that runs here has a `Tail`: the newest committed bytes, in memory. A follower that has caught up takes them
from there and never asks the database; one that has fallen behind reads the log at its own pace, a page at a time.
There is no queue to a follower. Both ways lead through one gate, "does it begin with what I expect next?", so that a
read that was under way while the tail moved on can double nothing and skip nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from turnwire.engine.limits import PAGE_BYTES_MAX, REMOTE_POLL_S, TAIL_BYTES_MAX
from turnwire.protocol.codec import number, skip_frames
from turnwire.seams.store import Store


class Chunk:
    """Consecutive committed events, and on demand their numbered form, made once for all followers."""

    __slots__ = ("_numbered", "first_seq", "frames", "last_seq")

    def __init__(self, first_seq: int, last_seq: int, frames: bytes) -> None:
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.frames = frames
        self._numbered: bytes | None = None

    def render(self, next_seq: int, *, numbered: bool) -> bytes:
        """The events from `next_seq` on."""
        assert self.first_seq <= next_seq <= self.last_seq
        if next_seq > self.first_seq:
            rest = skip_frames(self.frames, next_seq - self.first_seq)
            return number(rest, next_seq) if numbered else rest
        if not numbered:
            return self.frames
        if self._numbered is None:
            self._numbered = number(self.frames, self.first_seq)
        return self._numbered


class Tail:
    """The end of a running turn: its newest committed events, and whoever waits for more."""

    def __init__(self, last_seq: int = -1) -> None:
        self.last_seq = last_seq
        self.ended = False
        """The terminal event is committed."""
        self.closed = False
        """Nothing more comes from here: the turn has ended, or it was cut off (another holds it, the server stops)."""
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def publish(self, first_seq: int, frames: bytes, *, ended: bool) -> None:
        """Events that are durable: the followers may have them."""
        assert first_seq == self.last_seq + 1
        self.last_seq += frames.count(b"\n\n")
        self.keep(first_seq, frames)
        if ended:
            self.ended = self.closed = True
        self._wake()

    def keep(self, first_seq: int, frames: bytes) -> None:
        """Keep the newest events, up to `last_seq`, in memory."""
        self._chunks.append(Chunk(first_seq, self.last_seq, frames))
        self._size += len(frames)
        while self._size > TAIL_BYTES_MAX and len(self._chunks) > 1:
            self._size -= len(self._chunks.popleft().frames)

    def cut(self) -> None:
        """End the followers here, without an ending."""
        self.closed = True
        self._wake()

    def find(self, seq: int) -> Chunk | None:
        """The chunk that holds the event `seq`, if it is still in memory. The newest is looked at first."""
        for chunk in reversed(self._chunks):
            if chunk.first_seq <= seq:
                return chunk if seq <= chunk.last_seq else None
        return None

    def wait(self) -> asyncio.Future[None]:
        """A future that is done when there is more, or `closed`; handed back by `forget()`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        self._waiters.discard(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Follower:
    """Follows one turn from `next_seq` on, wherever it runs.

    Iterating gives bytes that are ready to be sent, or b"" when `nudge()` was called while nothing came; it ends
    after the terminal event, or when the turn's tail here was cut off (`cut_off` tells).
    """

    def __init__(
        self, store: Store, turn_id: str, find_tail: Callable[[], Tail | None], next_seq: int, *, numbered: bool
    ) -> None:
        """`find_tail`: the turn's tail while it runs here, else None."""
        self.next_seq = next_seq
        self.numbered = numbered
        self.cut_off = False
        self._store = store
        self._turn_id = turn_id
        self._find_tail = find_tail
        self._log_ended = False
        self._waiter: asyncio.Future[None] | None = None

    def nudge(self) -> None:
        """Make a follower that waits give b"": somebody wants to send a heartbeat."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        tail = self._find_tail()
        while tail is None:
            # It has ended, or it runs elsewhere: the log is all there is, and is looked at again and again.
            async for data in self._read_log(None):
                yield data
            if self._log_ended:
                return
            await self._wait_for_others()
            yield b""
            tail = self._find_tail()
        while True:
            chunk = tail.find(self.next_seq)
            if chunk is not None:
                yield self._take(chunk)
            elif self.next_seq <= tail.last_seq:
                async for data in self._read_log(tail.last_seq):
                    yield data
            elif tail.closed:
                self.cut_off = not tail.ended
                return
            else:
                await self._wait_for(tail)
                if self.next_seq > tail.last_seq and not tail.closed:
                    yield b""

    async def _wait_for(self, tail: Tail) -> None:
        self._waiter = tail.wait()
        try:
            await self._waiter
        finally:
            tail.forget(self._waiter)
            self._waiter = None

    async def _wait_for_others(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(REMOTE_POLL_S):
                await self._waiter
        self._waiter = None

    def _take(self, chunk: Chunk) -> bytes:
        data = chunk.render(self.next_seq, numbered=self.numbered)
        self.next_seq = chunk.last_seq + 1
        return data

    async def _read_log(self, until: int | None) -> AsyncGenerator[bytes]:
        """Pages of the log up to `until`, or up to what is there now."""
        while True:
            page = await self._store.read_events(self._turn_id, self.next_seq, bytes_max=PAGE_BYTES_MAX)
            self._log_ended = page.ended
            if page.segments and page.segments[-1].last_seq >= self.next_seq:
                frames = b"".join([segment.frames for segment in page.segments])
                yield self._take(Chunk(page.segments[0].first_seq, page.segments[-1].last_seq, frames))
            if self.next_seq > (page.last_seq if until is None else until):
                return
