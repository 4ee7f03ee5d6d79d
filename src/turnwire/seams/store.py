"""The store: sessions, turns, and the log of their events.

The log is the turn: what a store acknowledges is durable (a crash of the process or of the machine loses none of it),
and nothing is shown that it has not acknowledged. Three promises live here and nowhere else:

- one running turn to a session (a unique index, not a check);
- an append is fenced: it takes effect only for the holder of the turn's epoch, and only right behind what is there;
- the ending, the history that it leaves and the freeing of the session are one transaction.

Every adapter passes `turnwire.testing.store_cases`. Verbs raise `turnwire.protocol.errors.NotFound` for what is not
there or belongs to another tenant, and `StoreUnavailable` when the database can't take a write now (a full disk):
then nothing of it has happened, or, where the database is elsewhere and its answer was lost, the same call again finds
what has (`begin_turn` and `append` by what they wrote). Times are epoch seconds by the store's own clock.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Any, Literal, Protocol

import msgspec

from turnwire.protocol.errors import Unavailable
from turnwire.protocol.events import Usage

TurnStatus = Literal["in_progress", "completed", "error", "cancelled"]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session. The first part is fixed or set by its caller, the second is the store's view of its turns."""

    id: str
    tenant: str
    created_at: float
    persistent: bool = False
    ttl: int
    metadata: dict[str, Any] = {}
    file_access: dict[str, list[str]] | None = None
    model: str | None = None
    instructions: str | None = None
    workspace: Literal["shared", "private"] = "shared"
    tools: list[dict[str, Any]] = []
    approvals: list[str] = []
    network: bool | None = None
    """Whether commands may have one; None: as the settings say."""

    last_activity: float
    """The latest begin or end of a turn, else the creation."""
    busy: bool = False
    response_id: str | None = None
    """The running or latest turn."""
    pending_calls: int = 0
    """How many calls wait for the caller."""


class SessionChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a PATCH changes; UNSET leaves as it is. `metadata` is merged, key by key; None removes a key."""

    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType | None = msgspec.UNSET
    ttl: int | msgspec.UnsetType = msgspec.UNSET
    instructions: str | msgspec.UnsetType | None = msgspec.UNSET


class HistoryEntry(msgspec.Struct, frozen=True):
    """A piece of the history that the model is given, in the format of the agent library.

    `format` numbers the version of `data`, so that the library can change its own. `kind`: a user's `prompt`, a
    model's `response`, or the `return` of one tool call; or a `summary`, which stands for entries before it. The
    entries of a session that are no summaries are numbered from 0, in their order.
    """

    kind: Literal["prompt", "response", "return", "summary"]
    data: bytes
    format: int = 1
    turn_id: str = ""
    """Filled in when read."""
    upto: int | None = None
    """Of a summary: the number of the first entry that it does not stand for."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn: a user's message and the response to it. `id` is the response id."""

    id: str
    session_id: str
    tenant: str
    status: TurnStatus = "in_progress"
    created_at: float
    ended_at: float | None = None
    last_seq: int = 0
    """The number of the last committed event."""
    epoch: int = 1
    """Whoever holds the turn writes under this number; a take-over makes it one more."""
    recoveries: int = 0
    """How often the turn was taken up again after its server died."""
    cancel_requested: bool = False
    usage: Usage = Usage()
    """Of the steps that are whole, while the turn runs; in all, when it has ended."""
    error: str | None = None
    pending_calls: int = 0
    message_id: str
    """The user's message that the turn answers."""
    message: bytes
    """Its content, folded: the JSON array of blocks that `GET …/messages` shows."""
    content: bytes | None = None
    """The response, folded likewise; None while the turn runs."""
    model: str | None = None
    """The spec that the message asked for; None: the session's, or the server's."""
    settings: bytes = b"{}"
    """The message's settings, as JSON."""


class NewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """What `begin_turn` writes. The ids are made by the caller, so that a lost acknowledgement can be looked up."""

    id: str
    session_id: str
    tenant: str
    message_id: str
    message: bytes
    history: HistoryEntry
    frames: bytes
    """The frame of `message.created`: event 0."""
    model: str | None = None
    settings: bytes = b"{}"
    owner: str
    """The server process that will run it."""
    lease_s: float
    idempotency_key: str | None = None
    fingerprint: bytes = b""
    """What a repeat under the same key must match."""
    refusal: Exception | None = None
    """There is no place for a new turn: what is raised unless the idempotency key began one before."""


