"""Running turns. A turn is a task of the supervisor, not of anybody's connection, and ends here, whatever happens.

Every way out of the loop leads through `_end()`: one transaction closes the open block, answers the open calls, leaves
a history that every provider accepts, and writes the one terminal event, which frees the session.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import structlog

from turnwire.engine.agent import Agent
from turnwire.engine.asking import Asking
from turnwire.engine.calls import NOT_RUN, STOPPED, Result
from turnwire.engine.context import History, note_entry, return_entry
from turnwire.engine.follow import Follower, Tail
from turnwire.engine.limits import ERROR_CHARS_MAX, STORE_RETRY_DELAY_MAX_S, STORE_RETRY_DELAY_S
from turnwire.engine.places import Places
from turnwire.engine.recorder import Recorder, TurnLost
from turnwire.engine.trouble import TurnFailed
from turnwire.protocol.events import (
    Event,
    MessageCancelled,
    MessageCompleted,
    MessageError,
    Terminal,
    ToolResult,
    ToolUseExecuting,
)
from turnwire.protocol.grammar import Grammar
from turnwire.protocol.transcript import Transcript
from turnwire.seams.store import HistoryEntry, Store, StoreUnavailable, Turn

log = structlog.get_logger(__name__)

CANCELLED_NOTE = "The user stopped this turn here."


class Running:
    """A turn that runs here."""

    def __init__(self, store: Store, turn: Turn, events: Iterable[Event]) -> None:
        """`events`: those that are committed already."""
        self.turn = turn
        self._store = store
        grammar, transcript = Grammar(), Transcript()
        for event in events:
            grammar.check(event)
            transcript.add(event)
        self.tail = Tail(grammar.next_seq - 1)
        self.recorder = Recorder(store, turn, self.tail, grammar, transcript)
        self.history = History()
        self.asking: Asking | None = None
        """Where the turn waits for answers of its caller; None before it was made ready."""
        self.task: asyncio.Task[None] | None = None
        self.started = False
        """The task's first line has run: before it, cancelling a task is as if it had never been."""
        self.cancelled = False
        """Its caller wants it cancelled."""
        self.ending = False
        """It writes its ending: no longer to be interrupted."""

    def cancel(self) -> None:
        """Stop at once what it does, and end it as cancelled."""
        if not self.cancelled:
            self.cancelled = True
            if self.task is not None and self.started and not self.ending:
                self.task.cancel()

    async def load_history(self) -> None:
        """Read the session's history, once; however long the store can't give it, for without it no turn can end."""
        delay_s = STORE_RETRY_DELAY_S
        while not len(self.history):
            try:
                self.history = History(await self._store.read_history(self.turn.session_id))
            except StoreUnavailable:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, STORE_RETRY_DELAY_MAX_S)


Prepare = Callable[[Running], Awaitable[Agent]]
"""Makes what the turn is run with; what it raises ends the turn."""


