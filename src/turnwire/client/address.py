"""Where the server is, and the key for it: from the arguments, else from the environment."""

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from turnwire.client.errors import ClientError

VARIABLES = (("TURNWIRE_URL", "TURNWIRE_KEY"), ("POKEE_API", "POKEE_KEY"))
"""The pairs that are looked up, in this order: an address and its key."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def find_server(url: str | None, key: str | None, environ: Mapping[str, str] = os.environ) -> tuple[str, str | None]:
    """The server's address without a slash at its end, and a key or None.

    A key of the environment goes only to the address that stands beside it, or with TURNWIRE_KEY alone to whatever
    address is given: a key is never shown to another server than its own.
    """
    pairs = [(environ.get(u, "").strip(), environ.get(k, "").strip(), u) for u, k in VARIABLES]
    if url is None:
        url, found, where = next((pair for pair in pairs if pair[0]), ("", "", ""))
        if not url:
            raise ClientError("No server is named: give Client its address, or set TURNWIRE_URL (or POKEE_API).")
    else:
        where = "url"
        found = next((k for u, k, _ in pairs if u.rstrip("/") == url.rstrip("/")), "")
        found = found or ("" if pairs[0][0] else pairs[0][1])
    return _checked_url(url, where), _checked_key(key if key is not None else found)


def is_local(url: str) -> bool:
    """Whether the server is on this machine."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def _checked_url(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        if url.startswith("tw_"):
            raise ValueError(f"{where}: this is a key, and no address of a server, such as http://127.0.0.1:8080.")
        raise ValueError(f"{where}: {shown_url(url)!r} is no address of a server, such as http://127.0.0.1:8080.")
    return url.rstrip("/")


def shown_url(url: str) -> str:
    """For messages: without the password that may stand in it."""
    return _PASSWORD.sub(r"\1…@", url)


_PASSWORD = re.compile(r"^([^/?#]*//)[^/?#]*@")


def _checked_key(key: str) -> str | None:
    key = key.strip()
    if not key.isprintable():
        raise ValueError("The key holds characters that no header can carry.")
    return key or None
