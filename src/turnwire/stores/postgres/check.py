"""Reads a whole database and says what is wrong with it: for `turnwire doctor --deep`."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from turnwire.database_url import shown
from turnwire.stores.common import StoreRefused
from turnwire.stores.migrations import load_migrations
from turnwire.stores.postgres.connection import Connection, in_words, is_outage
from turnwire.stores.postgres.hold import close_quietly, holder
from turnwire.stores.postgres.rows import Row
from turnwire.stores.postgres.schema import (
    check_database,
    connect_or_refuse,
    read_version,
    refusal,
    without_rights,
)
from turnwire.stores.segments import FAULTS_MAX, Checked, faults_of_turn

PACKAGE = "turnwire.stores.postgres"
TURNS_MAX = 500
"""Turns that are looked up at once."""

_TURNS = "SELECT n, id, last_seq, ended_at IS NOT NULL FROM turns WHERE events = 0 AND n > $1 ORDER BY n LIMIT $2"
_SEGMENTS = "SELECT first_seq, last_seq, checksum, frames FROM segments WHERE turn = $1 ORDER BY first_seq"


class Look(NamedTuple):
    """`version`: of its tables, 0 when there are none; `holder`: the server that runs on it; `notes`: what the
    operator should know."""

    version: int
    holder: str | None
    notes: list[str]


async def look(url: str) -> Look:
    """Changes nothing. StoreRefused when the database can't be used."""
    where = shown(url)
    async with _reading(url) as db:
        notes = await check_database(db, where)
        version = await read_version(db, where)
        if version > (ours := len(load_migrations(PACKAGE))):
            raise StoreRefused(
                f"The database {where} has the version {version}, this turnwire knows versions up to {ours}."
            )
        return Look(version, await holder(db), notes)


async def check_all(url: str) -> Checked:
    """Every segment's checksum, and the grammar of every turn whose events are kept. Reads only; a server may run
    meanwhile. StoreRefused when the database can't be used."""
    faults: list[str] = []
    turns = events = 0
    async with _reading(url) as db:
        # A turn that runs goes on while it is read: one transaction sees all of it at one moment.
        await db.transaction(isolation="repeatable_read", readonly=True).start()
        async for n, id_, last_seq, ended in _turns(db):
            turns += 1
            events += last_seq + 1
            faults += faults_of_turn(await db.fetch(_SEGMENTS, n), n, id_, last_seq, ended=ended)
            if len(faults) >= FAULTS_MAX:
                break
    return Checked(turns, events, faults[:FAULTS_MAX])


@asynccontextmanager
async def _reading(url: str) -> AsyncGenerator[Connection]:
    """A connection to look with. StoreRefused when there is none, when it is lost, and for what it may not read."""
    where = shown(url)
    db = await connect_or_refuse(url, "turnwire doctor")
    try:
        yield db
    except asyncpg.InsufficientPrivilegeError as exc:
        raise without_rights(where, f"to read it ({in_words(exc)})") from exc
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        if is_outage(exc):
            raise refusal(where, exc) from exc
        raise StoreRefused(f"The database {where} can't be read ({in_words(exc)}).") from exc
    finally:
        await close_quietly(db)


async def _turns(db: Connection) -> AsyncIterator[Row]:
    n = 0
    while rows := await db.fetch(_TURNS, n, TURNS_MAX):
        for row in rows:
            yield row
        n = rows[-1][0]
