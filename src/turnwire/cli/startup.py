"""What a server prints when it has started: where it is, what it uses, and lines to paste into a shell.

Lines are never wrapped: they are there to be copied whole.
"""

import ipaddress
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from turnwire import __version__
from turnwire.database_url import shown
from turnwire.datadir import DataDir
from turnwire.seams.sandbox import Status
from turnwire.settings import PREFIX, Address, Settings

MESSAGE = "Write a short poem about persistent storage."


class AccessKey(NamedTuple):
    """The key of the tenant `default`, and where it is: in the data folder's key file, or in the settings."""

    text: str
    origin: Literal["key file", "environment", "settings file"]
    is_new: bool = False


def startup_lines(
    settings: Settings,
    address: Address,
    data: DataDir,
    key: AccessKey,
    *,
    why: str,
    sandbox: Status,
    terminal: bool,
    show: str = "",
    mcp: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> list[str]:
    """All lines, in order.

    Args:
        settings: with the model that is in use.
        why: the sentence that says why it is that model.
        sandbox: what became of the sandbox.
        terminal: whether a person reads this: then the generated key is shown.
        show: a shell command that prints the key, for one that stands in a settings file.
        mcp: the state of each MCP server, by name.
        notes: what the operator should know of the database.
    """
    facts = [
        ("address", address.url),
        ("data", str(data.path)),
        *((("database", f"PostgreSQL, {shown(settings.database)}"),) if settings.database is not None else ()),
        ("model", f"{settings.model}. {why}"),
        ("sandbox", sandbox_words(settings, sandbox)),
        *(("network", words) for words in [network_words(settings, sandbox)] if words),
        *(("mcp", f"{name}: {state}") for name, state in (mcp or {}).items()),
        ("key", _key_words(data, key, terminal)),
        *((("console", _console_link(address, key, terminal)),) if settings.console else ()),
        ("docs", f"{address.url}/docs"),
    ]
    return [
        f"turnwire {__version__} is ready.",
        *(f"  {name:8} {value}" for name, value in facts),
        *(f"  warning  {text}" for text in (*warnings(settings, address, sandbox), *notes)),
        "",
        "To use it from a shell, paste:",
        "",
        f"export POKEE_API={address.url} POKEE_KEY={_key_in_shell(data, key, terminal, show)}",
        "",
        "And for a first message:",
        "",
        *first_message(),
        "",
    ]


def first_message() -> list[str]:
    """Two lines for any POSIX shell with curl and sed: make a session, send it a message."""
    auth = '-H "Authorization: Bearer $POKEE_KEY" -H "Content-Type: application/json"'
    return [
        f"""session=$(curl -sS "$POKEE_API/v1/sessions" {auth} -d '{{"persistent": true}}' """
        r"""| sed -n 's/.*"\(sess_[0-9a-f]*\)".*/\1/p')""",
        f"""curl -N "$POKEE_API/v1/sessions/$session/messages" {auth} -d '{{"message": "{MESSAGE}"}}'""",
    ]


def sandbox_words(settings: Settings, sandbox: Status) -> str:
    """Where commands run, or why none do."""
    if not settings.tools_enabled:
        return "not used, as agents have no tools (TURNWIRE_TOOLS_ENABLED)"
    if sandbox.available:
        return sandbox.name
    return f"none that works, so agents have no bash. {sandbox.reason} To do: {sandbox.todo}"


def network_words(settings: Settings, sandbox: Status) -> str:
    """Which commands reach a network, and by what, or why none do. Empty: no commands are run."""
    if not settings.tools_enabled or not sandbox.available:
        return ""
    setting, network = settings.sandbox_network, sandbox.network
    if not network.by:
        todo = f" To do: {network.todo}" if network.todo else ""
        return f"none for commands. {network.reason}{todo}".strip()
    if sandbox.name == "none":
        return "commands reach all that this machine does: there is no sandbox"
    which = "all sessions but those with network=false" if setting == "on" else "sessions with network=true"
    return f"by {network.by} for commands of {which}; only public addresses"


def warnings(settings: Settings, address: Address, sandbox: Status) -> list[str]:
    """What the operator should know about these settings: each a sentence."""
    found: list[str] = []
    if settings.sqlite_synchronous != "FULL" and settings.database is None:
        found.append(
            f"{PREFIX}SQLITE_SYNCHRONOUS={settings.sqlite_synchronous}: a power cut may lose the last moments of what "
            "callers have seen."
        )
    if settings.tools_enabled:
        found.extend(sandbox.warnings)
    if not _is_loopback(address.host):
        found.append(
            f"It listens on {address.host} without TLS: keys cross the network unprotected, unless a proxy with TLS "
            "stands in front."
        )
    if "*" in settings.cors_origins:
        found.append(f"{PREFIX}CORS_ORIGINS=*: any web page may call it, with a key that the page knows.")
    if "*" in settings.trusted_proxies:
        found.append(f"{PREFIX}TRUSTED_PROXIES=*: any caller may say which address it comes from.")
    return found


def _key_words(data: DataDir, key: AccessKey, terminal: bool) -> str:
    if key.origin != "key file":
        where = f"{PREFIX}API_KEY in the environment" if key.origin == "environment" else "api_key in the settings file"
        return f"the one in {where}"
    shown = f"{key.text} (in {data.key_file})" if terminal else f"in {data.key_file}"
    return f"{shown}, made just now" if key.is_new else shown


def _console_link(address: Address, key: AccessKey, terminal: bool) -> str:
    """Where a browser finds the console. With a key that a person may see here it signs in by itself; what stands
    behind the # is never sent to a server, and the page takes it out of its address."""
    known = terminal and key.origin == "key file"
    return f"{address.url}/#key={key.text}" if known else f"{address.url}/"


def _key_in_shell(data: DataDir, key: AccessKey, terminal: bool, show: str) -> str:
    """The key as the right side of an assignment in a shell. A chosen key is never printed."""
    if key.origin == "environment":
        return f'"${PREFIX}API_KEY"'
    if key.origin == "settings file":
        return f'"$({show})"'
    return shlex.quote(key.text) if terminal else f'"$(cat {shlex.quote(str(data.key_file))})"'


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
