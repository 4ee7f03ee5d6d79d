"""The store on PostgreSQL: one server to a database, its appends in groups, all else in transactions of their own."""

import math
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from functools import partial

from turnwire.database_url import shown
from turnwire.protocol.errors import NotFound
from turnwire.protocol.events import Usage
from turnwire.seams.clock import Clock
from turnwire.seams.store import (
    Append,
    AppendDone,
    Begun,
    CallAnswer,
    HistoryEntry,
    Key,
    NewTurn,
    Page,
    RemoveFiles,
    Session,
    SessionChanges,
    Store,
    Turn,
)
from turnwire.stores.common import delete_in_bites, require_condition
from turnwire.stores.migrations import load_migrations
from turnwire.stores.postgres import calls, log, sessions, sweep, turns
from turnwire.stores.postgres.connection import connect, is_outage
from turnwire.stores.postgres.database import Database, Operation
from turnwire.stores.postgres.hold import Hold, close_quietly
from turnwire.stores.postgres.schema import check_database, connect_or_refuse, migrate, refusal
from turnwire.stores.postgres.writer import Writer

OPEN_TRIES = 3
"""A connection that is lost while the store is opened is made again: the database may just be starting, too."""

NAME_BYTES_MAX = 63
"""Of the name of a connection, in PostgreSQL."""


