"""A store in memory, for tests: the promises of the seam but for durability.

It answers as late as a database would: every verb lets the event loop run first, and an append is written at the end
of the loop's iteration, its `done` called an iteration later.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, Literal

import msgspec

from turnwire.protocol.errors import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, SessionBusy
from turnwire.protocol.events import Usage
from turnwire.seams.clock import Clock, SystemClock
from turnwire.seams.store import (
    SECRET_BYTES,
    Append,
    AppendDone,
    Appended,
    Begun,
    CallAnswer,
    HistoryEntry,
    Key,
    NewTurn,
    Page,
    RemoveFiles,
    Segment,
    Session,
    SessionChanges,
    Store,
    StoreUnavailable,
    Turn,
)
from turnwire.stores.common import (
    GONE_KEPT_S,
    IDEMPOTENCY_VALID_S,
    UNKNOWN_CURSOR,
    check_answer,
    merge_metadata,
    new_turn,
    require_condition,
)


class _Call:
    """A call that waits, or waited, for its caller."""

    def __init__(self, kind: Literal["tool", "approval"]) -> None:
        self.kind: Literal["tool", "approval"] = kind
        self.answer: bytes | None = None
        self.given_up = False

    def as_answer(self, call_id: str) -> CallAnswer | None:
        return None if self.answer is None else CallAnswer(call_id, self.kind, self.answer)


class _Turn:
    """A turn and what belongs to it."""

    def __init__(self, turn: Turn, new: NewTurn, now: float) -> None:
        self.turn = turn
        self.owner = new.owner
        self.lease_until = now + new.lease_s
        self.calls: dict[str, _Call] = {}
        self.segments: list[Segment] | None = [Segment(0, 0, new.frames)]

    @property
    def running(self) -> bool:
        return self.turn.ended_at is None

    def change(self, **changes: Any) -> None:
        self.turn = msgspec.structs.replace(self.turn, **changes)


class _Session:
    """A session, its turns in the order in which they began, and its history."""

    def __init__(self, session: Session) -> None:
        self.session = deepcopy(session)
        self.turns: list[_Turn] = []
        self.history: list[HistoryEntry] = []
        self.summary: HistoryEntry | None = None
        self.deleted = False

    @property
    def running(self) -> _Turn | None:
        return self.turns[-1] if self.turns and self.turns[-1].running else None

    @property
    def last_activity(self) -> float:
        if not self.turns:
            return self.session.created_at
        latest = self.turns[-1].turn
        return latest.created_at if latest.ended_at is None else latest.ended_at

    @property
    def place(self) -> tuple[float, str]:
        return self.session.created_at, self.session.id

    def view(self) -> Session:
        latest = self.turns[-1].turn if self.turns else None
        return msgspec.structs.replace(
            deepcopy(self.session),
            last_activity=self.last_activity,
            busy=self.running is not None,
            response_id=latest.id if latest else None,
            pending_calls=latest.pending_calls if latest else 0,
        )

    def delete(self) -> str | None:
        self.deleted = True
        running = self.running
        if running is None:
            return None
        running.change(cancel_requested=True)
        return running.turn.id


class MemoryStore:
    """`turnwire.seams.store.Store` in dictionaries."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._sessions: dict[str, _Session] = {}
        self._turns: dict[str, _Turn] = {}
        self._gone: dict[tuple[str, str], tuple[float, float]] = {}
        """Tenant and id of purged sessions: when they were created, and when they went."""
        self._idempotency: dict[tuple[str, str], tuple[NewTurn, float]] = {}
        self._keys: dict[bytes, Key] = {}
        self._secrets: dict[str, bytes] = {}
        self._gathered: list[tuple[Append, AppendDone]] = []
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        await asyncio.sleep(0)  # what has gathered is written in this iteration,
        await asyncio.sleep(0)  # and acknowledged in this one

    async def _turn_of_loop(self) -> None:
        if self._closed:
            raise StoreUnavailable("The server is stopping.")
        await asyncio.sleep(0)

    def _session(self, tenant: str, session_id: str) -> _Session:
        found = self._sessions.get(session_id)
        if found is None or found.deleted or found.session.tenant != tenant:
            raise NotFound(f"There is no session {session_id}.")
        return found

    def _live(self, tenant: str | None = None) -> list[_Session]:
        return [s for s in self._sessions.values() if not s.deleted and tenant in (None, s.session.tenant)]

    # Sessions

    async def create_session(self, session: Session) -> None:
        await self._turn_of_loop()
        if session.id in self._sessions:
            raise Conflict(f"There is a session {session.id} already.")
        self._sessions[session.id] = _Session(session)

    async def get_session(self, tenant: str, session_id: str) -> Session:
        await self._turn_of_loop()
        return self._session(tenant, session_id).view()

    async def list_sessions(
        self, tenant: str, *, busy: bool | None = None, after: str | None = None, limit: int = 100
    ) -> list[Session]:
        await self._turn_of_loop()
        found = [s for s in self._live(tenant) if busy is None or (s.running is not None) == busy]
        if after is not None:
            place = self._place(tenant, after)
            found = [s for s in found if s.place < place]
        found.sort(key=lambda s: s.place, reverse=True)
        return [s.view() for s in found[:limit]]

    def _place(self, tenant: str, session_id: str) -> tuple[float, str]:
        found = self._sessions.get(session_id)
        if found is not None and found.session.tenant == tenant:
            return found.place
        if (tenant, session_id) in self._gone:
            return self._gone[tenant, session_id][0], session_id
        raise InvalidRequest(UNKNOWN_CURSOR)

    async def update_session(self, tenant: str, session_id: str, changes: SessionChanges) -> Session:
        await self._turn_of_loop()
        found = self._session(tenant, session_id)
        fields = {
            name: value
            for name in ("metadata", "model", "ttl", "instructions")
            if (value := getattr(changes, name)) is not msgspec.UNSET
        }
        if "metadata" in fields:
            fields["metadata"] = deepcopy(merge_metadata(found.session.metadata, fields["metadata"]))
        found.session = msgspec.structs.replace(found.session, **fields)
        return found.view()

    async def delete_session(self, tenant: str, session_id: str) -> str | None:
        await self._turn_of_loop()
        return self._session(tenant, session_id).delete()

    async def delete_sessions(self, tenant: str, *, idle: bool, older_than_s: float | None) -> int:
        require_condition(idle, older_than_s)
        await self._turn_of_loop()
        before = float("inf") if older_than_s is None else self._clock.now() - older_than_s
        return _delete_idle(s for s in self._live(tenant) if s.last_activity < before)

    async def expire_sessions(self, *, idle_ttl_s: float, limit: int) -> int:
        await self._turn_of_loop()
        now = self._clock.now()
        expired = [s for s in self._live() if s.running is None and _expires_at(s, idle_ttl_s) <= now]
        return _delete_idle(expired[:limit])

    async def purge_sessions(self, *, limit: int, remove_files: RemoveFiles | None = None) -> list[Session]:
        await self._turn_of_loop()
        now = self._clock.now()
        purged: list[_Session] = []
        for session in [s for s in self._sessions.values() if s.deleted and s.running is None][:limit]:
            if remove_files is not None and not await remove_files(session.view()):
                continue
            if self._sessions.pop(session.session.id, None) is None:
                continue  # somebody else purged it meanwhile
            purged.append(session)
            for turn in session.turns:
                del self._turns[turn.turn.id]
            self._gone[session.session.tenant, session.session.id] = session.session.created_at, now
        self._gone = {key: gone for key, gone in self._gone.items() if gone[1] > now - GONE_KEPT_S}
        return [s.view() for s in purged]

    # Turns

    async def begin_turn(self, new: NewTurn) -> Begun:
        await self._turn_of_loop()
        now = self._clock.now()
        replayed = self._replay(new, now)
        if replayed is not None:
            return replayed
        if new.refusal is not None:
            raise new.refusal
        session = self._session(new.tenant, new.session_id)
        before = self._turns.get(new.id)
        if before is not None:
            if (before.turn.session_id, before.turn.message_id) != (new.session_id, new.message_id):
                raise InvalidRequest(f"There is a response {new.id} already.")
            return Begun(before.turn, session.view())
        if session.running is not None:
            raise SessionBusy(response_id=session.running.turn.id)
        turn = _Turn(new_turn(new, now), new, now)
        self._turns[new.id] = turn
        session.turns.append(turn)
        session.history.append(msgspec.structs.replace(new.history, turn_id=new.id))
        if new.idempotency_key is not None:
            self._idempotency[new.tenant, new.idempotency_key] = new, now
        return Begun(turn.turn, session.view())

    def _replay(self, new: NewTurn, now: float) -> Begun | None:
        if new.idempotency_key is None:
            return None
        first, used_at = self._idempotency.get((new.tenant, new.idempotency_key), (None, 0.0))
        if first is None or used_at <= now - IDEMPOTENCY_VALID_S:
            return None
        if (first.fingerprint, first.session_id) != (new.fingerprint, new.session_id):
            raise IdempotencyMismatch
        session = self._session(new.tenant, new.session_id)
        return Begun(self._turns[first.id].turn, session.view(), replayed=True)

    def append(self, append: Append, done: AppendDone) -> None:
        assert 0 < append.first_seq <= append.last_seq, "an append holds at least one event"
        loop = asyncio.get_running_loop()
        if self._closed:
            loop.call_soon(done, StoreUnavailable("The server is stopping."))
            return
        self._gathered.append((append, done))
        if len(self._gathered) == 1:
            loop.call_soon(self._write_gathered, loop)

    def _write_gathered(self, loop: asyncio.AbstractEventLoop) -> None:
        gathered, self._gathered = self._gathered, []
        for append, done in gathered:
            loop.call_soon(done, self._write(append))

    def _write(self, append: Append) -> Appended:
        held = self._turns.get(append.turn_id)
        if held is None or held.turn.epoch != append.epoch:
            return Appended.FENCED
        ending = append.ending
        if held.turn.last_seq == append.last_seq and held.running == (ending is None):
            return Appended.WRITTEN
        if not held.running or held.turn.last_seq != append.first_seq - 1:
            return Appended.FENCED
        if ending is not None and held.turn.cancel_requested and ending.status != "cancelled":
            return Appended.CANCEL_FIRST
        assert held.segments is not None, "only turns that ended lose their events"
        held.segments.append(Segment(append.first_seq, append.last_seq, append.frames))
        history = self._sessions[held.turn.session_id].history
        history += [msgspec.structs.replace(entry, turn_id=append.turn_id) for entry in append.history]
        held.calls |= {request.call_id: _Call(request.kind) for request in append.requests}
        held.change(last_seq=append.last_seq)
        if ending is not None:
            held.change(
                status=ending.status,
                ended_at=self._clock.now(),
                usage=ending.usage,
                content=ending.content,
                error=ending.error,
                pending_calls=0,
            )
            return Appended.WRITTEN
        if append.usage is not None:
            held.change(usage=append.usage)
        if append.pending_calls is not None:
            held.change(pending_calls=append.pending_calls)
        return Appended.WRITTEN

    def _turn(self, tenant: str, session_id: str, turn_id: str) -> _Turn:
        for held in self._session(tenant, session_id).turns:
            if held.turn.id == turn_id:
                return held
        raise NotFound(f"There is no response {turn_id} in the session {session_id}.")

    async def get_turn(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        await self._turn_of_loop()
        return self._turn(tenant, session_id, turn_id).turn

    async def list_turns(
        self, tenant: str, session_id: str, *, after: str | None = None, limit: int = 100, newest_first: bool = True
    ) -> list[Turn]:
        await self._turn_of_loop()
        turns = [held.turn for held in self._session(tenant, session_id).turns]
        if newest_first:
            turns.reverse()
        if after is not None:
            ids = [turn.id for turn in turns]
            if after not in ids:
                raise InvalidRequest(UNKNOWN_CURSOR)
            turns = turns[ids.index(after) + 1 :]
        return turns[:limit]

    async def request_cancel(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        await self._turn_of_loop()
        held = self._turn(tenant, session_id, turn_id)
        if held.running:
            held.change(cancel_requested=True)
        return held.turn

    def _running(self) -> list[_Turn]:
        return [held for held in self._turns.values() if held.running]

    async def cancel_requests(self, owner: str) -> list[str]:
        await self._turn_of_loop()
        return [held.turn.id for held in self._running() if held.turn.cancel_requested and held.owner == owner]

    # Calls that wait for their caller

    async def answer_calls(self, tenant: str, session_id: str, answers: Sequence[CallAnswer]) -> list[str]:
        await self._turn_of_loop()
        turns = self._session(tenant, session_id).turns
        kept: list[tuple[_Turn, CallAnswer]] = []
        waiting: dict[str, None] = {}
        for answer in answers:
            held = next((held for held in turns if answer.call_id in held.calls), None)
            if held is None:
                raise NotFound(f"No call {answer.call_id} was requested in this session.")
            call = held.calls[answer.call_id]
            closed = call.given_up or not held.running
            if check_answer(answer, kind=call.kind, closed=closed, before=call.answer):
                kept.append((held, answer))
            if not closed:
                waiting[held.turn.id] = None
        for held, answer in kept:
            held.calls[answer.call_id].answer = answer.answer
        return list(waiting)

    async def call_answers(self, turn_id: str) -> dict[str, CallAnswer | None]:
        await self._turn_of_loop()
        held = self._turns.get(turn_id)
        return {} if held is None else {id_: call.as_answer(id_) for id_, call in held.calls.items()}

    async def give_up_calls(self, turn_id: str, call_ids: Sequence[str]) -> dict[str, CallAnswer]:
        await self._turn_of_loop()
        answered: dict[str, CallAnswer] = {}
        for id_, call in self._turns[turn_id].calls.items():
            if id_ in call_ids:
                call.given_up = call.answer is None
                if (answer := call.as_answer(id_)) is not None:
                    answered[id_] = answer
        return answered

    # Leases

    async def take_over(self, owner: str, *, lease_s: float, everything: bool = False) -> list[Turn]:
        await self._turn_of_loop()
        now = self._clock.now()
        taken = [held for held in self._running() if everything or held.lease_until <= now]
        for held in taken:
            held.change(epoch=held.turn.epoch + 1, recoveries=held.turn.recoveries + (held.owner != ""))
            held.owner, held.lease_until = owner, now + lease_s
        return [held.turn for held in taken]

    async def renew_leases(self, owner: str, turn_ids: Sequence[str], *, lease_s: float) -> set[str]:
        await self._turn_of_loop()
        lost = set(turn_ids)
        for held in self._running():
            if held.owner == owner and held.turn.id in lost:
                held.lease_until = self._clock.now() + lease_s
                lost.discard(held.turn.id)
        return lost

    async def release_turns(self, owner: str, turn_ids: Sequence[str]) -> None:
        await self._turn_of_loop()
        for held in self._running():
            if held.owner == owner and held.turn.id in turn_ids:
                held.owner, held.lease_until = "", 0.0

    # Reading

    async def read_events(self, turn_id: str, first_seq: int, *, bytes_max: int) -> Page:
        await self._turn_of_loop()
        held = self._turns.get(turn_id)
        if held is None:
            raise NotFound(f"There is no response {turn_id}.")
        if held.segments is None:
            raise NotFound(f"The events of {turn_id} are no longer kept.")
        page: list[Segment] = []
        size = 0
        for segment in held.segments:
            if segment.last_seq >= first_seq and (not page or size < bytes_max):
                page.append(segment)
                size += len(segment.frames)
        return Page(page, held.turn.last_seq, not held.running)

    async def keep_summary(self, turn_id: str, epoch: int, summary: HistoryEntry, usage: Usage) -> bool:
        await self._turn_of_loop()
        assert summary.kind == "summary" and summary.upto is not None
        held = self._turns.get(turn_id)
        if held is None or not held.running or held.turn.epoch != epoch:
            return False
        held.change(usage=usage)
        self._sessions[held.turn.session_id].summary = msgspec.structs.replace(summary, turn_id=turn_id)
        return True

    async def read_history(self, session_id: str) -> list[HistoryEntry]:
        await self._turn_of_loop()
        if session_id not in self._sessions:
            raise NotFound(f"There is no session {session_id}.")
        session = self._sessions[session_id]
        if session.summary is None:
            return list(session.history)
        return [session.summary, *session.history[session.summary.upto :]]

    # Retention

    async def drop_events(self, *, ended_before: float, limit: int) -> int:
        await self._turn_of_loop()
        droppable = [
            held
            for held in self._turns.values()
            if held.segments is not None and held.turn.ended_at is not None and held.turn.ended_at < ended_before
        ][:limit]
        for held in droppable:
            held.segments = None
        return len(droppable)

    # Keys

    async def add_key(self, key: Key) -> None:
        await self._turn_of_loop()
        if key.digest in self._keys:
            raise Conflict("This key is there already.")
        self._keys[key.digest] = key

    async def find_key(self, digest: bytes) -> Key | None:
        await self._turn_of_loop()
        return self._keys.get(digest)

    async def list_keys(self) -> list[Key]:
        await self._turn_of_loop()
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.digest))

    async def remove_key(self, digest: bytes) -> bool:
        await self._turn_of_loop()
        return self._keys.pop(digest, None) is not None

    async def secret(self, name: str) -> bytes:
        await self._turn_of_loop()
        return self._secrets.setdefault(name, secrets.token_bytes(SECRET_BYTES))


def _delete_idle(sessions: Iterable[_Session]) -> int:
    idle = [session for session in sessions if session.running is None]
    for session in idle:
        session.delete()
    return len(idle)


def _expires_at(session: _Session, idle_ttl_s: float) -> float:
    record = session.session
    return record.created_at + record.ttl if record.persistent else session.last_activity + idle_ttl_s


def _fits(store: MemoryStore) -> Store:  # pyright: ignore[reportUnusedFunction]
    """MemoryStore is a Store: the type checker says so."""
    return store
