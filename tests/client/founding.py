"""A small server of the founding contract and nothing else: two-line frames, no ids, no responses, no idempotency.

A turn goes on whether or not it is read. With `conversation=True` it has GET …/messages too.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TURN: list[tuple[str, dict[str, Any]]] = [
    ("thinking.start", {}),
    ("thinking.delta", {"content": "Hm, “a” or b."}),
    ("thinking.stop", {}),
    ("text.start", {}),
    ("text.delta", {"content": "I look "}),
    ("text.delta", {"content": "at it.\n"}),
    ("text.stop", {}),
    ("tool_use.start", {"name": "bash", "id": "toolu_1"}),
    ("tool_use.input_delta", {"content": '{"command":'}),
    ("tool_use.input_delta", {"content": '"ls"}'}),
    ("tool_use.executing", {"name": "bash", "id": "toolu_1", "input": {"command": "ls"}}),
    ("tool_use.stop", {}),
    ("tool_result", {"id": "toolu_1", "content": "a.txt", "is_error": False}),
    ("something.new", {"a": 1}),
    ("text.start", {}),
    ("text.delta", {"content": "Done. 👍"}),
    ("text.stop", {}),
]
CONTENT = [
    {"type": "thinking", "text": "Hm, “a” or b."},
    {"type": "text", "text": "I look at it.\n"},
    {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "ls"}},
    {"type": "tool_result", "id": "toolu_1", "content": "a.txt", "is_error": False},
    {"type": "text", "text": "Done. 👍"},
]
USAGE = {"input_tokens": 12, "output_tokens": 5, "cost": 0.01}


class Founding:
    """`delay_s` stands between two events. `ending`: what the turn ends with."""

    def __init__(self, *, conversation: bool, delay_s: float = 0.0, ending: str = "completed") -> None:
        self.conversation, self.delay_s, self.ending = conversation, delay_s, ending
        self.sessions: dict[str, list[dict[str, Any]]] = {}
        self.busy: dict[str, bool] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.strict = False
        """Whether unknown fields of a message are refused."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["Founding"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"of": self}))
        server.daemon_threads = False
        server.request_queue_size = 512
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def create(self) -> str:
        with self.lock:
            session_id = f"s{len(self.sessions)}"
            self.sessions[session_id], self.busy[session_id] = [], False
        return session_id

    def begin(self, session_id: str, message: str) -> str | None:
        """The turn's id; None when one runs."""
        with self.lock:
            if self.busy[session_id]:
                return None
            self.busy[session_id] = True
            conversation = self.sessions[session_id]
            turn = f"m{len(conversation)}"
            conversation.append({"id": f"u{len(conversation)}", "role": "user", "content": message})
            return turn

    def end(self, session_id: str, turn: str) -> None:
        with self.lock:
            status = "completed" if self.ending == "completed" else "error"
            message = {"id": turn, "role": "assistant", "status": status, "content": CONTENT, "usage": USAGE}
            self.sessions[session_id].append(message)
            self.busy[session_id] = False

    def events(self, session_id: str, turn: str) -> Iterator[bytes]:
        yield _frame("message.created", {"id": turn, "session_id": session_id, "status": "in_progress"})
        for name, data in TURN:
            time.sleep(self.delay_s)
            yield _frame(name, data)
        self.end(session_id, turn)
        if self.ending == "completed":
            yield _frame("message.completed", {"id": turn, "status": "completed", "usage": USAGE})
        else:
            yield _frame("message.error", {"id": turn, "error": "The model is overloaded."})


def _frame(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


class _Handler(BaseHTTPRequestHandler):
    of: Founding
    protocol_version = "HTTP/1.1"
    timeout = 5

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.of.requests.append(f"GET {self.path}")
        match self.path.partition("?")[0].split("/")[1:]:
            case ["v1", "sessions", session] if session in self.of.sessions:
                self._json(200, {"id": session, "busy": self.of.busy[session]})
            case ["v1", "sessions", session, "messages"] if session in self.of.sessions and self.of.conversation:
                self._json(200, self.of.sessions[session])
            case _:
                self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        self.of.requests.append(f"POST {self.path}")
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        match self.path.split("/")[1:]:
            case ["v1", "sessions"]:
                self._json(201, {"id": self.of.create()})
            case ["v1", "sessions", session, "messages"] if session in self.of.sessions:
                message = json.loads(body)
                if self.of.strict and set(message) != {"message"}:
                    self._json(422, {"detail": "extra fields not permitted"})
                else:
                    self._turn(session, message["message"])
            case _:
                self._json(404, {"detail": "Not Found"})

    def _turn(self, session: str, message: str) -> None:
        turn = self.of.begin(session, message)
        if turn is None:
            self._json(409, {"error": "Session is busy"})
            return
        self.close_connection = True
        there = True
        events = self.of.events(session, turn)
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
        except OSError:
            there = False
        for frame in events:
            try:
                if there:
                    self.wfile.write(frame)
            except OSError:
                there = False

    def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
