"""A server on a real socket that gives written answers, one to a request, in order, and keeps what it was asked."""

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int = 200, body: object = b"", **headers: str) -> bytes:
    """An HTTP answer; `body` is bytes, or is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if isinstance(body, bytes) else {"content_type": "application/json"}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {**kind, **headers}.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}", "Connection: close", *lines, "", ""])
    return head.encode() + raw


def stream(*frames: str, response_id: str | None = "msg_1") -> bytes:
    """An answer that is a stream, and ends with its connection."""
    named = f"X-Response-Id: {response_id}\r\n" if response_id else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{named}Connection: close\r\n\r\n"
    return (head + "".join(frames)).encode()


def frame(seq: int | None, type_: str, **data: object) -> str:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {type_}\ndata: {json.dumps(data)}\n\n"


RECORD = {"id": "sess_1", "busy": False, "response_id": None}
CREATED = frame(0, "message.created", id="msg_1", session_id="sess_1", status="in_progress")


class Canned:
    """Answers in order; the last one is given again and again. None: the connection is closed without an answer."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers: Sequence[bytes | None] = answers
        self.asked: list[Asked] = []
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["Canned"]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            try:
                yield self
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                self._one(connection)

    def _one(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            method, path, _ = file.readline().decode().split()
            headers = dict(line.decode().rstrip("\r\n").split(": ", 1) for line in iter(file.readline, b"\r\n"))
            headers = {name.lower(): value for name, value in headers.items()}
            body = file.read(int(headers.get("content-length", 0)))
        number = min(len(self.asked), len(self._answers) - 1)
        self.asked.append(Asked(method, path, headers, body))
        if (given := self._answers[number]) is not None:
            connection.sendall(given)