class Begun(msgspec.Struct, frozen=True):
    """What `begin_turn` answers. `replayed`: an earlier turn with the same idempotency key, nothing was written."""

    turn: Turn
    session: Session
    replayed: bool = False


class CallRequest(msgspec.Struct, frozen=True):
    """A call that waits for its caller: to be run by it (`tool`), or to be allowed by it (`approval`)."""

    call_id: str
    kind: Literal["tool", "approval"]
    deadline: float


class CallAnswer(msgspec.Struct, frozen=True):
    """What the caller answered to a call, as JSON; equal answers are equal bytes."""

    call_id: str
    kind: Literal["tool", "approval"]
    answer: bytes


class Ending(msgspec.Struct, frozen=True):
    """How a turn ends, in the transaction of its terminal event: the session is free with it."""

    status: TurnStatus
    usage: Usage
    content: bytes
    error: str | None = None


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """Events that go behind the last of a turn, and what must become durable with them.

    `frames` holds the events `first_seq` … `last_seq`, un-numbered, one after another.
    """

    session_id: str
    turn_id: str
    epoch: int
    first_seq: int
    last_seq: int
    frames: bytes
    history: tuple[HistoryEntry, ...] = ()
    usage: Usage | None = None
    """The turn's usage so far, when it changed."""
    pending_calls: int | None = None
    """How many calls wait for the caller, when it changed."""
    requests: tuple[CallRequest, ...] = ()
    """Calls that wait for the caller from now on."""
    ending: Ending | None = None


class Appended(Enum):
    """What became of an append."""

    WRITTEN = auto()
    """It is durable: now, or already by an earlier try whose acknowledgement was lost."""
    FENCED = auto()
    """Nothing was written: the turn is under another epoch, has ended, or is gone. Its holder must stop."""
    CANCEL_FIRST = auto()
    """Nothing was written: the turn is to be cancelled, so it can end as cancelled only."""


AppendDone = Callable[[Appended | Exception], None]
"""Called on the event loop, once for an append: what became of it, or the error that kept it from being written."""


class Segment(msgspec.Struct, frozen=True):
    """Consecutive events of a turn, un-numbered."""

    first_seq: int
    last_seq: int
    frames: bytes


class Page(msgspec.Struct, frozen=True):
    """A page of a turn's log, and the turn's state in the same instant."""

    segments: list[Segment]
    last_seq: int
    ended: bool


class Key(msgspec.Struct, frozen=True):
    """An access key, as stored: its hash, never its text."""

    digest: bytes
    tenant: str
    name: str
    created_at: float


SECRET_BYTES = 32
"""Bytes of a secret: what SHA-256 signs with."""


class StoreUnavailable(Unavailable):
    """The server can't store anything now (is its disk full?): try again after the seconds in Retry-After."""


class StoreDamaged(Exception):
    """What the store holds is not what was written: a checksum does not match."""


RemoveFiles = Callable[[Session], Awaitable[bool]]
"""Removes what a deleted session has outside of the store; False when it could not."""


