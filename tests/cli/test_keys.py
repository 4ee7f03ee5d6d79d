"""`turnwire keys`: made, shown once, listed without their texts, taken away; beside a running server too."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from turnwire.datadir import DataDir
from turnwire.seams.store import Key
from turnwire.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from cli.conftest import Program, Server


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def test_a_key_is_printed_once_and_kept_as_its_hash(turnwire: "Program") -> None:
    text = turnwire("keys", "create", "laptop", "--tenant", "acme").out.strip()

    assert re.fullmatch(r"tw_acme_[A-Za-z0-9_-]{43}", text)
    store = await SQLiteStore.open(turnwire.data / "turnwire.db")
    try:
        key = await store.find_key(digest(text))
    finally:
        await store.close()
    assert key is not None
    assert (key.tenant, key.name) == ("acme", "laptop")
    assert abs(key.created_at - time.time()) < 60
    for file in turnwire.data.iterdir():
        assert text.encode() not in file.read_bytes()


def test_the_list_shows_everything_but_the_texts(turnwire: "Program") -> None:
    one = turnwire("keys", "create", "one").out.strip()
    two = turnwire("keys", "create", "two", "--tenant", "acme").out.strip()

    out = turnwire("keys", "list").out

    head, *rows = (line.split() for line in out.splitlines())
    assert head == ["ID", "NAME", "TENANT", "CREATED"]
    assert [row[:3] for row in rows] == [
        [digest(two).hex()[:12], "two", "acme"],
        [digest(one).hex()[:12], "one", "default"],
    ]
    assert one not in out and two not in out

    lines = [json.loads(line) for line in turnwire("keys", "list", "--json").out.splitlines()]
    assert [line.pop("created_at") for line in lines] == [pytest.approx(time.time(), abs=60)] * 2
    assert lines == [
        {"id": digest(two).hex()[:12], "name": "two", "tenant": "acme"},
        {"id": digest(one).hex()[:12], "name": "one", "tenant": "default"},
    ]


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_key_is_revoked_by_its_name_or_its_id(by: str, turnwire: "Program") -> None:
    text = turnwire("keys", "create", "one").out.strip()
    key_id = digest(text).hex()[:12]

    out = turnwire("keys", "revoke", "one" if by == "name" else key_id).out

    assert out == f"revoked {key_id} (one, tenant default)\n"
    assert turnwire("keys", "list").out.split() == ["ID", "NAME", "TENANT", "CREATED"]


async def test_a_name_that_two_keys_have_revokes_neither(turnwire: "Program") -> None:
    with DataDir.open(turnwire.data) as data:
        store = await SQLiteStore.open(data.database)
        for text in ("a", "b"):
            await store.add_key(Key(digest(text), "default", "twin", time.time()))
        await store.close()

    sentence = turnwire.fails("keys", "revoke", "twin", code=1)

    assert digest("a").hex()[:12] in sentence and digest("b").hex()[:12] in sentence
    assert turnwire("keys", "list").out.count("twin") == 2


def test_a_name_is_given_once(turnwire: "Program") -> None:
    turnwire("keys", "create", "one")

    assert "'one' is there already" in turnwire.fails("keys", "create", "one", "--tenant", "acme", code=1)


@pytest.mark.parametrize("tenant", ["", "Acme", "a_b", "a/b", "..", "-a", "a" * 64])
def test_a_tenant_that_could_be_no_folder_is_refused(tenant: str, turnwire: "Program") -> None:
    assert turnwire.fails("keys", "create", "x", "--tenant", tenant, code=2).startswith("--tenant: ")
    assert not turnwire.data.exists()


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101])
def test_a_name_that_is_no_name_is_refused(name: str, turnwire: "Program") -> None:
    assert turnwire.fails("keys", "create", name, code=2).startswith("NAME: ")


def test_what_is_not_there_is_one_sentence(turnwire: "Program") -> None:
    assert "makes one at its first start" in turnwire.fails("keys", "show", code=1)
    assert "has no database yet" in turnwire.fails("keys", "list", code=1)
    assert not turnwire.data.exists()
    turnwire("keys", "create", "one")
    assert "No key has the name or id 'two'" in turnwire.fails("keys", "revoke", "two", code=1)


def test_a_database_that_is_none_is_one_sentence(turnwire: "Program") -> None:
    turnwire.data.mkdir(parents=True)
    (turnwire.data / "turnwire.db").write_text("this is no database" * 100)

    assert "no SQLite database" in turnwire.fails("keys", "list", code=1)


def test_show_prints_the_key_in_force(turnwire: "Program") -> None:
    with DataDir.open(turnwire.data) as data:
        text, _ = data.key()

    assert turnwire("keys", "show").out == f"{text}\n"
    assert turnwire("keys", "show", TURNWIRE_API_KEY="a chosen one").out == "a chosen one\n"


@pytest.mark.slow
def test_a_running_server_takes_a_new_key_and_refuses_a_revoked_one(
    turnwire: "Program", start: "Callable[..., Server]"
) -> None:
    server = start()
    key = turnwire("keys", "create", "late").out.strip()
    assert server.get("/v1/sessions", key) == (200, [])

    turnwire("keys", "revoke", "late")

    deadline = time.monotonic() + 15
    while server.get("/v1/sessions", key)[0] != 401:
        assert time.monotonic() < deadline, "the revoked key is still taken"
        time.sleep(0.2)


@pytest.mark.slow
def test_revoking_the_generated_key_makes_the_next_start_generate_another(
    turnwire: "Program", start: "Callable[..., Server]"
) -> None:
    start().stop()
    old = turnwire("keys", "show").out.strip()

    out = turnwire("keys", "revoke", digest(old).hex()[:12]).out

    assert "the next start of the server makes a new one" in out
    server = start()
    new = turnwire("keys", "show").out.strip()
    assert new != old
    assert (server.get("/v1/sessions", old)[0], server.get("/v1/sessions", new)[0]) == (401, 200)
