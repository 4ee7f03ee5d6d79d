"""`turnwire keys`: the keys in the database, and the generated one in its file in the data folder."""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from turnwire.cli import Failed
from turnwire.cli.tables import print_json, print_table
from turnwire.datadir import DataDir, holder, new_key
from turnwire.seams.store import Key, Store
from turnwire.settings import Settings, SettingsError, load_settings

T = TypeVar("T")

TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""Also the name of a folder, on file systems that don't tell capital letters from small ones."""

NAME_CHARACTERS_MAX = 100
ID_CHARACTERS = 12
"""Of the hash, in hexadecimal: enough to tell keys apart, no help in guessing one."""


def show(config: Path | None, data_dir: Path | None) -> None:
    """Print the key: the chosen one of the settings, else the one in the data folder."""
    settings = load_settings(config, data_dir=data_dir)
    if settings.api_key is not None:
        print(settings.api_key.get_secret_value())
        return
    text = DataDir(settings.data_dir).read_key()
    if text is None:
        raise Failed(
            f"No key is in the data folder {settings.data_dir}: `turnwire serve` makes one at its first start."
        )
    print(text)


def list_keys(config: Path | None, data_dir: Path | None, *, as_json: bool) -> None:
    keys = _with_store(_existing(config, data_dir), lambda store: store.list_keys())
    keys.sort(key=lambda key: (key.tenant, key.created_at, key.name))
    if as_json:
        for key in keys:
            print_json({"id": _id(key), "name": key.name, "tenant": key.tenant, "created_at": key.created_at})
        return
    rows = [("ID", "NAME", "TENANT", "CREATED")]
    for key in keys:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.created_at))
        rows.append((_id(key), key.name, key.tenant, made))
    print_table(rows)


def create(config: Path | None, data_dir: Path | None, *, name: str, tenant: str) -> None:
    """Keep the hash of a new key, and print the key."""
    if not TENANT.fullmatch(tenant):
        raise SettingsError(
            f"--tenant: {tenant!r} is not allowed, it must be 1 to 63 small letters, digits and hyphens, the first "
            "of them no hyphen."
        )
    if not name.strip() or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise SettingsError(f"NAME: it must be printable text of 1 to {NAME_CHARACTERS_MAX} characters.")
    text = new_key(tenant)
    new = Key(digest=_digest(text), tenant=tenant, name=name.strip(), created_at=time.time())

    async def add(store: Store) -> None:
        if any(key.name == new.name for key in await store.list_keys()):
            raise Failed(f"A key with the name {new.name!r} is there already: choose another name, or revoke that one.")
        await store.add_key(new)

    _with_store(load_settings(config, data_dir=data_dir), add)
    print(text)


def revoke(config: Path | None, data_dir: Path | None, wanted: str) -> None:
    """Remove the key of this name or id; the generated one goes from its file too."""
    settings = _existing(config, data_dir)

    async def remove(store: Store) -> Key:
        keys = await store.list_keys()
        found = [key for key in keys if key.name == wanted] or [key for key in keys if _id(key) == wanted.lower()]
        if not found:
            raise Failed(f"No key has the name or id {wanted!r}: `turnwire keys list` lists all.")
        if len(found) > 1:
            ids = ", ".join(map(_id, found))
            raise Failed(f"{len(found)} keys have the name {wanted!r}: say which by its id ({ids}).")
        await store.remove_key(found[0].digest)
        return found[0]

    key = _with_store(settings, remove)
    print(f"revoked {_id(key)} ({key.name}, tenant {key.tenant})")
    data = DataDir(settings.data_dir)
    if (text := data.read_key()) is not None and _digest(text) == key.digest:
        data.key_file.unlink(missing_ok=True)
        print("It was the generated key: the next start of the server makes a new one.")


def _existing(config: Path | None, data_dir: Path | None) -> Settings:
    """The settings, when their data folder has a database, or needs none: looking at keys makes none."""
    settings = load_settings(config, data_dir=data_dir)
    if settings.database is None and not DataDir(settings.data_dir).database.exists():
        raise Failed(f"The data folder {settings.data_dir} has no database yet: `turnwire serve` makes it.")
    return settings


def _with_store(settings: Settings, action: Callable[[Store], Awaitable[T]]) -> T:
    """Open the store for one action. The embedded one's folder is held meanwhile where no server runs; beside one,
    the database itself keeps the two writers apart."""
    with ExitStack() as stack:
        if settings.database is None and holder(settings.data_dir) is None:
            data = stack.enter_context(DataDir.open(settings.data_dir))
        else:
            data = DataDir(settings.data_dir)
        return asyncio.run(_act(data.database, settings, action))


async def _act(database: Path, settings: Settings, action: Callable[[Store], Awaitable[T]]) -> T:
    from turnwire.stores.choose import open_store

    store, _ = await open_store(settings.database, database, synchronous=settings.sqlite_synchronous, hold=False)
    try:
        return await action(store)
    finally:
        await store.close()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _id(key: Key) -> str:
    return key.digest.hex()[:ID_CHARACTERS]
