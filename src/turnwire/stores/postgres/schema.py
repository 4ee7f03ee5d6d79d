"""Opening the database: is it ours, durable, and of our version; migrations.

Everything that is wrong with it is a `StoreRefused`: one sentence that names the database, and what to do.
"""

import asyncio
import re
from collections.abc import Sequence

import asyncpg

from turnwire.database_url import shown
from turnwire.stores.common import StoreRefused
from turnwire.stores.migrations import Migration
from turnwire.stores.postgres.connection import Connection, connect, in_words, is_outage
from turnwire.stores.postgres.hold import LOCK_CLASS, LOCK_OF_MIGRATIONS, LOCK_OF_THE_SERVER, TRY, holder

VERSION_MIN = 14
"""Functions whose body is an expression; the oldest that is still looked after is newer."""

SCHEMA = "turnwire"
"""Where all our tables are, whatever else the database holds."""

STEP_TIMEOUT_S = 24 * 3600.0
"""Of a migration: over large tables it takes what it takes."""

_VERSIONS = """
CREATE TABLE schema_version (
    version    integer     NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


async def connect_or_refuse(url: str, name: str) -> Connection:
    """A connection; StoreRefused, without the password, when there is none."""
    try:
        return await connect(url, name)
    except Exception as exc:
        raise refusal(shown(url), exc) from exc


def refusal(where: str, exc: BaseException) -> StoreRefused:
    """The sentence for a database that can't be connected to, or was lost again at once."""
    match exc:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return StoreRefused(
                f"The database {where} does not let this user in: see to the user and the password in "
                "TURNWIRE_DATABASE_URL (or PGPASSWORD), and to pg_hba.conf."
            )
        case asyncpg.InvalidCatalogNameError():
            return StoreRefused(f"There is no database {where}: make it with createdb, or name another.")
        case asyncpg.InsufficientResourcesError():
            return StoreRefused(f"The database {where} takes no more connections: see to max_connections.")
        case asyncpg.CannotConnectNowError():
            return StoreRefused(f"The database {where} is starting up or shutting down: try again in a moment.")
        case asyncpg.exceptions.TargetServerAttributeNotMatched():
            return StoreRefused(f"The database {where} is a standby, which takes no writes: name the primary.")
        case TimeoutError():
            reason = "it does not answer"
        case OSError():
            reason = exc.strerror or in_words(exc)
        case _:
            reason = in_words(exc)
    return StoreRefused(
        f"The database {where} can't be reached ({reason}): see whether it runs, and to its address in "
        "TURNWIRE_DATABASE_URL."
    )


async def check_database(db: Connection, where: str) -> list[str]:
    """StoreRefused when it can't hold what we store; else what the operator should know, a sentence each."""
    version = int(await db.fetchval("SHOW server_version_num")) // 10_000
    if version < VERSION_MIN:
        raise StoreRefused(f"The database {where} is PostgreSQL {version}: turnwire needs {VERSION_MIN} or newer.")
    encoding = await db.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreRefused(
            f"The database {where} is in {encoding}: make one in UTF8 (createdb --encoding=UTF8 --template=template0)."
        )
    return [
        f"The database runs with {setting}=off: a crash of its machine may lose what callers have seen."
        for setting in ("fsync", "full_page_writes")
        if await db.fetchval(f"SHOW {setting}") == "off"
    ]


async def migrate(db: Connection, where: str, migrations: Sequence[Migration], *, held: bool) -> None:
    """Bring the tables to our version, each step in a transaction of its own that also counts it. `held`: this
    program has the database; without it, nothing is changed under a server that runs."""
    try:
        await db.execute("SELECT pg_advisory_lock($1, $2)", LOCK_CLASS, LOCK_OF_MIGRATIONS)
        try:
            version = await read_version(db, where)
            if version > len(migrations):
                raise StoreRefused(
                    f"The database {where} has the version {version}, this turnwire knows versions up to "
                    f"{len(migrations)}: start the newer turnwire that wrote it, or restore a backup from before it."
                )
            if version < len(migrations) and not held:
                await _require_no_server(db, where)
            for migration in migrations[version:]:
                await _apply(db, migration)
            await _require_rights(db, where, migrations)
        finally:
            if not db.is_closed():
                await db.execute("SELECT pg_advisory_unlock($1, $2)", LOCK_CLASS, LOCK_OF_MIGRATIONS)
    except asyncpg.InsufficientPrivilegeError as exc:
        raise StoreRefused(
            f"The user of the database {where} may not make the tables ({in_words(exc)}): let it own the database, or "
            f"run CREATE SCHEMA {SCHEMA} AUTHORIZATION for it."
        ) from exc
    except asyncpg.PostgresError as exc:
        if is_outage(exc):
            raise
        raise StoreRefused(f"The database {where} can't be brought to this version ({in_words(exc)}).") from exc


async def _require_no_server(db: Connection, where: str) -> None:
    if not await db.fetchval(TRY, LOCK_CLASS, LOCK_OF_THE_SERVER):
        raise StoreRefused(
            f"The database {where} is in use by a server of another version ({await holder(db)}): start that one anew "
            "with this version first."
        )


_WITHOUT_RIGHTS = """
SELECT oid::regclass::text FROM pg_class
WHERE relnamespace = to_regnamespace($1) AND relname = ANY($2::text[])
  AND NOT (SELECT bool_and(has_table_privilege(oid, what)) FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS what)
ORDER BY relname LIMIT 1
"""


async def _require_rights(db: Connection, where: str, migrations: Sequence[Migration]) -> None:
    """Tables that another user has made, in a step or from a backup, would fail one call after another."""
    ours = [
        name for migration in migrations for name in re.findall(r"^CREATE TABLE (\w+)", migration.sql, re.MULTILINE)
    ]
    table = await db.fetchval(_WITHOUT_RIGHTS, SCHEMA, ours)
    if table is not None:
        raise without_rights(where, f"to the table {table}")


def without_rights(where: str, which: str) -> StoreRefused:
    """The sentence for a user who may not use the tables that are there."""
    return StoreRefused(
        f"The user of the database {where} has no right {which}: let it own the schema {SCHEMA} and all its tables."
    )


async def read_version(db: Connection, where: str) -> int:
    """The version of the tables; 0: there are none yet. StoreRefused when they are another program's."""
    if await db.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.schema_version") is not None:
        return await db.fetchval("SELECT coalesce(max(version), 0) FROM schema_version")
    tables = await db.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = $1", SCHEMA)
    if tables:
        raise StoreRefused(
            f"The database {where} has a schema {SCHEMA} of another program: give turnwire a database of its own."
        )
    return 0


async def _apply(db: Connection, migration: Migration) -> None:
    transaction = db.transaction()
    await transaction.start()
    try:
        if migration.version == 1:
            if await db.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None:
                await db.execute(f"CREATE SCHEMA {SCHEMA}")
            await db.execute(_VERSIONS)
        await db.execute(migration.sql, timeout=STEP_TIMEOUT_S)
        await db.execute(
            "INSERT INTO schema_version (version, name) VALUES ($1, $2)", migration.version, migration.name
        )
        await transaction.commit()
    except (Exception, asyncio.CancelledError):
        if not db.is_closed():
            await transaction.rollback()
        raise
