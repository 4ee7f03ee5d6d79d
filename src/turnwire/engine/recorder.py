"""The one writer of a turn: what happens is checked, encoded once, committed, and only then shown.

`record()` returns at once. One append of a turn is under way at a time, and what is recorded meanwhile gathers into
the next: so the log is written in the order in which things happened, and a fast provider costs few commits.
"""

import asyncio
from collections.abc import Iterable, Sequence

from turnwire.engine.context import Compaction, summary_entry
from turnwire.engine.follow import Tail
from turnwire.engine.limits import PENDING_BYTES_MAX, STORE_RETRY_DELAY_MAX_S, STORE_RETRY_DELAY_S
from turnwire.protocol.codec import encode_frame, encode_frames, encode_json
from turnwire.protocol.events import (
    Event,
    MessageCancelled,
    MessageCompleted,
    MessageError,
    Terminal,
    Usage,
)
from turnwire.protocol.grammar import Grammar
from turnwire.protocol.transcript import Transcript
from turnwire.seams.store import Append, Appended, CallRequest, Ending, HistoryEntry, Store, StoreUnavailable, Turn


class TurnLost(Exception):
    """This turn is held by somebody else, or is gone: its holder must stop, and may write nothing more."""


class Recorder:
    """Writes the events of one turn. Lives on the event loop."""

    def __init__(self, store: Store, turn: Turn, tail: Tail, grammar: Grammar, transcript: Transcript) -> None:
        self.turn = turn
        self.grammar = grammar
        self.transcript = transcript
        self.usage = turn.usage
        """Of the turn so far."""
        self.step_seq = grammar.next_seq
        """The first event of the step that is under way; whoever makes the step sets it."""
        self._store = store
        self._tail = tail
        self._pending = _Batch(grammar.next_seq)
        self._in_flight: _Batch | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._trouble: Exception | None = None
        self._retry_delay_s = STORE_RETRY_DELAY_S

    @property
    def next_seq(self) -> int:
        """The number that the next event gets."""
        return self.grammar.next_seq

    def record(
        self,
        events: Sequence[Event],
        *,
        history: Iterable[HistoryEntry] = (),
        usage: Usage | None = None,
        requests: Iterable[CallRequest] = (),
    ) -> None:
        """Take events, and what must become durable in the same transaction. Returns before they are durable."""
        waiting = len(self.grammar.requested)
        batch = self._pending
        taken = 0
        try:
            for event in events:
                self.grammar.check(event)
                self.transcript.add(event)
                taken += 1
        finally:
            # All, but where a bug made one of them impossible: what the grammar has seen is what is written.
            batch.add(encode_frames(events[:taken]), taken)
        batch.history.extend(history)
        if usage is not None:
            self.usage = batch.usage = usage
        batch.requests.extend(requests)
        if len(self.grammar.requested) != waiting:
            batch.pending_calls = len(self.grammar.requested)
        if self._in_flight is None:
            self._hand_in()

    async def end(self, event: Terminal, history: Iterable[HistoryEntry] = ()) -> None:
        """Record the terminal event, and return when it is durable, however long the store can't take it.

        A turn that is to be cancelled ends as cancelled, whatever `event` says: the store sees to it.
        """
        self.grammar.check(event)
        self.transcript.add(event)
        batch = self._pending
        batch.terminal = event
        batch.add(b"", 1)
        batch.history.extend(history)
        batch.usage = self.usage
        batch.content = encode_json(self.transcript.content)
        if self._in_flight is None:
            self._hand_in()
        while not self._tail.ended:
            if self._trouble is not None and not isinstance(self._trouble, StoreUnavailable):
                raise self._trouble
            await self._wait()

    async def keep_summary(self, compaction: Compaction) -> None:
        """Make a summary of the history durable, with the usage so far, behind all that was recorded. Raises as
        `room()`, and `TurnLost`."""
        await self.durable()
        kept = await self._store.keep_summary(self.turn.id, self.turn.epoch, summary_entry(compaction), self.usage)
        if not kept:
            raise TurnLost(f"the turn {self.turn.id} is held under another epoch")

    async def room(self) -> None:
        """Return when less than PENDING_BYTES_MAX waits for its commit.

        `StoreUnavailable` when the store can't take it now: it is kept, and tried again.
        """
        while True:
            if self._trouble is not None:
                raise self._trouble
            if self._pending.size < PENDING_BYTES_MAX:
                return
            await self._wait()

    async def durable(self) -> None:
        """Return when all that was recorded is durable. Raises as `room()`."""
        while True:
            if self._trouble is not None:
                raise self._trouble
            if self._in_flight is None and not self._pending.count:
                return
            await self._wait()

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _hand_in(self) -> None:
        batch = self._pending
        if batch.count:
            self._in_flight = batch
            self._pending = _Batch(batch.first_seq + batch.count)
            self._store.append(batch.append(self.turn), self._on_appended)

    def _on_appended(self, result: Appended | Exception) -> None:
        batch = self._in_flight
        assert batch is not None
        match result:
            case Appended.WRITTEN:
                self._in_flight = None
                self._retry_delay_s = STORE_RETRY_DELAY_S
                if isinstance(self._trouble, StoreUnavailable):
                    self._trouble = None
                self._hand_in()
                self._tail.publish(batch.first_seq, batch.joined, ended=batch.terminal is not None)
            case Appended.FENCED:
                self._trouble = TurnLost(f"the turn {self.turn.id} is held under another epoch")
                self._tail.cut()
            case Appended.CANCEL_FIRST:
                assert batch.terminal is not None
                batch.terminal = MessageCancelled(self.turn.id, usage=batch.usage or Usage())
                self._store.append(batch.append(self.turn), self._on_appended)
            case StoreUnavailable():
                # Nothing was written: the batch is kept, and what gathers meanwhile stands behind it.
                self._trouble = result
                asyncio.get_running_loop().call_later(self._retry_delay_s, self._try_again)
                self._retry_delay_s = min(self._retry_delay_s * 2, STORE_RETRY_DELAY_MAX_S)
            case Exception():
                self._trouble = result
                self._tail.cut()
        self._wake()

    def _try_again(self) -> None:
        batch = self._in_flight
        if batch is not None and not self._tail.closed:
            self._store.append(batch.append(self.turn), self._on_appended)


