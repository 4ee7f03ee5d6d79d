"""A turn, from its message to its end: sent once, read to the terminal event, whatever breaks in between.

What to do after a break depends on the server. One that numbers its events is asked for those after the last one that
was had. One that can't (the founding contract: no ids, no responses) is polled until the session is no longer busy, and
what was missed is made from the conversation, if it shows one.

What to do when the connection broke before the answer's head depends on it too. A message is sent again, with the same
idempotency key, only to a server that is known to heed the key: else the agent might be told the same thing twice.
"""

import secrets
from collections.abc import Generator
from typing import Any

import msgspec

from turnwire.client.answering import Answerer
from turnwire.client.api import BUSY_DELAY_MAX_S, GATEWAY, REFUSED, Api, Patience, json_request
from turnwire.client.errors import TurnCancelled, TurnFailed, TurnLost, error_of
from turnwire.client.mending import missed_events
from turnwire.client.records import MessageRecord, ResponseRecord, Result, SessionRecord, read_messages, read_record
from turnwire.client.steps import Broken, Flow, Hangup, Read, Reply, Request, Send
from turnwire.client.wire import read_event
from turnwire.protocol.errors import MethodNotAllowed, NotFound, RemoteProtocolError, SessionBusy
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

REST_OF_TURN_S = 6 * 3600.0
"""How long the end of a turn is polled for that can't be read any more: longer than servers let one run."""

PLAIN_QUIET_S = 5400.0
"""How long a stream without heartbeats may be silent: as long as a turn lasts at most where that contract comes from.
A connection that is dead is found sooner, by TCP's keepalive."""

LIVED_S = 10.0
"""A connection that lived for so long shows that the server is there: the next break is a new trouble."""

SEQ_DIGITS_MAX = 15
"""Digits of a sequence number, as the server takes them."""

UNKNOWN_FAILURE = "The turn failed; this server does not say why."


class SessionState:
    """What the client knows of a session, shared by all that is done with it."""

    def __init__(self, api: Api, record: SessionRecord, answerer: Answerer) -> None:
        self.api, self.record, self.answerer = api, record, answerer
        self.path = f"/v1/sessions/{record.id}"

    def refresh(self) -> Flow[SessionRecord]:
        self.record = yield from self.api.get(self.path, SessionRecord)
        return self.record

    @property
    def resumable(self) -> bool:
        """Whether the server is known to keep turns by id, and so to heed idempotency keys."""
        return self.record.response_id is not msgspec.UNSET


