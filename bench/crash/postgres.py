"""What a PostgreSQL holds of a server that was killed."""

import asyncio
from typing import Any

import asyncpg

GONE_TIMEOUT_S = 30.0
"""How long the connections of a killed process may be seen: the database notices at its next word to them."""

_CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'turnwire %'
"""
_RUNNING = """
SELECT id, frames FROM turnwire.turns JOIN turnwire.segments ON turn = n WHERE ended_at IS NULL ORDER BY n, first_seq
"""


async def read(url: str) -> tuple[dict[str, int], list[tuple[str, bytes]]]:
    """The last event of each turn, and the segments of those that run, once the dead server's connections are gone: a
    commit that it had asked for may still be under way."""
    db: Any = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(GONE_TIMEOUT_S):
            while await db.fetchval(_CONNECTIONS):  # noqa: ASYNC110  (nothing tells of it)
                await asyncio.sleep(0.005)
        last = dict(await db.fetch("SELECT id, last_seq FROM turnwire.turns"))
        return last, [(id_, frames) for id_, frames in await db.fetch(_RUNNING)]
    finally:
        await db.close()


async def require_empty(url: str) -> None:
    """SystemExit when there is anything of a server's in the database: a bench spoils what it finds."""
    db: Any = await asyncpg.connect(url)
    try:
        if await db.fetchval("SELECT to_regnamespace('turnwire')") is not None:
            raise SystemExit("The database is in use, or was: give the bench an empty one.")
    finally:
        await db.close()