class Store(Protocol):
    """Sessions, turns and the log. Every verb is by tenant where it is asked for on behalf of a caller."""

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""
        ...

    # Sessions

    async def create_session(self, session: Session) -> None:
        """Keep a new session. Ids are random: one that is taken is a `Conflict`."""
        ...

    async def get_session(self, tenant: str, session_id: str) -> Session: ...

    async def list_sessions(
        self, tenant: str, *, busy: bool | None = None, after: str | None = None, limit: int = 100
    ) -> list[Session]:
        """Newest first; `after`: the id of the last session of the page before (gone is fine: `InvalidRequest` only
        when it never was one)."""
        ...

    async def update_session(self, tenant: str, session_id: str, changes: SessionChanges) -> Session: ...

    async def delete_session(self, tenant: str, session_id: str) -> str | None:
        """From now on it is not found; its running turn, whose id is the answer, is to be cancelled."""
        ...

    async def delete_sessions(self, tenant: str, *, idle: bool, older_than_s: float | None) -> int:
        """Delete those that have no running turn and, with `older_than_s`, whose last activity is longer ago."""
        ...

    async def expire_sessions(self, *, idle_ttl_s: float, limit: int) -> int:
        """Delete what is past its time and has no running turn: persistent sessions `ttl` after their creation, the
        others `idle_ttl_s` after their last activity. At most `limit` of them."""
        ...

    async def purge_sessions(self, *, limit: int, remove_files: RemoveFiles | None = None) -> list[Session]:
        """Remove the rows of deleted sessions that have no running turn, at most `limit`.

        `remove_files` is awaited for each before its last row goes: a server that dies in between, or could not
        remove them now (False), finds the session again at its next sweep.
        """
        ...

    # Turns

    async def begin_turn(self, new: NewTurn) -> Begun:
        """Claim the session, keep the message, append `message.created`: one transaction.

        `SessionBusy` (with `response_id`) when a turn is running, by the unique index and nothing else.
        An idempotency key is looked up first: the same fingerprint gives the turn that it began, another one is an
        `IdempotencyMismatch`. A refused call does not use up its key. Where no turn may begin (`refusal`), such a
        repeat is still answered.
        """
        ...

    def append(self, append: Append, done: AppendDone) -> None:
        """Write behind the turn's last event, together with what other turns have to write.

        Called on the event loop; returns at once. One append of a turn is under way at a time: the next is handed in
        after `done` was called. Appends in one group have each a result of their own.
        """
        ...

    async def keep_summary(self, turn_id: str, epoch: int, summary: HistoryEntry, usage: Usage) -> bool:
        """Keep a summary of the history, and the turn's usage so far, which counts it: one transaction.

        From now on the latest summary is what `read_history` begins with. False: nothing was written, the turn is
        under another epoch, has ended, or is gone.
        """
        ...

    async def get_turn(self, tenant: str, session_id: str, turn_id: str) -> Turn: ...

    async def list_turns(
        self, tenant: str, session_id: str, *, after: str | None = None, limit: int = 100, newest_first: bool = True
    ) -> list[Turn]:
        """The turns of a session in the order in which they began; `after` as for sessions."""
        ...

    async def request_cancel(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        """Mark a running turn as to be cancelled; the answer is the turn behind it. One that has ended stays so."""
        ...

    async def cancel_requests(self, owner: str) -> list[str]:
        """The running turns of this owner that are to be cancelled."""
        ...

    # Calls that wait for their caller

    async def answer_calls(self, tenant: str, session_id: str, answers: Sequence[CallAnswer]) -> list[str]:
        """Keep the caller's answers, all of them or none; the ids of the turns that wait for them, running ones.

        The same answer again changes nothing, also when the turn has gone on. `NotFound` for a call that was never
        requested in this session; `InvalidRequest` for an answer of the other kind; `Conflict` for another answer than
        the one that is there, and for a call that was given up or whose turn has ended without an answer.
        """
        ...

    async def call_answers(self, turn_id: str) -> dict[str, CallAnswer | None]:
        """The calls of a turn that were requested, by id, and what was answered; None: nothing yet, or given up."""
        ...

    async def give_up_calls(self, turn_id: str, call_ids: Sequence[str]) -> dict[str, CallAnswer]:
        """From now on nothing can be answered to these calls. The answers that were there already are the answer."""
        ...

    # Leases

    async def take_over(self, owner: str, *, lease_s: float, everything: bool = False) -> list[Turn]:
        """Take up running turns whose lease has run out (or all): each under its next epoch, recoveries counted."""
        ...

    async def renew_leases(self, owner: str, turn_ids: Sequence[str], *, lease_s: float) -> set[str]:
        """Renew the leases of running turns; the answer names those that this owner holds no more."""
        ...

    async def release_turns(self, owner: str, turn_ids: Sequence[str]) -> None:
        """Let go of running turns of this owner: whoever comes may take them up at once, which is no recovery that
        counts."""
        ...

    # Reading

    async def read_events(self, turn_id: str, first_seq: int, *, bytes_max: int) -> Page:
        """The log from `first_seq` on: whole segments, the first of which may begin earlier, until `bytes_max` is
        reached, at least one. `NotFound` when the turn or its events are gone, `StoreDamaged` on a bad checksum."""
        ...

    async def read_history(self, session_id: str) -> list[HistoryEntry]:
        """All that the model is given, oldest first: the latest summary, if there is one, and the entries that it
        does not stand for."""
        ...

    # Retention

    async def drop_events(self, *, ended_before: float, limit: int) -> int:
        """Remove the events of turns that ended before a time, of at most `limit` turns. Conversations stay."""
        ...

    # Keys

    async def add_key(self, key: Key) -> None: ...

    async def find_key(self, digest: bytes) -> Key | None: ...

    async def list_keys(self) -> list[Key]: ...

    async def remove_key(self, digest: bytes) -> bool: ...

    async def secret(self, name: str) -> bytes:
        """SECRET_BYTES random bytes under a name, the same for every server here; made when first asked for."""
        ...
