"""What was read of a turn: its events in order, each once, folded. No I/O, and no steps."""

from collections.abc import Callable, Generator

from turnwire.client.errors import TurnCancelled, TurnFailed
from turnwire.client.records import Result
from turnwire.client.steps import Broken
from turnwire.client.wire import read_event
from turnwire.protocol.errors import RemoteProtocolError
from turnwire.protocol.events import (
    TERMINAL,
    Event,
    MessageCancelled,
    MessageCreated,
    Terminal,
    ToolCallAnswered,
    ToolCallRequested,
    ToolResult,
)
from turnwire.protocol.sse import ServerSentEvent, SSEDecoder
from turnwire.protocol.transcript import Transcript

SEQ_DIGITS_MAX = 15
"""Digits of a sequence number, as the server takes them."""


class Reading:
    """A turn as far as it was read. `can_answer` says which of the calls that wait are kept in `pending`."""

    def __init__(
        self, session_id: str, response_id: str | None, can_answer: Callable[[ToolCallRequested], bool]
    ) -> None:
        self._session_id, self._can_answer = session_id, can_answer
        self.transcript = Transcript()
        self.response_id = response_id
        self.last: Event | None = None
        self.ending: Terminal | None = None
        self.pending: dict[str, ToolCallRequested] = {}
        self._gaps = 0

    @property
    def seq(self) -> int:
        """The number of the last event; -1 before the first."""
        return self.transcript.next_seq - 1

    def so_far(self) -> Result:
        done = self.transcript
        return Result(self._session_id, self.response_id, done.status, done.content, done.usage)

    def result(self) -> Result:
        """The turn, folded. Raises what it ended with, if it did not complete."""
        done = self.so_far()
        if isinstance(self.ending, MessageCancelled):
            raise TurnCancelled("The turn was cancelled.", done)
        if self.transcript.error is not None:
            raise TurnFailed(self.transcript.error, done)
        return done

    def feed(self, decoder: SSEDecoder, chunk: bytes) -> Generator[Event, None, None]:
        """Yields the events that `chunk` completes, up to the ending. Broken when one was left out."""
        try:
            found = decoder.feed(chunk)
        except ValueError as exc:
            raise RemoteProtocolError(f"This is no stream of events: {exc}.") from exc
        for sse in found:
            event = self._take(sse)
            if event is not None:
                yield event
            if self.ending is not None:
                return

    def _take(self, sse: ServerSentEvent) -> Event | None:
        """Take the next event of the stream; None when it was had before, or is of a kind that is not known.

        An event without a number has that of its place.
        """
        expected = self.transcript.next_seq
        if sse.id.isascii() and sse.id.isdigit() and len(sse.id) <= SEQ_DIGITS_MAX:
            if int(sse.id) < expected:
                return None
            if int(sse.id) > expected:
                self._gaps += 1
                if self._gaps > 1:  # it was asked for, and left out again
                    raise RemoteProtocolError(f"The event {expected} is missing: the server went on with {sse.id}.")
                raise Broken(f"the event {expected} was left out", sent=True)
        event = read_event(sse.event, sse.data)
        self._gaps = 0
        if event is None:
            self.transcript.next_seq += 1
            return None
        self.note(event)
        return event

    def note(self, event: Event) -> None:
        """Fold an event in."""
        try:
            self.transcript.add(event)
        except IndexError as exc:
            raise RemoteProtocolError(f"{event.type} can't stand where the server sent it: no block is open.") from exc
        self.last = event
        match event:
            case MessageCreated(id=response_id):
                self.response_id = response_id
            case ToolCallRequested(id=id_) if self._can_answer(event):
                self.pending[id_] = event
            case ToolCallAnswered(id=id_) | ToolResult(id=id_):
                self.pending.pop(id_, None)
            case _ if isinstance(event, TERMINAL):
                self.ending = event
            case _:
                pass