class Supervisor:
    """The turns that run in this process."""

    def __init__(self, store: Store, places: Places, *, turn_timeout_s: float) -> None:
        self._store = store
        self._places = places
        self._turn_timeout_s = turn_timeout_s
        self._running: dict[str, Running] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def turn_ids(self) -> list[str]:
        return list(self._running)

    def get(self, turn_id: str) -> Running | None:
        return self._running.get(turn_id)

    def start(self, running: Running, prepare: Prepare, *, age_s: float = 0.0) -> None:
        """Make the turn a task of its own. `age_s`: how long ago it began; its time limit counts from there."""
        turn = running.turn
        self._running[turn.id] = running
        self._places.take(turn.tenant)
        self._idle.clear()
        limit_s = max(self._turn_timeout_s - age_s, 0.0)
        running.task = asyncio.create_task(self._run(running, prepare, limit_s), name=f"turn {turn.id}")
        running.task.add_done_callback(lambda _: self._forget(running))

    def follow(self, turn_id: str, next_seq: int, *, numbered: bool) -> Follower:
        """A follower of a turn, running here or not, from the event `next_seq` on."""

        def find_tail() -> Tail | None:
            running = self._running.get(turn_id)
            return None if running is None else running.tail

        return Follower(self._store, turn_id, find_tail, next_seq, numbered=numbered)

    async def drain(self, grace_s: float) -> list[str]:
        """Let running turns end for a grace time, then leave those that have not: their ids."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        left = self.turn_ids
        self.abandon()
        while self._running:
            await self._idle.wait()
        return left

    def abandon(self) -> None:
        """Leave all running turns as they are, now. Their followers are cut off, without an ending."""
        for turn_id in self.turn_ids:
            self.drop(turn_id)

    def drop(self, turn_id: str) -> None:
        """Leave one turn as it is, now: it is somebody else's, or will be."""
        running = self._running.get(turn_id)
        if running is not None:
            running.tail.cut()
            if running.task is not None:
                running.task.cancel()

    def _forget(self, running: Running) -> None:
        if self._running.get(running.turn.id) is running:
            del self._running[running.turn.id]
        self._places.give_back(running.turn.tenant)
        running.tail.cut()
        if not self._running:
            self._idle.set()

    async def _run(self, running: Running, prepare: Prepare, limit_s: float) -> None:
        scope = asyncio.timeout(limit_s)
        terminal: Terminal
        turn_id = running.turn.id
        running.started = True
        try:
            if running.cancelled:
                raise asyncio.CancelledError
            async with scope:
                agent = await prepare(running)
                await agent.run()
            terminal = MessageCompleted(turn_id, usage=running.recorder.usage)
        except asyncio.CancelledError:
            if not running.cancelled:
                raise  # the server stops: the turn is left for its next start
            terminal = MessageCancelled(turn_id, usage=running.recorder.usage)
        except TurnLost:
            log.warning("turn_lost", response_id=turn_id)
            return
        except Exception as exc:
            terminal = MessageError(turn_id, _sentence(exc, scope.expired(), turn_id, self._turn_timeout_s))
        await self._end(running, terminal)

    async def _end(self, running: Running, terminal: Terminal) -> None:
        """Close what is open, leave a history that can be gone on with, and end the turn.

        The results of open calls and the ending may be two transactions: a death between them leaves a turn that can
        be taken up, since each result brings its return along.
        """
        running.ending = True
        try:
            await running.load_history()
        except Exception:
            # The turn ends all the same: its session must be free again.
            log.exception("history_unreadable", response_id=terminal.id)
        events, returns = _closing(running)
        try:
            running.recorder.record(events, history=returns)
            await running.recorder.end(terminal, _last_words(running, terminal))
            log.info("turn_ended", response_id=terminal.id, ending=terminal.type)
        except TurnLost:
            log.warning("turn_lost", response_id=terminal.id)


def _closing(running: Running) -> tuple[list[Event], list[HistoryEntry]]:
    """What closes the open block and the open calls, and the calls' returns."""
    grammar, history = running.recorder.grammar, running.history
    events = grammar.closing()
    entries: list[HistoryEntry] = []
    for id_, call in list(grammar.unanswered.items()):
        result = Result(STOPPED if isinstance(call, ToolUseExecuting) else NOT_RUN, is_error=True)
        events.append(ToolResult(id_, result.content, is_error=True))
        if id_ in history.open_calls:
            entry = return_entry(history.open_calls[id_], result.content, is_error=True)
            entries.append(entry)
            history.add(entry)
    return events, entries


def _last_words(running: Running, terminal: Terminal) -> list[HistoryEntry]:
    """What stands in the history for the answer that did not come."""
    history = running.history
    if not history.items or not history.awaits_model:
        return []
    partial = running.recorder.transcript.text_since(running.recorder.step_seq)
    return [note_entry(_note(terminal), partial)]


def _note(terminal: Terminal) -> str:
    match terminal:
        case MessageError(error=error):
            return f"This turn ended here with an error: {error}"
        case _:
            return CANCELLED_NOTE


def _sentence(exc: Exception, timed_out: bool, turn_id: str, limit_s: float) -> str:
    match exc:
        case TurnFailed():
            sentence = str(exc)
        case TimeoutError() if timed_out:
            sentence = f"The turn took longer than its limit of {limit_s:g} seconds: send another message to go on."
        case StoreUnavailable():
            sentence = (
                "The server could not store the answer (is its disk full, or its database away?): try again when that "
                "is mended."
            )
        case _:
            log.error("turn_failed", response_id=turn_id, exc_info=exc)
            sentence = f"The turn failed inside the server; its log has the details under {turn_id}. Try again."
    return " ".join(sentence.split())[:ERROR_CHARS_MAX]
