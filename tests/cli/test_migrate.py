"""`turnwire migrate`: the database brought to this version, beside no server."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from clusters import IN_URL, PASSWORD

if TYPE_CHECKING:
    from cli.conftest import Program, Server


def test_a_new_database_is_made_and_one_of_this_version_is_left_alone(turnwire: "Program") -> None:
    path = turnwire.data / "turnwire.db"

    assert turnwire("migrate").out == f"The database {path} was brought from version 0 to 1.\n"
    assert turnwire("migrate").out == f"The database {path} is up to date, at version 1.\n"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM turns").fetchone() == (0,)


def test_one_of_a_newer_version_is_refused_and_not_touched(turnwire: "Program") -> None:
    path = turnwire.data / "turnwire.db"
    turnwire("migrate")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")

    sentence = turnwire.fails("migrate", code=1)
    assert "has the version 99, this turnwire knows versions up to 1: start the newer turnwire" in sentence
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.slow
def test_beside_a_server_nothing_is_done(turnwire: "Program", start: "Callable[..., Server]") -> None:
    server = start()

    assert f"in use by another server (pid {server.process.pid})" in turnwire.fails("migrate", code=1)


@pytest.mark.slow
@pytest.mark.tool("postgres")
def test_on_postgresql(turnwire: "Program", start: "Callable[..., Server]", database: str) -> None:
    name = f"turnwire@{database.rpartition('@')[2]}"
    of_it = {"TURNWIRE_DATABASE_URL": database}

    assert turnwire("migrate", **of_it).out == f"The database PostgreSQL, {name} was brought from version 0 to 1.\n"
    assert turnwire("migrate", **of_it).out == f"The database PostgreSQL, {name} is up to date, at version 1.\n"
    assert not (turnwire.data / "turnwire.db").exists()
    start(**of_it)
    sentence = turnwire.fails("migrate", code=1, **of_it)
    assert "is in use by another server" in sentence
    assert PASSWORD not in sentence and IN_URL not in sentence
