"""Which server the client's commands talk to, and with which key; and the one that `turnwire chat` starts by itself.

In this order: `--url`; the server on the folder of `--data-dir`; TURNWIRE_URL or POKEE_API; the server on the data
folder; and for the chat one of its own.
Imports nothing of the server: it is not needed to talk to one.
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from turnwire.cli import Failed
from turnwire.client import AsyncClient, Client, ClientError, Waiting
from turnwire.client.address import find_server
from turnwire.datadir import DataDir, Holder, default_data_dir, served

START_TIMEOUT_S = 60.0
STARTING_TIMEOUT_S = 15.0
"""A server holds its folder before it listens, and says its address when it does."""

STOP_TIMEOUT_S = 5.0
POLL_S = 0.05
RESTARTS_MAX = 5
"""Of a server of our own that died: it may be killed by mistake, but one that always dies is left alone."""

RETRY_TIMEOUT_S = 600.0
"""How long a person who looks at the terminal may wait for a server to come back; Ctrl-C ends it sooner."""

LOG_BYTES_MAX = 1_000_000


class WrongUse(Failed):
    exit_code = 2


class Given(NamedTuple):
    """What the options say."""

    url: str | None = None
    key: str | None = None
    data_dir: Path | None = None


class Server(NamedTuple):
    """`found`: by its data folder, not by a name."""

    url: str
    key: str | None
    found: bool = False


def find(given: Given) -> Server | None:
    """The server that is named, or the one of the data folder; None when there is none.

    Raises:
        WrongUse: what is named is no address.
        Failed: the data folder's server or key can't be used.
    """
    if given.url is None and given.data_dir is not None:
        return _of_folder(given)
    try:
        url, key = find_server(given.url, given.key)
    except ValueError as exc:
        raise WrongUse(str(exc).replace("url: ", "--url: ", 1)) from exc
    except ClientError:
        return _of_folder(given)
    if key is None and (holder := served(data_dir_of(given))) is not None and holder.url == url:
        key = _local_key(data_dir_of(given))
    return Server(url, key)


def data_dir_of(given: Given) -> Path:
    """The data folder, as the server itself would choose it."""
    if given.data_dir is not None:
        return given.data_dir.expanduser()
    if named := os.environ.get("TURNWIRE_DATA_DIR"):
        return Path(named).expanduser()
    if file := os.environ.get("TURNWIRE_CONFIG"):
        try:
            named = tomllib.loads(Path(file).expanduser().read_text("utf-8")).get("data_dir")
        except (OSError, ValueError):
            named = None  # the server says what is wrong with it
        if isinstance(named, str):
            return Path(named).expanduser()
    return default_data_dir()


@contextmanager
def client(given: Given) -> Generator[Client]:
    """For a command that needs a server which is there. What can be no id or path is wrong usage.

    Raises:
        WrongUse, Failed: as of `find`; also when there is no server.
    """
    server = find(given)
    if server is None:
        raise Failed(
            f"No server is running on the data folder {short(data_dir_of(given))}: start one by `turnwire serve`, or "
            "name one by --url or TURNWIRE_URL."
        )
    with Client(server.url, server.key) as tw:
        try:
            yield tw
        except ValueError as exc:
            raise WrongUse(str(exc)) from exc


def _of_folder(given: Given) -> Server | None:
    folder = data_dir_of(given)
    until = time.monotonic() + STARTING_TIMEOUT_S
    while holder := served(folder):
        if holder.url is not None:
            _, key = find_server(holder.url, given.key)  # a key that is chosen is not passed over in silence
            return Server(holder.url, key or _local_key(folder), found=True)
        if time.monotonic() > until:
            raise Failed(
                f"The data folder {folder} is held by the process {holder.pid or '(unknown)'}, which does not say its "
                f"address in {STARTING_TIMEOUT_S:.0f} seconds: see whether it is a server, or name another by --url."
            )
        time.sleep(POLL_S)
    return None


def _local_key(folder: Path) -> str | None:
    return os.environ.get("TURNWIRE_API_KEY") or DataDir(folder).read_key()


class Access:
    """The chat's server: found, or started. `start()`, then `connect()`; `close()` ends one that was started."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._server: Server | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closing = False
        self.started = False
        """Whether it is a server of our own."""

    def start(self) -> str:
        """Find the server, or begin to start one. What is to be said of it.

        Raises:
            Failed: there is none, and none can be started.
        """
        self._server = find(self._given)
        if self._server is not None:
            return self._server.url
        self._start_own()
        return f"no server is running: starting one on {short(data_dir_of(self._given))}"

    async def connect(self, on_wait: Callable[[Waiting], object]) -> AsyncClient:
        """A client for the server, once that is up."""
        if self._server is not None and self._server.found and not await self._stays(self._server.url):
            self._server = None
            self._start_own()
        if self._server is None:
            self._server = await self._until_up()
            self._watch = asyncio.create_task(self._revive())
        return AsyncClient(self._server.url, self._server.key, on_wait=on_wait, retry_timeout_s=RETRY_TIMEOUT_S)

    async def close(self) -> None:
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        waited = 0.0
        while child.poll() is None and waited < STOP_TIMEOUT_S:
            await asyncio.sleep(POLL_S)
            waited += POLL_S

    async def _stays(self, url: str) -> bool:
        """Whether the server on the data folder takes work. One that is about to stop is waited for: False, then."""
        waited = 0.0
        async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as http:
            while served(data_dir_of(self._given)) is not None:
                try:
                    if (await http.get(f"{url}/health/ready")).status_code != 503:
                        return True
                except httpx2.RequestError:
                    pass
                if waited > START_TIMEOUT_S:
                    raise Failed(f"The server at {url} takes no work, and holds the data folder: see to it first.")
                await asyncio.sleep(POLL_S * 2)
                waited += POLL_S * 2
        return False

    def _start_own(self) -> None:
        """Begin to start a server on the data folder.

        Raises:
            Failed: its parts are not installed.
        """
        if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("pydantic_ai") is None:
            raise Failed(
                "No server is running here, and this environment has the client alone: name a server by --url or "
                "TURNWIRE_URL, or install one with pip install 'turnwire[server]'."
            )
        self.started = True
        self._spawn(0)

    def _spawn(self, port: int) -> None:
        folder = data_dir_of(self._given)
        words = ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)]
        with open_log() as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "turnwire.cli.embedded", "serve", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the chat
            )

    async def _until_up(self) -> Server:
        folder, child = data_dir_of(self._given), self._child
        assert child is not None
        waited = 0.0
        while True:
            holder: Holder | None = served(folder)
            if holder is not None and holder.url is not None:
                return Server(holder.url, self._given.key or _local_key(folder))
            if child.poll() is not None and holder is None:
                raise Failed(f"The server that was to be started here has ended. {_last_words()}")
            if waited > START_TIMEOUT_S:
                raise Failed(f"The server was not ready in {START_TIMEOUT_S:.0f} seconds: see {log_path()}.")
            await asyncio.sleep(POLL_S)
            waited += POLL_S

    async def _revive(self) -> None:
        """Start our server again, at its address, when it dies: the turn that ran goes on then."""
        assert self._server is not None
        port = int(self._server.url.rpartition(":")[2])
        for _ in range(RESTARTS_MAX):
            assert self._child is not None
            await asyncio.to_thread(self._child.wait)
            if self._closing:
                return
            self._spawn(port)


def state_dir() -> Path:
    """`$XDG_STATE_HOME/turnwire`, by default `~/.local/state/turnwire`: the history of lines, and our server's log."""
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "state") / "turnwire"


def log_path() -> Path:
    return state_dir() / "chat-server.log"


def open_log() -> Any:
    """The log of a server of our own; nowhere, when the folder can't be had."""
    try:
        state_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(log_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if os.fstat(fd).st_size > LOG_BYTES_MAX:
            os.ftruncate(fd, 0)
        return os.fdopen(fd, "ab")
    except OSError:
        return Path(os.devnull).open("ab")


def short(path: Path) -> str:
    """With `~`, as a person would write it."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _last_words() -> str:
    try:
        lines = log_path().read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("turnwire: ") if lines else ""
