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

from turnwire.client.api import BUSY_DELAY_MAX_S, GATEWAY, REFUSED, Patience, json_request
from turnwire.client.errors import TurnLost, error_of
from turnwire.client.mending import missed_events
from turnwire.client.reading import Reading
from turnwire.client.records import MessageRecord, ResponseRecord, Result, read_record
from turnwire.client.state import SessionState
from turnwire.client.steps import Broken, Flow, Hangup, Read, Reply, Request, Send
from turnwire.protocol.errors import MethodNotAllowed, NotFound, RemoteProtocolError, SessionBusy
from turnwire.protocol.events import MessageCreated
from turnwire.protocol.sse import SSEDecoder

PLAIN_QUIET_S = 5400.0
"""How long a stream without heartbeats may be silent: as long as a turn lasts at most where that contract comes from.
A connection that is dead is found sooner, by TCP's keepalive."""

LIVED_S = 10.0
"""A connection that lived for so long shows that the server is there: the next break is a new trouble."""


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
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("idempotency_key: holds characters that no header can carry.")
        self._key = key or f"turnwire-{secrets.token_hex(16)}"
        self._outage = self._api.outage()
        self._quiet_s = PLAIN_QUIET_S
        self._resent = key is not None
        """Whether the message may have begun a turn before this: then its events are history."""
        self._history_until: int | None = -1
        """Up to this number the events are not news: calls in them may have been answered. None: not known yet."""
        self.read = Reading(state.record.id, response_id, state.answerer.can_answer)
        self.failure: Exception | None = None

    def result(self) -> Result:
        """The turn, folded. Raises what it failed with."""
        if self.failure is not None:
            raise self.failure
        return self.read.result()

    # Its course

    def events(self) -> Generator[Any, Any, None]:
        """Yields the events, each once, and the steps to get them."""
        return self._events(self._send() if self._body is not None else self._attach())

    def events_again(self) -> Generator[Any, Any, None]:
        """The rest of them, when their flow was torn down in the middle."""
        return self._events(self._rejoin(Broken("it was interrupted", sent=True)))

    def _events(self, course: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
        try:
            while self.read.ending is None:
                try:
                    yield from course
                    yield from self._read()
                except Broken as exc:
                    course = self._rejoin(exc)
        except Exception as exc:
            self.failure = exc
            raise

    def _read(self) -> Generator[Any, Any, None]:
        """The events of the open stream, to the turn's end. Broken when it ends before."""
        read, decoder, began = self.read, SSEDecoder(), self._api.clock()
        while read.ending is None:
            try:
                chunk: bytes = yield Read(self._quiet_s)
            except Broken:
                if self._api.clock() - began >= LIVED_S:
                    self._outage.got_on()
                raise
            if not chunk:
                raise Broken("the stream ended before the turn did", sent=True)
            for event in read.feed(decoder, chunk):
                self._outage.got_on()
                if read.ending is not None:
                    yield Hangup()
                yield event
            if read.pending and read.ending is None:
                yield from self._answer()

    def _answer(self) -> Flow[None]:
        """Answer the calls that wait, once it is sure that no other event of the past answers them."""
        if self._history_until is None:
            path = f"{self._state.path}/responses/{self.read.response_id}"
            record = yield from self._api.get(path, ResponseRecord)
            self._history_until = record.last_sequence_number
        if self.read.seq < self._history_until:
            return
        calls = list(self.read.pending.values())
        self.read.pending.clear()
        yield from self._state.answerer.answer(self._api, self._state.path, calls)

    # Its beginning

    def _send(self) -> Generator[Any, Any, None]:
        """Send the message, until the stream is open."""
        assert self._body is not None
        request = self._request(self._body)
        busy = Patience(self._api.options.busy_timeout_s, self._api.clock, delay_max_s=BUSY_DELAY_MAX_S)
        while True:
            try:
                reply: Reply = yield Send(request, stream=True)
            except Broken as exc:
                self._resent = self._resent or exc.sent
                if exc.sent and not (yield from self._state.keeps_turns()):
                    yield from self._after_doubt(exc)
                    return
                yield from self._api.after_break(self._outage, exc)
                continue
            self._api.reached = True
            if reply.status < 300:
                yield from self._began(reply)
                return
            if reply.status in (400, 422) and "event_ids" in self._body and not self._state.resumable:
                # A strict server of the founding contract, whose message has one field.
                self._body.pop("event_ids")
                request = self._request(self._body)
                continue
            yield from self._refused(reply, busy)

    def _request(self, body: dict[str, Any]) -> Request:
        return json_request("POST", f"{self._state.path}/messages", body, **{"Idempotency-Key": self._key})

    def _began(self, reply: Reply) -> Generator[Any, Any, None]:
        self._state.count()
        self._history_until = None if self._resent else -1
        if "x-response-id" in reply.headers:
            self.read.response_id = reply.headers["x-response-id"]
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
        self.read.response_id = read_record(body, dict[str, Any]).get("response_id")
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
        elif reply.status in REFUSED or (reply.status in GATEWAY and (yield from self._state.keeps_turns())):
            self._resent = self._resent or reply.status in GATEWAY
            yield from self._outage.wait("refused", error, error.retry_after_s)
        else:
            raise error

    def _after_doubt(self, broken: Broken) -> Generator[Any, Any, None]:
        """The message may have begun a turn, or not, and sending it again might begin a second one."""
        record = yield from self._state.refresh()
        if record.busy:
            yield from self._state.wait_until_idle()
        conversation = yield from self._state.conversation()
        asked = [message for message in conversation or [] if message.role == "user"]
        is_new = record.busy or len(asked) - 1 == self._state.sent
        if not asked or not is_new or asked[-1].text != (self._body or {}).get("message"):
            raise TurnLost(
                f"The connection broke before the answer began ({broken}), and this server can't tell whether it took "
                "the message. Look at the session before you send it again.",
                self.read.so_far(),
            )
        self._state.count()
        yield from self._mend(conversation)

    def _attach(self) -> Generator[Any, Any, None]:
        """Follow the turn that runs, or the latest."""
        if self.read.response_id is None:
            record = yield from self._state.refresh()
            if record.response_id is None:
                raise NotFound("No turn has been begun in this session: there is nothing to follow.")
            if isinstance(record.response_id, str):
                self.read.response_id = record.response_id
        yield from self._rejoin(None)

    # Its going on after a break

    def _rejoin(self, broken: Broken | None) -> Generator[Any, Any, None]:
        """Open the stream again behind the last event; or get the rest otherwise, where there is no such thing."""
        yield Hangup()
        if self.read.response_id is None:
            if self._body is not None and (yield from self._state.keeps_turns()):
                yield from self._api.after_break(self._outage, broken or Broken("it broke off", sent=True))
                yield from self._send()
            else:
                yield from self._state.wait_until_idle()
                yield from self._mend()
            return
        path = f"{self._state.path}/responses/{self.read.response_id}/events"
        while True:
            if broken is not None:
                yield from self._api.after_break(self._outage, broken)
            headers = {"Accept": "text/event-stream"} | (
                {"Last-Event-ID": str(self.read.seq)} if self.read.seq >= 0 else {}
            )
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
            if self.read.ending is not None:
                return

    def _not_rejoined(self, reply: Reply) -> Generator[Any, Any, Broken | None]:
        error = error_of(reply.status, reply.headers, reply.body)
        if reply.status in REFUSED + GATEWAY:
            yield from self._outage.wait("refused", error, error.retry_after_s)
            return None
        if isinstance(error, NotFound | MethodNotAllowed):
            # No such endpoint, or the events are gone: the session itself is asked, and its conversation.
            yield from self._state.wait_until_idle()
            yield from self._mend()
            return None
        if reply.status == 204:
            raise RemoteProtocolError("The server has no more events, and the turn's ending was not among them.")
        raise error

    def _mend(self, conversation: list[MessageRecord] | None = None) -> Generator[Any, Any, None]:
        """Yield the rest of the turn as events made from the conversation. TurnLost when that can't be."""
        if conversation is None:
            conversation = yield from self._state.conversation()
        answers = [message for message in conversation or [] if message.role == "assistant"]
        named = [message for message in answers if message.id == self.read.response_id]
        found = named[-1] if named else answers[-1] if answers and not self._state.resumable else None
        events = None
        if found is not None and found.status != "in_progress":
            error = (yield from self._state.why_failed(self.read.response_id)) if found.status == "error" else ""
            events = missed_events(self.read.transcript.content, self.read.last, found, error)
        if events is None:
            raise TurnLost(
                "The connection broke off, and this server keeps no events to read on from: the turn has ended, and "
                "the rest of its answer can't be had.",
                self.read.so_far(),
            )
        if self.read.last is None:
            response_id = self.read.response_id or (found.id if found else "")
            events.insert(0, MessageCreated(response_id, self._state.record.id))
        for event in events:
            self.read.note(event)
            yield event
