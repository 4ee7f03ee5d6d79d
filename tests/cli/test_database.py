"""The program on PostgreSQL: it starts, says which database it is, and never shows the password."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clusters import IN_URL, PASSWORD, Cluster

if TYPE_CHECKING:
    from cli.conftest import Program, Server

pytestmark = [pytest.mark.slow, pytest.mark.tool("postgres")]


def without_password(text: str) -> str:
    assert PASSWORD not in text and IN_URL not in text
    return text


def test_a_server_says_its_database_and_is_the_only_one_on_it(
    turnwire: "Program", start: "Callable[..., Server]", database: str, tmp_path: Path
) -> None:
    server = start(TURNWIRE_DATABASE_URL=database)
    shown = without_password("\n".join(server.lines))
    assert f"\n  database PostgreSQL, turnwire@{database.rpartition('@')[2]}\n" in shown
    # The cluster of the tests is not one to keep anything in.
    assert "warning  The database runs with fsync=off" in shown
    assert not (turnwire.data / "turnwire.db").exists()

    other = str(tmp_path / "other")
    words = ("serve", "--port", "0", "--model", "demo", "--data-dir", other)
    sentence = without_password(turnwire.fails(*words, code=1, TURNWIRE_DATABASE_URL=database))
    assert "is in use by another server (turnwire " in sentence and f" pid {server.process.pid} on " in sentence

    key = turnwire("keys", "create", "laptop", TURNWIRE_DATABASE_URL=database).out.strip()
    assert server.get("/v1/sessions", key) == (200, [])
    listed = turnwire("keys", "list", TURNWIRE_DATABASE_URL=database).out
    assert "laptop" in listed and "data folder" in listed
    assert turnwire("keys", "revoke", "laptop", TURNWIRE_DATABASE_URL=database).out.startswith("revoked ")

    found = without_password(turnwire("doctor", "--deep", "--model", "demo", TURNWIRE_DATABASE_URL=database).out)
    assert "note     database        PostgreSQL, turnwire@127.0.0.1" in found
    assert "tables of version 1, in use by a server (turnwire " in found
    assert "ok       database        0 turns with 0 events, all as they were written" in found
    assert server.stop() == 0
    assert server.process.stderr is not None
    without_password(server.process.stderr.read())


def test_the_doctor_looks_at_a_database_and_changes_nothing(
    turnwire: "Program", database: str, cluster: Cluster
) -> None:
    found = turnwire("doctor", "--model", "demo", "--deep", TURNWIRE_DATABASE_URL=database).out

    assert "ok       database        PostgreSQL, turnwire@127.0.0.1" in found and "no tables yet" in found
    assert cluster.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'turnwire'", "tests") == "0"


def test_a_database_that_can_not_be_used_is_one_sentence(turnwire: "Program", database: str, cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    cases = {
        database.replace(IN_URL, "wrong-secret"): "does not let this user in: see to the user and the password",
        database.replace("/tests", "/none"): f"There is no database turnwire@127.0.0.1:{cluster.port}/none",
        f"postgresql://u:wrong-secret@127.0.0.1:{nobody}/d": "can't be reached",
        "postgresql://u:wrong-secret@no.such.host.invalid/d": "can't be reached",
    }
    for url, said in cases.items():
        for words in (["serve", "--port", "0", "--model", "demo"], ["keys", "list"]):
            sentence = without_password(turnwire.fails(*words, code=1, TURNWIRE_DATABASE_URL=url))
            assert said in sentence and "wrong-secret" not in sentence
        found = turnwire("doctor", "--model", "demo", code=1, TURNWIRE_DATABASE_URL=url).out
        assert said in found and "wrong-secret" not in found


def test_the_settings_hide_it(turnwire: "Program", database: str) -> None:
    shown = without_password(turnwire("settings", TURNWIRE_DATABASE_URL=database).out)

    assert "database_url = (hidden)  # TURNWIRE_DATABASE_URL in the environment" in shown


def test_a_name_that_is_nearly_right_is_told(turnwire: "Program") -> None:
    sentence = turnwire.fails("serve", code=2, TURNWIRE_DATABASE="postgresql://u:secret@h/d")

    assert sentence.endswith("did you mean TURNWIRE_DATABASE_URL?")