class _Batch:
    """What gathers for one append."""

    __slots__ = (
        "content",
        "count",
        "first_seq",
        "frames",
        "history",
        "pending_calls",
        "requests",
        "size",
        "terminal",
        "usage",
    )

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.count = 0
        self.size = 0
        self.frames: list[bytes] = []
        self.history: list[HistoryEntry] = []
        self.usage: Usage | None = None
        self.pending_calls: int | None = None
        self.requests: list[CallRequest] = []
        self.terminal: Terminal | None = None
        self.content = b""

    def add(self, frames: bytes, count: int) -> None:
        self.frames.append(frames)
        self.size += len(frames)
        self.count += count

    @property
    def joined(self) -> bytes:
        """All frames as one, joined once for the store and the tail: what was handed in grows no more."""
        if len(self.frames) > 1:
            self.frames = [b"".join(self.frames)]
        frames = self.frames[0]
        return frames if self.terminal is None else frames + encode_frame(self.terminal)

    def append(self, turn: Turn) -> Append:
        return Append(
            session_id=turn.session_id,
            turn_id=turn.id,
            epoch=turn.epoch,
            first_seq=self.first_seq,
            last_seq=self.first_seq + self.count - 1,
            frames=self.joined,
            history=tuple(self.history),
            usage=self.usage,
            pending_calls=self.pending_calls,
            requests=tuple(self.requests),
            ending=self._ending(),
        )

    def _ending(self) -> Ending | None:
        usage = self.usage or Usage()
        match self.terminal:
            case None:
                return None
            case MessageCompleted():
                return Ending("completed", usage, self.content)
            case MessageCancelled():
                return Ending("cancelled", usage, self.content)
            case MessageError(error=error):
                return Ending("error", usage, self.content, error)
