"""Readers that are slow, many, half there or gone, and what they cost."""

import asyncio
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from clients import strict
from e2e import wire
from e2e.harness import Server, eventually, stalled_reader

FOLLOWERS = 1000


def closed_within(connection: socket.socket, seconds: float) -> float:
    """How long it took the server to close the connection."""
    connection.settimeout(seconds)
    began = time.monotonic()
    while connection.recv(65_536):
        pass
    return time.monotonic() - began


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_cut_off_in_time_and_costs_little(serve: Callable[..., Server]) -> None:
    """50 MB stream past twenty of them."""
    server = serve(SLOW_READER_TIMEOUT_S=1)
    api = server.api()
    message = "/stall 0.5\n" + "/big 1000000\n" * 50

    def run(stalled: ExitStack, count: int) -> tuple[list[socket.socket], str]:
        session = api.create()["id"]
        with api.sending(session, message) as live:
            path = f"/v1/sessions/{session}/responses/{live.id}"
            readers = [stalled.enter_context(stalled_reader(server, f"{path}/events")) for _ in range(count)]
            assert sum(map(len, live.response.iter_raw())) > 50_000_000
        return readers, api.get(path)["status"]

    with ExitStack() as stalled:
        run(stalled, 0)  # what the turn itself costs
        before_kib = server.peak_kib()
        readers, status = run(stalled, 20)
        grown_kib = server.peak_kib() - before_kib
        eventually(lambda: server.log.count("slow_reader_cut") == 20, 10)

        assert status == "completed"
        assert grown_kib < 250_000, f"{grown_kib} KiB more; unbounded it would be 1,000,000"
        for reader in readers[:3]:
            received = b""
            reader.settimeout(10)
            with suppress(ConnectionResetError):
                while chunk := reader.recv(1 << 20):
                    received += chunk
            assert len(received) < 12_000_000, "what the kernel holds, and not the turn"
            with pytest.raises(strict.WireError):
                strict.unchunk(received.partition(b"\r\n\r\n")[2])


@pytest.mark.slow
def test_a_reader_that_is_slow_but_reads_is_not_cut_off(serve: Callable[..., Server]) -> None:
    server = serve(SLOW_READER_TIMEOUT_S=1)
    api = server.api()
    session = api.create()["id"]
    turn = api.send(session, "/big 3000000\n/big 3000000\n/big 2000000")

    with stalled_reader(server, f"/v1/sessions/{session}/responses/{turn.id}/events") as reader:
        reader.settimeout(10)
        received, began = b"", time.monotonic()
        while chunk := reader.recv(200_000):
            received += chunk
            if time.monotonic() - began < 3:
                time.sleep(0.3)

    body = strict.unchunk(received.partition(b"\r\n\r\n")[2])
    assert wire.text_of(wire.numbered_frames(body)) == turn.text
    assert "slow_reader_cut" not in server.log


@pytest.mark.slow
@pytest.mark.tool("unshare")
def test_a_reader_that_vanished_is_given_up_in_time(tmp_path: Path) -> None:
    """Its machine is gone from one moment to the next, without a FIN: the bytes sent to it stay unacknowledged."""
    command = ["unshare", "-Urn", sys.executable, str(Path(__file__).with_name("half_open.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert 1 < float(done.stdout) < 8, "TCP_USER_TIMEOUT_S is 2; Linux alone would take some 15 minutes"


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET /hea"])
def test_a_request_whose_head_does_not_come_is_closed_in_time(impatient: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port)) as connection:
        connection.sendall(sent)

        assert 0.3 < closed_within(connection, 5) < 3


def test_a_head_that_trickles_in_is_closed_in_time(impatient: Server) -> None:
    """Each byte is a sign of life; the head as a whole has its time."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", impatient.port)) as connection:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for byte in b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 500:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

    assert time.monotonic() - began < 4


def test_a_second_request_on_a_connection_has_its_time_too(impatient: Server) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", impatient.port)) as connection:

        def ask() -> None:
            connection.sendall(whole)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")

        for _ in range(3):
            ask()
        time.sleep(0.8)  # between requests a connection may rest longer than a head may take
        ask()
        connection.sendall(whole[:20])
        assert 0.3 < closed_within(connection, 5) < 3


def test_a_stream_outlives_the_time_for_a_head(impatient: Server) -> None:
    assert impatient.api().ask("/text a\n/stall 1.5\n/text b").text == "ab"


@pytest.mark.slow
def test_a_thousand_followers_of_one_turn_all_get_everything(serve: Callable[..., Server]) -> None:
    with open_files(4096):
        server = serve()  # started with the usual soft limit of 1,024: it raises its own
        api = server.api()
        session = api.create()["id"]

        async def read(response_id: str) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            path = f"/v1/sessions/{session}/responses/{response_id}/events"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n\r\n".encode())
            content = await reader.read(-1)
            writer.close()
            return content

        async def all_of_them(response_id: str) -> list[bytes]:
            return await asyncio.gather(*(read(response_id) for _ in range(FOLLOWERS)))

        with api.sending(session, "/stall 3\n/stream 100 50\n/stall 1\n/text end", event_ids=True) as live:
            began = time.monotonic()
            answers = asyncio.run(all_of_them(live.id))
            took_s = time.monotonic() - began
            live.rest()

        bodies = {strict.unchunk(answer.partition(b"\r\n\r\n")[2]) for answer in answers}
        assert bodies == {live.content}
        assert wire.text_of(wire.numbered_frames(live.content)).endswith("100 end")
        assert took_s < 40
        print(f"\n{FOLLOWERS} followers, 100 deltas: {took_s:.1f} s, of which the turn takes 6; {server.rss_kib()} KiB")


@pytest.mark.slow
def test_a_long_finished_turn_is_replayed_in_pages(serve: Callable[..., Server]) -> None:
    server = serve()
    api = server.api()
    session = api.create(persistent=True)["id"]
    for message in ("/stream 100000", "/big 400000\n" * 120):
        with api.sending(session, message):
            pass
        api.when_idle(session, 60)
    large, many = api.responses(session)
    server.stop()
    server.restart()  # what the turns cost while they ran is not to hide what their replay costs

    def replay(record: dict[str, Any]) -> tuple[int, float]:
        path = f"/v1/sessions/{session}/responses/{record['id']}/events"
        began = time.monotonic()
        with api.http.stream("GET", path) as response:
            content = b"".join(response.iter_raw(1 << 20))
        took_s = time.monotonic() - began
        assert len(api.check_stream(response, content)) == record["last_sequence_number"] + 1
        return len(content), took_s

    size, took_s = replay(many)
    print(f"\n{many['last_sequence_number'] / took_s:,.0f} events/s, {size / took_s / 1e6:.0f} MB/s")
    before_kib = server.rss_kib()
    size, _ = replay(large)
    grown_kib = server.rss_kib() - before_kib

    assert many["last_sequence_number"] > 100_000
    assert size > 48_000_000
    assert grown_kib < 20_000, f"{grown_kib} KiB more for {size} bytes"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for a request's head for half a second only."""
    with Server(tmp_path_factory.mktemp("impatient"), HEADER_TIMEOUT_S=0.5) as server:
        yield server


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Let this process open so many files; what it starts begins with the usual soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= count, "the hard limit of open files is too low for this test"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
