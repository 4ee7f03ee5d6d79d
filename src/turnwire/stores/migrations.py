"""The steps of a database's schema: numbered SQL files that ship with the program."""

import re
from importlib import resources
from typing import NamedTuple


class Migration(NamedTuple):
    """One step of the schema; steps are numbered from 1 without gaps."""

    version: int
    name: str
    sql: str


def load_migrations(package: str) -> list[Migration]:
    """The steps in the folder `migrations` of a store's package, in order."""
    folder = resources.files(package) / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    migrations: list[Migration] = []
    for expected, file in enumerate(files, 1):
        match = re.fullmatch(r"(\d{4})_\w+\.sql", file.name)
        assert match and int(match[1]) == expected, f"migrations must be numbered without gaps: {file.name}"
        migrations.append(Migration(expected, file.name, file.read_text("utf-8")))
    return migrations
