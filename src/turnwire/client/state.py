"""What the client knows of a session, and asks of it beside its turns."""

import msgspec

from turnwire.client.answering import Answerer
from turnwire.client.api import BUSY_DELAY_MAX_S, Api, Patience
from turnwire.client.records import MessageRecord, ResponseRecord, SessionRecord, read_messages
from turnwire.client.steps import Flow
from turnwire.protocol.errors import MethodNotAllowed, NotFound, RemoteProtocolError, SessionBusy

REST_OF_TURN_S = 6 * 3600.0
"""How long the end of a turn is polled for that can't be read any more: longer than servers let one run."""

UNKNOWN_FAILURE = "The turn failed; this server does not say why."


class SessionState:
    """A session, shared by all that is done with it."""

    def __init__(self, api: Api, record: SessionRecord, answerer: Answerer, *, is_new: bool = False) -> None:
        self.api, self.record, self.answerer = api, record, answerer
        self.sent: int | None = 0 if is_new else None
        """How many messages the session has had; None: not known."""
        self.path = f"/v1/sessions/{record.id}"

    def refresh(self) -> Flow[SessionRecord]:
        self.record = yield from self.api.get(self.path, SessionRecord)
        return self.record

    @property
    def resumable(self) -> bool:
        """Whether the server is known to keep turns by id, and so to heed idempotency keys."""
        return self.record.response_id is not msgspec.UNSET

    def count(self) -> None:
        """A message was taken."""
        if self.sent is not None:
            self.sent += 1

    def keeps_turns(self) -> Flow[bool]:
        """The same, after a second look."""
        if not self.resumable:
            yield from self.refresh()
        return self.resumable

    def wait_until_idle(self) -> Flow[None]:
        patience = Patience(REST_OF_TURN_S, self.api.clock, delay_max_s=BUSY_DELAY_MAX_S)
        while (yield from self.refresh()).busy:
            yield from patience.wait("busy", SessionBusy("The turn did not end."))

    def conversation(self) -> Flow[list[MessageRecord] | None]:
        """The conversation, oldest first; None when the server shows none."""
        try:
            return (yield from self.api.all_pages(f"{self.path}/messages", read_messages))
        except (NotFound, MethodNotAllowed, RemoteProtocolError):
            return None

    def why_failed(self, response_id: str | None) -> Flow[str]:
        if not self.resumable or response_id is None:
            return UNKNOWN_FAILURE
        record = yield from self.api.get(f"{self.path}/responses/{response_id}", ResponseRecord)
        return record.error or UNKNOWN_FAILURE
