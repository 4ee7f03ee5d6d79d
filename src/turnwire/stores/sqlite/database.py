"""Opening the database file: is it ours, whole, and of our version; migrations; connections.

Everything that is wrong with the file is a `StoreRefused`: one sentence that names the file, and what to do.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from turnwire.seams.store import StoreDamaged
from turnwire.stores.common import StoreRefused
from turnwire.stores.migrations import Migration, load_migrations
from turnwire.stores.sqlite.log import check_newest

Synchronous = Literal["FULL", "NORMAL"]

SQLITE_VERSION_MIN = (3, 37, 0)
"""STRICT tables; RETURNING and UPDATE … FROM are older."""

APPLICATION_ID = 0x74776972
"""'twir', in the header of the file."""

WRITER_BUSY_MS = 250
"""How long one try for the write lock waits; the writer tries again for as long as it takes."""

READER_BUSY_MS = 5_000
"""A reader waits only for what takes moments, such as the reset of the write-ahead log."""

STATEMENTS_CACHED = 256

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\0"
_DAMAGED = "restore a backup of the data folder, or move the file away to begin with an empty store"


def open_database(
    path: Path, synchronous: Synchronous, migrations: list[Migration] | None = None
) -> sqlite3.Connection:
    """The writing connection, on a file that was checked and brought to our version. StoreRefused when it can't be."""
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        needed = ".".join(map(str, SQLITE_VERSION_MIN))
        raise StoreRefused(
            f"This Python has SQLite {sqlite3.sqlite_version}, turnwire needs {needed} or newer: use a newer Python."
        )
    _check_header(path)
    try:
        db = connect(path, WRITER_BUSY_MS)
    except sqlite3.Error as exc:
        raise StoreRefused(f"The database {path} can't be opened ({exc}): check its folder and its owner.") from exc
    try:
        _prepare(db, path, synchronous, load_migrations("turnwire.stores.sqlite") if migrations is None else migrations)
    except (sqlite3.DatabaseError, StoreDamaged) as exc:
        db.close()
        raise _refusal(path, exc) from exc
    except BaseException:
        db.close()
        raise
    return db


READER_CACHE_KIB = 256
"""Pages that each reader keeps, instead of SQLite's 2 MiB: followers that have caught up read nothing, the others go
through a log once, and the system's own cache has the file."""


def connect(path: Path, busy_ms: int, *, query_only: bool = False) -> sqlite3.Connection:
    """A connection that begins and ends transactions only when it is told to, and may change threads."""
    db = sqlite3.connect(
        path,
        timeout=busy_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_CACHED,
    )
    db.execute("PRAGMA foreign_keys = ON")
    if query_only:
        db.execute("PRAGMA query_only = ON")
        db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return db


def _prepare(db: sqlite3.Connection, path: Path, synchronous: Synchronous, migrations: list[Migration]) -> None:
    if not _check_version(db, path, len(migrations)):
        # Before the first page is written: later it would take a rewrite of the whole file.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreRefused(f"The database {path} can't use a write-ahead log: keep it on a local file system.")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    migrate(db, migrations)
    # What the last run left in the write-ahead log goes into the file: then its size tells whether it is whole.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    _check_size_of_open(db, path)
    check_newest(db)
    _sync_folder(path.parent)


def migrate(db: sqlite3.Connection, migrations: list[Migration]) -> None:
    """Apply what is missing, each step in a transaction of its own that also counts it."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for migration in migrations[version:]:
        try:
            db.executescript(f"BEGIN IMMEDIATE;\n{migration.sql}\n;PRAGMA user_version = {migration.version};\nCOMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _check_header(path: Path) -> None:
    """A missing or empty file is a new database; any other must begin as SQLite's do."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StoreRefused(f"The database {path} can't be read: {exc.strerror}.") from exc
    if header and (len(header) < _HEADER_BYTES or not header.startswith(_MAGIC)):
        raise StoreRefused(f"The file {path} is no SQLite database: {_DAMAGED}.")
    wal = path.with_name(path.name + "-wal")
    if header and not (wal.exists() and wal.stat().st_size):
        # With a write-ahead log the file may rightly be short: a checkpoint was cut off, and is made again.
        _check_size(path)


def _check_version(db: sqlite3.Connection, path: Path, ours: int) -> bool:
    """Whether there is anything in the database; what is there must be ours, and no newer than this program."""
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise StoreRefused(f"The database {path} belongs to another program: choose another data folder.")
    if version > ours:
        raise StoreRefused(
            f"The database {path} has the version {version}, this turnwire knows versions up to {ours}: "
            "start the newer turnwire that wrote it, or restore a backup from before it."
        )
    return bool(tables)


def _check_size_of_open(db: sqlite3.Connection, path: Path) -> None:
    """As `_check_size`, of a file that this process has open, and so by its name alone: closing another descriptor of
    it would let go of the locks by which SQLite shows that this process uses the database (POSIX locks are like that).
    Whichever program opened and closed the database next would take itself for the last one and remove the write-ahead
    log, and what this process wrote after that would be in a file without a name."""
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    size = path.stat().st_size
    wal = path.with_name(path.name + "-wal")
    # Somebody else may be writing: then the rest is in the log.
    if size < pages * page_bytes and not (wal.exists() and wal.stat().st_size):
        raise StoreRefused(
            f"The database {path} is cut off: {size} bytes where there should be {pages * page_bytes}: {_DAMAGED}."
        )


def _check_size(path: Path) -> None:
    """Only while this process has no connection to the file; see `_check_size_of_open`."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    page_bytes = int.from_bytes(header[16:18])
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    expected = int.from_bytes(header[28:32]) * page_bytes
    if size < expected:
        raise StoreRefused(
            f"The database {path} is cut off: {size} bytes where there should be {expected}: {_DAMAGED}."
        )


def _refusal(path: Path, exc: Exception) -> StoreRefused:
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if isinstance(exc, StoreDamaged) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreRefused(f"The database {path} is damaged ({exc}): {_DAMAGED}.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreRefused(f"The database {path} is locked by another program: end that program first.")
    if code == sqlite3.SQLITE_FULL:
        return StoreRefused(f"The database {path} can't be written, its disk is full: make room.")
    return StoreRefused(f"The database {path} can't be used ({exc}): check its folder and its owner.")


def _sync_folder(folder: Path) -> None:
    """The entry of a new file in its folder must be as durable as its content."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_version(path: Path) -> int:
    """The version of a database, without changing it."""
    with closing(connect(path, READER_BUSY_MS, query_only=True)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return version
