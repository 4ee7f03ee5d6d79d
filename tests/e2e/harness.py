"""`turnwire serve` in a process of its own, and a caller of it that checks all it is answered.

    with Server(tmp_path, model="demo") as server:
        api = server.api()
        session = api.create()["id"]
        turn = api.send(session, "hello")
        assert turn.ending == "message.completed"

Whatever an `Api` is answered is held against the server's /openapi.json, and each stream against `wire.check_turn`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from clients import strict
from clients.strict import Event
from e2e import wire
from e2e.document import Document

PROGRAM = Path(sys.executable).with_name("turnwire")
KEY = "tw_default_test-key-of-the-end-to-end-tests"
START_TIMEOUT_S = 40.0
TIMEOUT_S = 30.0
# What a server's environment is made of, beside what a test sets: no key and no address of a vendor comes through.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START")


def eventually(what: Any, timeout_s: float = TIMEOUT_S, interval_s: float = 0.02) -> Any:
    """The first true value that `what()` gives."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s} s; the last value: {value!r}"
        time.sleep(interval_s)


class Server:
    """One data folder, and the server that runs on it. `env` is its environment; `settings` are TURNWIRE_*, by name."""

    def __init__(
        self,
        data_dir: Path,
        *,
        model: str | None = "demo",
        env: dict[str, str] | None = None,
        key: str | None = KEY,
        port: int = 0,
        args: tuple[str, ...] = (),
        **settings: object,
    ) -> None:
        self.data_dir = data_dir / "data"
        self.log_file = data_dir / "server.log"
        self.model = model
        self.key = key or ""
        self.port = port
        self.args = args
        self.env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.env |= {"TURNWIRE_LOG_LEVEL": "debug"} | ({"TURNWIRE_API_KEY": key} if key else {}) | (env or {})
        self.set(**settings)
        self.url = ""
        self.start_lines: list[str] = []
        self.started_in_s = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._document: Document | None = None
        self._closing = ExitStack()

    def set(self, **settings: object) -> None:
        """Settings for the next start; None takes one away."""
        for name, value in settings.items():
            variable = f"TURNWIRE_{name.upper()}"
            self.env.pop(variable, None)
            if value is not None:
                self.env[variable] = str(value)

    # Its life

    def launch(self) -> subprocess.Popen[str]:
        """Start the program without waiting for anything."""
        command = [PROGRAM, "serve", "--data-dir", self.data_dir, "--port", str(self.port), *self.args]
        if self.model is not None:
            command += ["--model", self.model]
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.env,
                text=True,
                start_new_session=True,
            )
        return self._process

    def start(self) -> Self:
        """Start, and wait until it is ready. It keeps the port that it was given, for its next start."""
        began = time.monotonic()
        process = self.launch()
        assert process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
        watchdog.start()
        try:
            self.start_lines = []
            while not self.start_lines or not self.start_lines[-1].startswith("curl "):
                line = process.stdout.readline()
                if not line:
                    code = process.wait()
                    raise AssertionError(f"the server did not start, exit code {code}:\n{self.log[-3000:]}")
                self.start_lines.append(line.rstrip("\n"))
        finally:
            watchdog.cancel()
        self.url = next(line.split()[1] for line in self.start_lines if line.strip().startswith("address"))
        self.port = int(self.url.rpartition(":")[2])
        self.started_in_s = time.monotonic() - began
        return self

    def refused(self, timeout_s: float = START_TIMEOUT_S) -> tuple[int, str]:
        """A start that is to fail: the exit code, and what was said on stderr."""
        before = len(self.log)
        process = self.launch()
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert out == "", f"stdout is for results: {out!r}"
        return process.returncode, self.log[before:]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def send_signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(timeout_s)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Ask it to stop, and wait; the exit code."""
        self.send_signal(number)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def restart(self, **settings: object) -> Self:
        """Start again on the same data folder and port."""
        assert self.process.poll() is not None, "it still runs"
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.set(**settings)
        self._document = None
        return self.start()

    def __enter__(self) -> Self:
        return self if self._process else self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._closing.close()
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill() if kind else self._process.send_signal(signal.SIGINT)
            try:
                code = self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"the server did not stop:\n{self.log[-3000:]}") from None
            assert kind or code == 0, f"exit code {code}:\n{self.log[-3000:]}"
        if self._process.stdout is not None:
            self._process.stdout.close()
        if kind is None:
            self.check_log()

    # What is to be seen of it

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def check_log(self) -> None:
        """Nothing failed inside, and the key is not in the log."""
        for sign in (" request_failed", "turn_failed", "Exception in ASGI", "Task exception was never retrieved"):
            assert sign not in self.log, f"{sign} in the server's log:\n{self.log[-6000:]}"
        assert not self.key or self.key not in self.log, "the key is in the log"

    @property
    def database(self) -> Path:
        return self.data_dir / "turnwire.db"

    def rss_kib(self) -> int:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def peak_kib(self) -> int:
        """The most resident memory that it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]

    def sockets(self) -> int:
        """How many sockets it has open."""
        return sum(name.startswith("socket:") for name in self.open_files())

    def open_files(self) -> list[str]:
        """What its file descriptors lead to."""
        names: list[str] = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):
                names.append(str(entry.readlink()))
        return names

    def children(self) -> list[int]:
        """Process ids of what it started."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def document(self) -> Document:
        if self._document is None:
            self._document = Document(httpx.get(f"{self.url}/openapi.json", timeout=TIMEOUT_S).json())
        return self._document

    def api(self, key: str | None = None) -> "Api":
        """A caller, closed with the server."""
        return self._closing.enter_context(Api(self, self.key if key is None else key))

    def run(self, *args: str) -> str:
        """What `turnwire ARGS` prints, on this data folder."""
        done = subprocess.run(
            [PROGRAM, *args, "--data-dir", self.data_dir],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


class Turn:
    """A stream that was read to its end."""

    def __init__(self, response: httpx.Response, content: bytes, events: list[Event]) -> None:
        self.response = response
        self.content = content
        self.events = events

    @property
    def id(self) -> str:
        return self.response.headers["x-response-id"]

    @property
    def ending(self) -> str:
        return self.events[-1][0]

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1][1]

    @property
    def error(self) -> str:
        assert self.ending == "message.error", self.events[-3:]
        return self.last["error"]

    @property
    def usage(self) -> dict[str, int]:
        return self.last["usage"]

    @property
    def text(self) -> str:
        return wire.text_of(self.events)

    @property
    def kinds(self) -> list[str]:
        return wire.kinds(self.events)

    def data(self, event: str) -> list[dict[str, Any]]:
        """The data of all events of this type."""
        return [data for name, data in self.events if name == event]


class Live:
    """A stream that is being read: `next()` for an event, `rest()` for what is left."""

    def __init__(self, response: httpx.Response, numbered: bool) -> None:
        self.response = response
        self.id = response.headers["x-response-id"]
        self.content = b""
        self._numbered = numbered
        self._chunks = response.iter_raw()
        self._taken = 0

    def _whole(self) -> list[bytes]:
        return self.content.split(b"\n\n")[:-1]

    def next(self) -> Event:
        """The next event, heartbeats left out."""
        while True:
            blocks = [block for block in self._whole() if block != b":"]
            if len(blocks) > self._taken:
                lines = blocks[self._taken].removeprefix(b":\n").split(b"\n")
                self._taken += 1
                return lines[-2].removeprefix(b"event: ").decode(), json.loads(lines[-1].removeprefix(b"data: "))
            self.content += next(self._chunks)

    def until(self, event: str) -> dict[str, Any]:
        """The data of the next event of this type."""
        while True:
            name, data = self.next()
            if name == event:
                return data

    def rest(self) -> list[Event]:
        """All events of the stream, read to its clean end."""
        for chunk in self._chunks:
            self.content += chunk
        if self._numbered:
            return wire.numbered_frames(self.content, heartbeats=True)
        return strict.frames(self.content, heartbeats=True)

    def close(self) -> None:
        self.response.close()


class Api:
    """A caller with a key. Every answer is checked before it is handed on."""

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self.key = key
        self.http = httpx.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=2),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    # Any request

    def request(self, method: str, path: str, *, status: int | None = None, **more: Any) -> httpx.Response:
        """An answer that is no stream. `status`: the one that it must have."""
        response = self.http.request(method, path, **more)
        self.check(response)
        if status is not None:
            assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response

    def get(self, path: str, status: int = 200, **more: Any) -> Any:
        return self.request("GET", path, status=status, **more).json()

    def refused(self, method: str, path: str, status: int, error: str, **more: Any) -> httpx.Response:
        """An error that is to come: its status and its short name."""
        response = self.request(method, path, status=status, **more)
        assert response.json()["error"] == error, response.text
        return response

    def check(self, response: httpx.Response) -> None:
        """Hold an answer, read whole, against the document."""
        request = response.request
        path = request.url.raw_path.decode().partition("?")[0]
        where = f"{request.method} {path} → {response.status_code} {response.text[:300]}"
        assert response.status_code < 500 or response.status_code == 503, where
        assert re.fullmatch("[A-Za-z0-9._-]{1,128}", response.headers["x-request-id"]), where
        if request.method in ("OPTIONS", "HEAD"):
            return
        kind = response.headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            self.check_stream(response, response.content)
            return
        body = response.content or None
        if body is not None and kind == "application/json":
            body = response.json()
        self.server.document().check(request.method, path, response.status_code, kind, body)
        if response.status_code >= 400:
            assert list(body) == ["error", "message"], where
            assert body["message"].endswith("."), where
            assert body["message"].isprintable(), where
            if response.status_code in (429, 503):
                assert int(response.headers["retry-after"]) >= 1
            if response.status_code == 405:
                assert response.headers["allow"], where
            if response.status_code == 401:
                assert response.headers["www-authenticate"] == "Bearer", where

    def check_stream(
        self, response: httpx.Response, content: bytes, *, first: int = 0, heartbeats: bool = True
    ) -> list[Event]:
        """The head and the body of a whole stream that begins with the event `first`; its events."""
        headers, request = response.headers, response.request
        assert headers["content-type"] in ("text/event-stream", "text/event-stream; charset=utf-8")
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert re.fullmatch("msg_[0-9a-f]{24}", headers["x-response-id"])
        numbered = content.lstrip(b":\n").startswith(b"id: ")
        path = request.url.raw_path.decode().partition("?")[0]
        if numbered:
            events = wire.numbered_frames(content, first, heartbeats=heartbeats)
            items = [
                {"event": event, "data": {**data, "sequence_number": first + n}}
                for n, (event, data) in enumerate(events)
            ]
        else:
            events = strict.frames(content, heartbeats=heartbeats)
            items = [{"event": event, "data": data} for event, data in events]
        self.server.document().check_stream(request.method, path, items)
        if first == 0:
            wire.check_turn(events)
            assert headers["x-response-id"] == events[0][1]["id"]
        return events

    # Sessions and turns

    def create(self, **body: Any) -> Any:
        """A session's record."""
        return self.request("POST", "/v1/sessions", status=201, json=body).json()

    def session(self, session: str) -> Any:
        return self.get(f"/v1/sessions/{session}")

    @contextmanager
    def stream(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        with self.http.stream(method, path, **more) as response:
            if response.status_code != 200:
                response.read()
                self.check(response)
                raise AssertionError(f"{method} {path}: {response.status_code} {response.text}")
            yield response

    def send(self, session: str, message: Any, *, headers: dict[str, str] | None = None, **body: Any) -> Turn:
        """A whole turn."""
        path = f"/v1/sessions/{session}/messages"
        with self.stream("POST", path, json={"message": message, **body}, headers=headers) as response:
            content = response.read()
        return Turn(response, content, self.check_stream(response, content))

    def ask(self, message: Any, *, session: dict[str, Any] | None = None, **body: Any) -> Turn:
        """A whole turn in a session of its own."""
        return self.send(self.create(**(session or {}))["id"], message, **body)

    @contextmanager
    def sending(self, session: str, message: Any, **body: Any) -> Iterator[Live]:
        """A turn, read event by event; leaving hangs up."""
        path = f"/v1/sessions/{session}/messages"
        with self.stream("POST", path, json={"message": message, **body}) as response:
            yield Live(response, bool(body.get("event_ids")))

    @contextmanager
    def following(self, session: str, response_id: str, after: int | None = None) -> Iterator[Live]:
        with self.stream("GET", _events(session, response_id), headers=_last_id(after)) as response:
            yield Live(response, True)

    def follow(self, session: str, response_id: str, after: int | None = None) -> Turn:
        """The rest of a turn, numbered, to its end."""
        with self.stream("GET", _events(session, response_id), headers=_last_id(after)) as response:
            content = response.read()
        first = 0 if after is None else after + 1
        return Turn(response, content, self.check_stream(response, content, first=first))

    def ticket(self, session: str, response_id: str) -> str:
        """The URL, relative to the server's root, on which this response can be followed without a key."""
        path = f"/v1/sessions/{session}/responses/{response_id}/ticket"
        return self.request("POST", path, status=200).json()["url"]

    def messages(self, session: str, **params: Any) -> Any:
        return self.get(f"/v1/sessions/{session}/messages", params=params)

    def responses(self, session: str, **params: Any) -> Any:
        return self.get(f"/v1/sessions/{session}/responses", params=params)

    def when_idle(self, session: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The session's record once no turn runs in it."""

        def idle() -> Any:
            record = self.session(session)
            return None if record["busy"] else record

        return eventually(idle, timeout_s)

    def pages(self, path: str, **params: Any) -> list[list[Any]]:
        """All pages, by their `Link` headers."""
        pages: list[list[Any]] = []
        response = self.request("GET", path, status=200, params=params)
        while True:
            pages.append(response.json())
            link = response.headers.get("link")
            if link is None:
                return pages
            match = re.fullmatch(r'<(/[^>]*)>; rel="next"', link)
            assert match, link
            response = self.request("GET", match[1], status=200)


@contextmanager
def stalled_reader(server: Server, path: str) -> Iterator[socket.socket]:
    """A connection that asked for `path`, and has read nothing of the answer. Its own buffer is small."""
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode())
        yield reader


def _events(session: str, response_id: str) -> str:
    return f"/v1/sessions/{session}/responses/{response_id}/events"


def _last_id(after: int | None) -> dict[str, str]:
    return {} if after is None else {"Last-Event-ID": str(after)}