class TurnFlow:
    """One turn as this client sees it: sent by it (`message`), or followed (`response_id`)."""

    def __init__(
        self,
        state: SessionState,
        *,
        body: dict[str, Any] | None = None,
        key: str | None = None,
        response_id: str | None = None,
    ) -> None:
        self._state, self._api = state, state.api
        self._body = body
        self._key = key or f"turnwire-{secrets.token_hex(16)}"
        self._outage = self._api.outage()
        self._transcript = Transcript()
        self._numbered = False
        self._gaps = 0
        self._quiet_s = PLAIN_QUIET_S
        self._resent = key is not None
        self._last: Event | None = None
        self._pending: dict[str, ToolCallRequested] = {}
        self._history_until: int | None = -1
        """Up to this number the events are not news: calls in them may have been answered. None: not known yet."""
        self.response_id = response_id
        self.ending: Terminal | None = None
        self.failure: Exception | None = None

    # What there is to see of it

    @property
    def seq(self) -> int:
        """The number of the last event; -1 before the first."""
        return self._transcript.next_seq - 1

    def so_far(self) -> Result:
        done = self._transcript
        return Result(self._state.record.id, self.response_id, done.status, done.content, done.usage)

    def result(self) -> Result:
        """The turn, folded. Raises what it failed with."""
        if self.failure is not None:
            raise self.failure
        done = self.so_far()
        if isinstance(self.ending, MessageCancelled):
            raise TurnCancelled("The turn was cancelled.", done)
        if self._transcript.error is not None:
            raise TurnFailed(self._transcript.error, done)
        return done

    # Its course

    def events(self) -> Generator[Any, Any, None]:
        """Yields the events, each once, and the steps to get them."""
        try:
            yield from self._send() if self._body is not None else self._attach()
            while self.ending is None:
                try:
                    yield from self._read()
                except Broken as exc:
                    yield from self._rejoin(exc)
        except Exception as exc:
            self.failure = exc
            raise

    def _read(self) -> Generator[Any, Any, None]:
        """The events of the open stream, to the turn's end. Broken when it ends before."""
        decoder, began = SSEDecoder(), self._api.clock()
        while self.ending is None:
            try:
                chunk: bytes = yield Read(self._quiet_s)
            except Broken:
                if self._api.clock() - began >= LIVED_S:
                    self._outage.got_on()
                raise
            if not chunk:
                raise Broken("the stream ended before the turn did", sent=True)
            for event in self._feed(decoder, chunk):
                if isinstance(event, TERMINAL):
                    self.ending = event
                    yield Hangup()
                yield event
            if self._pending and self.ending is None:
                yield from self._answer()

    def _feed(self, decoder: SSEDecoder, chunk: bytes) -> Generator[Event, None, None]:
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
        """Take the next event of the stream; None when it was had before, or is of a kind that is not known."""
        expected = self._transcript.next_seq
        if sse.id.isascii() and sse.id.isdigit() and len(sse.id) <= SEQ_DIGITS_MAX:
            self._numbered = True
            if int(sse.id) < expected:
                return None
            if int(sse.id) > expected:
                self._gaps += 1
                if self._gaps > 1:
                    raise RemoteProtocolError(f"The event {expected} is missing: the server went on with {sse.id}.")
                raise Broken(f"the event {expected} was left out", sent=True)
        event = read_event(sse.event, sse.data)
        self._outage.got_on()
        self._gaps = 0
        if event is None:
            self._transcript.next_seq += 1
            return None
        self._note(event)
        return event

    def _note(self, event: Event) -> None:
        try:
            self._transcript.add(event)
        except IndexError as exc:
            raise RemoteProtocolError(f"{event.type} can't stand where the server sent it: no block is open.") from exc
        self._last = event
        match event:
            case MessageCreated(id=response_id):
                self.response_id = response_id
            case ToolCallRequested(id=id_) if self._state.answerer.can_answer(event):
                self._pending[id_] = event
            case ToolCallAnswered(id=id_) | ToolResult(id=id_):
                self._pending.pop(id_, None)
            case _:
                pass

    def _answer(self) -> Flow[None]:
        """Answer the calls that wait, once it is sure that no other event of the past answers them."""
        if self._history_until is None:
            path = f"{self._state.path}/responses/{self.response_id}"
            record = yield from self._api.get(path, ResponseRecord)
            self._history_until = record.last_sequence_number
        if self.seq < self._history_until:
            return
        calls = list(self._pending.values())
        self._pending.clear()
        yield from self._state.answerer.answer(self._api, self._state.path, calls)

    # Its beginning

    def _send(self) -> Generator[Any, Any, None]:
        """Send the message, until the stream is open."""
        assert self._body is not None
        request = json_request("POST", f"{self._state.path}/messages", self._body)
        request.headers["Idempotency-Key"] = self._key
        busy = Patience(self._api.options.busy_timeout_s, self._api.clock, delay_max_s=BUSY_DELAY_MAX_S)
        while True:
            try:
                reply: Reply = yield Send(request, stream=True)
            except Broken as exc:
                self._resent = self._resent or exc.sent
                if exc.sent and not (yield from self._knows_keys()):
                    yield from self._after_doubt(exc)
                    return
                yield from self._api.after_break(self._outage, exc)
                continue
            self._api.reached = True
            if reply.status < 300:
                yield from self._began(reply)
                return
            yield from self._refused(reply, busy)

    def _began(self, reply: Reply) -> Generator[Any, Any, None]:
        self._history_until = None if self._resent else -1
        if "x-response-id" in reply.headers:
            self.response_id = reply.headers["x-response-id"]
            self._quiet_s = self._api.options.heartbeat_timeout_s
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return
        chunk, body = (yield Read(self._quiet_s)), b""
        while chunk and len(body) < 65536:
            body, chunk = body + chunk, (yield Read(self._quiet_s))
        yield Hangup()
        if kind != "application/json":
            raise RemoteProtocolError(f"The server answered the message by {kind or 'a body without a type'}.")
        # Sent before by this key, and its events are gone: the conversation has what they folded to.
        self.response_id = read_record(body, dict[str, Any]).get("response_id")
        yield from self._mend()

    def _refused(self, reply: Reply, busy: Patience) -> Flow[None]:
        """Wait until the message can be sent again, or raise what it was answered."""
        error = error_of(reply.status, reply.headers, reply.body)
        if reply.status == 409 and not self._state.resumable:  # the founding contract has one 409 for a message
            error = SessionBusy(error.message, retry_after_s=error.retry_after_s, response_id=error.response_id)
        if isinstance(error, SessionBusy):
            yield from busy.wait("busy", error, error.retry_after_s)
            while (yield from self._state.refresh()).busy:
                yield from busy.wait("busy", error)
        elif reply.status in REFUSED or (reply.status in GATEWAY and (yield from self._knows_keys())):
            yield from self._outage.wait("refused", error, error.retry_after_s)
        else:
            raise error

    def _knows_keys(self) -> Flow[bool]:
        if not self._state.resumable:
            yield from self._state.refresh()
        return self._state.resumable

    def _after_doubt(self, broken: Broken) -> Generator[Any, Any, None]:
        """The message may have begun a turn, or not, and sending it again might begin a second one."""
        record = yield from self._state.refresh()
        if record.busy:
            yield from self._wait_for_end()
        conversation = yield from self._conversation()
        asked = conversation[-2] if conversation and len(conversation) > 1 else None
        message = (self._body or {}).get("message")
        if not record.busy and (asked is None or asked.role != "user" or asked.text != message):
            raise TurnLost(
                f"The connection broke before the answer began ({broken}), and this server can't tell whether it took "
                "the message. Look at the session before you send it again.",
                self.so_far(),
            )
        yield from self._mend(conversation)

    def _attach(self) -> Generator[Any, Any, None]:
        """Follow the turn that runs, or the latest."""
        if self.response_id is None:
            record = yield from self._state.refresh()
            if record.response_id is None:
                raise NotFound("No turn has been begun in this session: there is nothing to follow.")
            if isinstance(record.response_id, str):
                self.response_id = record.response_id
        yield from self._rejoin(None)

    # Its going on after a break

    def _rejoin(self, broken: Broken | None) -> Generator[Any, Any, None]:
        """Open the stream again behind the last event; or get the rest otherwise, where there is no such thing."""
        yield Hangup()
        if self.response_id is None:
            if self._body is not None and (yield from self._knows_keys()):
                yield from self._api.after_break(self._outage, broken or Broken("it broke off", sent=True))
                yield from self._send()
            else:
                yield from self._wait_for_end()
                yield from self._mend()
            return
        path = f"{self._state.path}/responses/{self.response_id}/events"
        while True:
            if broken is not None:
                yield from self._api.after_break(self._outage, broken)
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(self.seq)} if self.seq >= 0 else {})
            try:
                reply: Reply = yield Send(Request("GET", path, headers), stream=True)
            except Broken as exc:
                broken = exc
                continue
            self._api.reached = True
            self._history_until = None
            if reply.status == 200:
                self._quiet_s = self._api.options.heartbeat_timeout_s
                return
            broken = yield from self._not_rejoined(reply)
            if self.ending is not None:
                return

    def _not_rejoined(self, reply: Reply) -> Generator[Any, Any, Broken | None]:
        error = error_of(reply.status, reply.headers, reply.body)
        if reply.status in REFUSED + GATEWAY:
            yield from self._outage.wait("refused", error, error.retry_after_s)
            return None
        if isinstance(error, NotFound | MethodNotAllowed):
            # No such endpoint, or the events are gone: the session itself is asked, and its conversation.
            yield from self._wait_for_end()
            yield from self._mend()
            return None
        if reply.status == 204:
            raise RemoteProtocolError("The server has no more events, and the turn's ending was not among them.")
        raise error

    def _wait_for_end(self) -> Flow[None]:
        patience = Patience(REST_OF_TURN_S, self._api.clock, delay_max_s=BUSY_DELAY_MAX_S)
        while (yield from self._state.refresh()).busy:
            yield from patience.wait("busy", SessionBusy("The turn did not end."))

    def _conversation(self) -> Flow[list[MessageRecord] | None]:
        """The conversation, oldest first; None when the server shows none."""
        try:
            return (yield from self._api.all_pages(f"{self._state.path}/messages", read_messages))
        except (NotFound, MethodNotAllowed, RemoteProtocolError):
            return None

    def _mend(self, conversation: list[MessageRecord] | None = None) -> Generator[Any, Any, None]:
        """Yield the rest of the turn as events made from the conversation. TurnLost when that can't be."""
        if conversation is None:
            conversation = yield from self._conversation()
        answers = [message for message in conversation or [] if message.role == "assistant"]
        named = [message for message in answers if message.id == self.response_id]
        found = named[-1] if named else answers[-1] if answers and not self._state.resumable else None
        events = None
        if found is not None and found.status != "in_progress":
            error = (yield from self._error()) if found.status == "error" else ""
            events = missed_events(self._transcript.content, self._last, found, error)
        if events is None:
            raise TurnLost(
                "The connection broke off, and this server keeps no events to read on from: the turn has ended, and "
                "the rest of its answer can't be had.",
                self.so_far(),
            )
        if self._last is None:
            response_id = self.response_id or (found.id if found else "")
            events.insert(0, MessageCreated(response_id, self._state.record.id))
        for event in events:
            self._note(event)
            if isinstance(event, TERMINAL):
                self.ending = event
            yield event

    def _error(self) -> Flow[str]:
        if not self._state.resumable or self.response_id is None:
            return UNKNOWN_FAILURE
        record = yield from self._api.get(f"{self._state.path}/responses/{self.response_id}", ResponseRecord)
        return record.error or UNKNOWN_FAILURE