class PostgresStore:
    """`turnwire.seams.store.Store` in one PostgreSQL database. `open()` makes it."""

    def __init__(self, database: Database, clock: Clock | None, notes: list[str]) -> None:
        self.notes = notes
        """What the operator should know of the database, a sentence each."""
        self._database = database
        self._clock = clock
        self._writer = Writer(database, self._now)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        hold: bool = True,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> "PostgresStore":
        """Connect, and bring the tables to our version. StoreRefused when the database can't be used.

        Args:
            url: the database must be there; its tables are made, in a schema `turnwire`.
            clock: None, but in tests: the database's own clock.
            hold: whether this is the one server of the database. Without it the store is for single actions, such as
                adding a key, beside the server that may run.
            on_fatal: called on the event loop when another server has taken the database: this one must stop.
        """
        where, name = shown(url), _name()
        for left in reversed(range(OPEN_TRIES)):
            held = Hold(partial(connect, url, name), name=name, where=where, on_fatal=on_fatal) if hold else None
            try:
                notes = await _prepare(url, name, held)
            except Exception as exc:
                if not is_outage(exc):
                    raise
                if not left:
                    raise refusal(where, exc) from exc
            else:
                database = Database(url, name=name, where=where, hold=held)
                await database.open()
                return cls(database, clock, notes)
        raise AssertionError("the last try raises")

    @property
    def commits(self) -> int:
        """How many transactions were committed since the store was opened."""
        return self._database.commits

    async def close(self) -> None:
        self._database.hurry()
        await self._writer.close()
        await self._database.close()

    def _now(self) -> float | None:
        return None if self._clock is None else self._clock.now()

    async def _time(self) -> float:
        return await self._database.read(lambda db: db.fetchval("SELECT moment($1)", self._now()))

    # Sessions

    async def create_session(self, session: Session) -> None:
        await self._database.write(partial(sessions.create, session=session), repeatable=False)

    async def get_session(self, tenant: str, session_id: str) -> Session:
        return await self._database.read(partial(sessions.get, tenant=tenant, session_id=session_id))

    async def list_sessions(
        self, tenant: str, *, busy: bool | None = None, after: str | None = None, limit: int = 100
    ) -> list[Session]:
        return await self._database.read(partial(sessions.list_, tenant=tenant, busy=busy, after=after, limit=limit))

    async def update_session(self, tenant: str, session_id: str, changes: SessionChanges) -> Session:
        return await self._database.write(
            partial(sessions.update, tenant=tenant, session_id=session_id, changes=changes)
        )

    async def delete_session(self, tenant: str, session_id: str) -> str | None:
        return await self._database.write(
            partial(sessions.delete, tenant=tenant, session_id=session_id, now=self._now()), repeatable=False
        )

    async def delete_sessions(self, tenant: str, *, idle: bool, older_than_s: float | None) -> int:
        require_condition(idle, older_than_s)
        before = math.inf if older_than_s is None else await self._time() - older_than_s
        return await self._sweep(sessions.older(tenant, before), limit=None)

    async def expire_sessions(self, *, idle_ttl_s: float, limit: int) -> int:
        expired = 0
        for sweep_ in sessions.expired(await self._time(), idle_ttl_s):
            expired += await self._sweep(sweep_, limit=limit - expired)
        return expired

    async def _sweep(self, sweep_: sessions.Sweep, limit: int | None) -> int:
        return await delete_in_bites(
            lambda bite: self._database.read(partial(sessions.find, sweep=sweep_, limit=bite)),
            lambda found: self._database.write(
                partial(sessions.delete_found, sweep=sweep_, found=found, now=self._now())
            ),
            limit,
        )

    async def purge_sessions(self, *, limit: int, remove_files: RemoveFiles | None = None) -> list[Session]:
        purged: list[Session] = []
        for n in await self._database.read(partial(sweep.find_deleted, limit=limit)):
            try:
                session = await self._database.read(partial(sweep.describe, n=n))
            except NotFound:
                continue
            await self._bites(partial(sweep.purge_bite, session=n))
            if remove_files is not None and not await remove_files(session):
                continue
            if await self._database.write(partial(sweep.remove_session, session=n, now=self._now())):
                purged.append(session)
        await self._bites(partial(sweep.forget, now=self._now()))
        return purged

    async def _bites(self, bite: Operation[bool]) -> None:
        while await self._database.write(bite):
            pass

    # Turns

    async def begin_turn(self, new: NewTurn) -> Begun:
        return await self._database.write(partial(turns.begin, new=new, now=self._now()))

    def append(self, append: Append, done: AppendDone) -> None:
        self._writer.append(append, done)

    async def keep_summary(self, turn_id: str, epoch: int, summary: HistoryEntry, usage: Usage) -> bool:
        keep = partial(turns.keep_summary, turn_id=turn_id, epoch=epoch, summary=summary, usage=usage)
        return await self._database.write(keep, repeatable=False)

    async def get_turn(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        return await self._database.read(partial(turns.get, tenant=tenant, session_id=session_id, turn_id=turn_id))

    async def list_turns(
        self, tenant: str, session_id: str, *, after: str | None = None, limit: int = 100, newest_first: bool = True
    ) -> list[Turn]:
        return await self._database.read(
            partial(
                turns.list_, tenant=tenant, session_id=session_id, after=after, limit=limit, newest_first=newest_first
            )
        )

    async def request_cancel(self, tenant: str, session_id: str, turn_id: str) -> Turn:
        return await self._database.write(
            partial(turns.request_cancel, tenant=tenant, session_id=session_id, turn_id=turn_id)
        )

    async def cancel_requests(self, owner: str) -> list[str]:
        return await self._database.read(partial(turns.cancel_requests, owner=owner))

    # Calls that wait for their caller

    async def answer_calls(self, tenant: str, session_id: str, answers: Sequence[CallAnswer]) -> list[str]:
        return await self._database.write(
            partial(calls.answer_calls, tenant=tenant, session_id=session_id, answers=answers)
        )

    async def call_answers(self, turn_id: str) -> dict[str, CallAnswer | None]:
        return await self._database.read(partial(calls.call_answers, turn_id=turn_id))

    async def give_up_calls(self, turn_id: str, call_ids: Sequence[str]) -> dict[str, CallAnswer]:
        return await self._database.write(partial(calls.give_up_calls, turn_id=turn_id, call_ids=call_ids))

    # Leases

    async def take_over(self, owner: str, *, lease_s: float, everything: bool = False) -> list[Turn]:
        return await self._database.write(
            partial(turns.take_over, owner=owner, lease_s=lease_s, everything=everything, now=self._now()),
            repeatable=False,
            line=True,
        )

    async def renew_leases(self, owner: str, turn_ids: Sequence[str], *, lease_s: float) -> set[str]:
        return await self._database.write(
            partial(turns.renew_leases, owner=owner, turn_ids=turn_ids, lease_s=lease_s, now=self._now()), line=True
        )

    async def release_turns(self, owner: str, turn_ids: Sequence[str]) -> None:
        await self._database.write(partial(turns.release_turns, owner=owner, turn_ids=turn_ids), line=True)

    # Reading

    async def read_events(self, turn_id: str, first_seq: int, *, bytes_max: int) -> Page:
        return await self._database.read(
            partial(log.read_events, turn_id=turn_id, first_seq=first_seq, bytes_max=bytes_max)
        )

    async def read_history(self, session_id: str) -> list[HistoryEntry]:
        return await self._database.read(partial(log.read_history, session_id=session_id))

    # Retention

    async def drop_events(self, *, ended_before: float, limit: int) -> int:
        droppable = await self._database.read(partial(sweep.find_droppable, ended_before=ended_before, limit=limit))
        for n in droppable:
            await self._bites(partial(sweep.drop_bite, turn=n))
        return len(droppable)

    # Keys

    async def add_key(self, key: Key) -> None:
        await self._database.write(partial(sessions.add_key, key=key), repeatable=False)

    async def find_key(self, digest: bytes) -> Key | None:
        return await self._database.read(partial(sessions.find_key, digest=digest))

    async def list_keys(self) -> list[Key]:
        return await self._database.read(sessions.list_keys)

    async def remove_key(self, digest: bytes) -> bool:
        return await self._database.write(partial(sessions.remove_key, digest=digest))

    async def secret(self, name: str) -> bytes:
        return await self._database.write(partial(sessions.secret, name=name))


async def _prepare(url: str, name: str, held: Hold | None) -> list[str]:
    """Check the database, take it, and bring its tables to our version; what the operator should know of it."""
    where = shown(url)
    first = await connect_or_refuse(url, name)
    try:
        notes = await check_database(first, where)
        if held is not None:
            await held.take(first)
        await migrate(first, where, load_migrations("turnwire.stores.postgres"), held=held is not None)
    except BaseException:
        await close_quietly(first)
        raise
    if held is None:
        await close_quietly(first)
    else:
        held.keep(first)
    return notes


def _name() -> str:
    """What the database calls our connections; nobody else's are called so."""
    name = f"turnwire {secrets.token_hex(4)} pid {os.getpid()} on {socket.gethostname()}"
    return name.encode("ascii", "replace")[:NAME_BYTES_MAX].decode()


def _fits(store: PostgresStore) -> Store:  # pyright: ignore[reportUnusedFunction]
    """PostgresStore is a Store: the type checker says so."""
    return store
