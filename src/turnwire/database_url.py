"""The URL of a PostgreSQL database: whether it can be one, and how it is shown, which is without its password.

    postgresql://user:password@host:5432/database?sslmode=verify-full

What is not in it comes from the environment, as with psql: PGPASSWORD, PGPASSFILE, PGUSER, PGSSLMODE and the others.
"""

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

SCHEMES = ("postgresql", "postgres")
DURABLE = ("on", "remote_apply")
"""The values of PostgreSQL's synchronous_commit under which a crash loses nothing that was acknowledged."""


def check(url: str) -> None:
    """ValueError, whose text ends a sentence and holds nothing of the URL, when it can't be one."""
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        raise ValueError(
            "it can't be read: percent-encode what is special in the password (@ as %40, / as %2F, : as %3A)"
        ) from None
    if parts.scheme not in SCHEMES:
        raise ValueError("it must be a URL such as postgresql://user:password@host/database")
    # A / in the password ends the host, and what is behind it would be shown as the database's name.
    if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment:
        raise ValueError("percent-encode what is special in the password: @ as %40, / as %2F, # as %23")
    if not _database(parts).strip("/"):
        raise ValueError("it names no database: postgresql://user:password@host/database")
    if synchronous_commit(url) not in DURABLE:
        raise ValueError(
            "synchronous_commit must be on or remote_apply: with less a crash loses what callers have seen"
        )


def synchronous_commit(url: str) -> str:
    """The setting that connections are made with; only a URL can ask for another one than `on`."""
    return _query(urlsplit(url), "synchronous_commit") or "on"


def shown(url: str) -> str:
    """Which database it is, for people: `user@host:5432/database`."""
    parts = urlsplit(url)
    user = unquote(parts.username or "") or _query(parts, "user")
    host = parts.netloc.rpartition("@")[2] or _query(parts, "host")
    return f"{user}@{unquote(host)}/{_database(parts)}" if user else f"{unquote(host)}/{_database(parts)}"


def password(url: str) -> str | None:
    """The password, to be kept out of logs."""
    parts = urlsplit(url)
    return unquote(parts.password or "") or _query(parts, "password") or None


def _database(parts: SplitResult) -> str:
    """The name as the driver takes it: from the path, were it but a slash, all of which is the name."""
    return unquote(parts.path[1:]) if parts.path else _query(parts, "dbname", "database")


def _query(parts: SplitResult, *names: str) -> str:
    values = dict(parse_qsl(parts.query))
    return next((values[name] for name in names if values.get(name)), "")
