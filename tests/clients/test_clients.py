"""The clients themselves, against a server of fixed bytes: each reads all, and complains of what it must."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clients import strict
from clients.run import FOUNDING_EXAMPLE, ClientError, client_params, run_client, run_founding_example

# Of the program's lines on the founding page, each without the space around it.
PUBLISHED_SHA256 = "0f9801e7de1296d7ae3ff289a4cec32414057e6601af8842f0e2a15bd69e7def"

pytestmark = pytest.mark.slow

KEY = "tw_default_test"
ID = "msg_0123456789abcdef01234567"
CALL = "call_0123456789abcdef01234567"
USAGE = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
TURN = [
    ("message.created", {"id": ID, "session_id": "sess_0123456789ab", "status": "in_progress"}),
    ("thinking.start", {}),
    ("thinking.delta", {"content": "hm"}),
    ("thinking.stop", {}),
    ("text.start", {}),
    ("text.delta", {"content": "line\nbreak\r\n, data: no, \u2028 \u2029 \u0085 and 🦆"}),
    ("text.stop", {}),
    ("tool_use.start", {"name": "read_file", "id": CALL}),
    ("tool_use.input_delta", {"content": '{"path": "a b"}'}),
    ("tool_use.executing", {"name": "read_file", "id": CALL, "input": {"path": "a b"}}),
    ("tool_use.stop", {}),
    ("tool_result", {"id": CALL, "content": "", "is_error": False}),
    ("message.completed", {"id": ID, "status": "completed", "usage": USAGE}),
]


def encode(events: list[tuple[str, dict]]) -> bytes:
    """As the wire has it: characters beyond ASCII raw, but for those that tear lines."""
    frames = ""
    for event, data in events:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        for splitter in ("\u2028", "\u2029", "\u0085"):
            text = text.replace(splitter, f"\\u{ord(splitter):04x}")
        frames += f"event: {event}\ndata: {text}\n\n"
    return frames.encode()


WHOLE = encode(TURN)


class FixedServer(ThreadingHTTPServer):
    """Answers every message with `pieces`, a chunk each."""

    daemon_threads = False
    pieces: tuple[bytes, ...] = (WHOLE,)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.messages: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FixedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.answer(401, {"error": "unauthorized", "message": "That key is not known here."})
        elif self.path == "/v1/sessions":
            self.answer(201, {"id": "sess_0123456789ab"})
        elif self.path == "/v1/sessions/sess_0123456789ab/messages":
            self.server.messages.append(body["message"])
            self.stream()
        else:
            self.answer(404, {"error": "not_found", "message": "There is no such path."})

    def answer(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (*self.server.pieces, b""):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FixedServer]:
    with FixedServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", client_params())
def test_a_client_reads_the_whole_turn(name: str, server: FixedServer) -> None:
    assert run_client(name, server.url, KEY, "Grüße, 🦆\nbye") == TURN
    assert server.messages == ["Grüße, 🦆\nbye"]


@pytest.mark.parametrize("name", client_params())
def test_a_client_reads_a_turn_that_comes_byte_by_byte(name: str, server: FixedServer) -> None:
    server.pieces = tuple(WHOLE[at : at + 1] for at in range(len(WHOLE)))

    assert run_client(name, server.url, KEY, "hello") == TURN


@pytest.mark.parametrize("name", [param for param in client_params() if param.values != ("strict",)])
def test_a_heartbeat_is_no_event(name: str, server: FixedServer) -> None:
    server.pieces = (encode(TURN[:1]), b":\n\n", encode(TURN[1:]))

    assert run_client(name, server.url, KEY, "hello") == TURN


@pytest.mark.parametrize("name", client_params())
def test_a_refusal_is_told_and_not_read_as_a_stream(name: str, server: FixedServer) -> None:
    with pytest.raises(ClientError, match="401"):
        run_client(name, server.url, "tw_default_wrong", "hello")


def test_the_founding_example_is_as_published_but_for_its_indentation() -> None:
    lines = [line.strip() for line in FOUNDING_EXAMPLE.read_text().splitlines()]

    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED_SHA256


def test_the_founding_example_prints_the_text_and_the_usage(server: FixedServer) -> None:
    printed = run_founding_example(server.url, KEY)

    assert printed.endswith(f"and 🦆\n\n[done] usage: {USAGE}\n")
    assert server.messages == ["Write a short poem about persistent storage."]


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def test_the_strict_reader_takes_heartbeats_only_when_told_to() -> None:
    content = encode(TURN[:1]) + b":\n\n" + encode(TURN[1:])

    assert strict.frames(content, heartbeats=True) == TURN
    with pytest.raises(strict.WireError):
        strict.frames(content)


@pytest.mark.parametrize(
    "content",
    [
        b"id: 0\nevent: text.start\ndata: {}\n\n",
        b"data: {}\nevent: text.start\n\n",
        b"event:text.start\ndata: {}\n\n",
        b"event: text.start\ndata:{}\n\n",
        b"event: text.start\r\ndata: {}\r\n\r\n",
        b"event: text.start\ndata: {}\r\n\n",
        b"event: text.start\ndata: {}\n",
        b"event: text.start\ndata: {}\n\n\n",
        b"event: text.start\ndata: {}\n\nevent: text.stop\nda",
        b"event: text.start\ndata: {}\ndata: {}\n\n",
        b"event: Text.start\ndata: {}\n\n",
        b"event: ping\ndata: {}\n\n",
        b"data: {}\n\n",
        b": ping\n\n",
        b"retry: 100\n\n",
        b"\xef\xbb\xbfevent: text.start\ndata: {}\n\n",
        b"event: text.start\ndata: []\n\n",
        b"event: text.start\ndata: { }\n\n",
        b'event: text.delta\ndata: {"content": "a"}\n\n',
        b'event: text.delta\ndata: {"content":"a\\"", "more":""}\n\n',
        b'event: text.delta\ndata: {"content":"a","content":"b"}\n\n',
        b'event: text.delta\ndata: {"content":NaN}\n\n',
        b'event: text.delta\ndata: {"content":"\xff"}\n\n',
        'event: text.delta\ndata: {"content":"\u2028"}\n\n'.encode(),
        'event: text.delta\ndata: {"content":"\u0085"}\n\n'.encode(),
        b"event: text.start\ndata: {\n\n",
    ],
)
def test_the_strict_reader_refuses_every_other_frame(content: bytes) -> None:
    with pytest.raises(strict.WireError):
        strict.frames(content)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"3\r\nabc\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3;name=value\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"0\r\nTrailer: x\r\n\r\n",
        chunked(b"abc") + b"HTTP/1.1 400 Bad Request",
        chunked(b"abc")[:-1],
    ],
)
def test_the_strict_reader_refuses_a_body_that_does_not_end_cleanly(body: bytes) -> None:
    with pytest.raises(strict.WireError):
        strict.unchunk(body)


def test_the_strict_reader_takes_a_lone_surrogate_as_its_escape() -> None:
    content = b'event: text.delta\ndata: {"content":"a \\ud83d \\" b"}\n\n'

    assert strict.frames(content) == [("text.delta", {"content": 'a \ud83d " b'})]


def test_the_strict_reader_joins_chunks_wherever_they_are_cut() -> None:
    pieces = [WHOLE[at : at + 7] for at in range(0, len(WHOLE), 7)]

    assert strict.frames(strict.unchunk(chunked(*pieces))) == TURN
