"""A real `turnwire serve` and callers of its files, with raw sockets where a client library would tidy up."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

PROGRAM = Path(sys.executable).with_name("turnwire")
KEY = "tw_default_key-of-the-tests-of-files"
START_TIMEOUT_S = 60.0


def eventually(what: Callable[[], Any], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A server in a process of its own, on `folder`/data."""

    def __init__(self, folder: Path, env: dict[str, str], arguments: tuple[str, ...] = ()) -> None:
        self.data = folder / "data"
        self.log = folder / "log"
        self.env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.env |= {"TURNWIRE_API_KEY": KEY, **env}
        self.arguments = arguments
        self.start()

    def start(self) -> None:
        command = [PROGRAM, "serve", "--data-dir", self.data, "--port", "0", *(self.arguments or ("--model", "demo"))]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self.env, text=True
            )
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_TIMEOUT_S, self.process.kill)
        watchdog.start()
        self.url = ""
        for line in self.process.stdout:
            if line.strip().startswith("address"):
                self.url = line.split()[1]
            if line.startswith("curl "):
                break
        watchdog.cancel()
        assert self.url, self.log.read_text()
        self.port = int(self.url.rpartition(":")[2])
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
        )

    def close(self, *, kill: bool = False) -> None:
        self.client.close()
        self.process.kill() if kill else self.process.terminate()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def session(self, **body: Any) -> "Files":
        answer = self.client.post("/v1/sessions", json=body)
        assert answer.status_code == 201, answer.text
        return Files(self, answer.json()["id"])

    @property
    def shared(self) -> Path:
        return self.data / "workspaces" / "default" / "shared"

    def leftovers(self) -> list[Path]:
        return list((self.data / "workspaces").rglob(".turnwire-*.part"))

    def peak_kib(self) -> int:
        """The most memory that it has had so far."""
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])  # type: ignore[index]

    def reads(self, name: str) -> int:
        """How often it has a file of this name open."""
        found = 0
        for handle in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):
                found += handle.readlink().name == name
        return found

    def raw(self, request: bytes, *, timeout_s: float = 10.0) -> Answer:
        """The answer to a request whose head is sent as it stands; `Connection: close` and the key are added."""
        head, _, body = request.partition(b"\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self.port), timeout_s) as sock:
            key = b"Authorization: Bearer %b" % KEY.encode()
            sock.sendall(b"%b\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n%b" % (head, key, body))
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers, body)

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), 20) as sock:
            yield sock


class Files:
    """The files of one session."""

    def __init__(self, server: Served, session_id: str) -> None:
        self.server, self.id = server, session_id
        self.root = f"/v1/sessions/{session_id}/files"

    def request(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        return self.server.client.request(method, f"{self.root}/{path}" if path else self.root, **more)

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        return self.request("GET", path, headers=_named(headers))

    def head(self, path: str, **headers: str) -> httpx.Response:
        return self.request("HEAD", path, headers=_named(headers))

    def put(self, path: str, content: Any = b"", **headers: str) -> httpx.Response:
        return self.request("PUT", path, content=content, headers=_named(headers))

    def delete(self, path: str, **headers: str) -> httpx.Response:
        return self.request("DELETE", path, headers=_named(headers))

    def raw(self, method: str, target: bytes, body: bytes = b"", headers: bytes = b"") -> Answer:
        """As `Served.raw`; `target` follows `…/files` as it stands."""
        head = b"%b %b%b HTTP/1.1\r\nContent-Length: %d" % (method.encode(), self.root.encode(), target, len(body))
        return self.server.raw(head + headers + b"\r\n\r\n" + body)

    def names(self, path: str = "") -> list[str]:
        answer = self.request("GET", params={"path": path} if path else {})
        assert answer.status_code == 200, answer.text
        return [entry["name"] for entry in answer.json()]


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and short name, once the body has been found to be an error's."""
    body = answer.json()
    assert set(body) == {"error", "message"} and len(body["message"]) > 10, body
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, body["error"]
