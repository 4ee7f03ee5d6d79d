"""Large, slow, broken and simultaneous transfers: little memory, whole files, nothing left behind."""

import hashlib
import io
import os
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from files.served import KEY, Files, Served, error_of, eventually

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
MEMORY_KIB_MAX = 24 * 1024
"""What a transfer may add to the server's memory, whatever the file's size: some pieces, and the allocator's air."""

SIZES = [200, pytest.param(1024, marks=pytest.mark.long)]


def noise(mib: int) -> Iterator[bytes]:
    """So many MiB that no compression makes smaller, the same each time."""
    block = os.urandom(MIB)
    for number in range(mib):
        yield number.to_bytes(8) + block[8:]


@pytest.mark.parametrize("mib", SIZES)
def test_the_size_of_a_file_costs_no_memory(files: Files, server: Served, mib: int) -> None:
    files.put("warm-up", b"x" * MIB)
    files.get("warm-up")
    before = server.peak_kib()
    sent, received, zipped = hashlib.sha256(), hashlib.sha256(), 0

    def chunks() -> Iterator[bytes]:
        for chunk in noise(mib):
            sent.update(chunk)
            yield chunk

    assert files.put("in/large.png", chunks()).json()["size"] == mib * MIB
    uploaded = server.peak_kib()
    with server.client.stream("GET", f"{files.root}/in/large.png") as answer:
        for chunk in answer.iter_raw():
            received.update(chunk)
    downloaded = server.peak_kib()
    with server.client.stream("GET", f"{files.root}/in?format=zip") as answer:
        for chunk in answer.iter_raw():
            zipped += len(chunk)

    assert received.digest() == sent.digest()
    assert mib * MIB < zipped < mib * MIB + 1000
    grown = (uploaded - before, downloaded - before, server.peak_kib() - before)
    assert max(grown) < MEMORY_KIB_MAX, grown
    files.delete("in/large.png")


def test_a_reader_that_does_not_read_costs_no_memory(files: Files, server: Served) -> None:
    files.put("large", noise(40))
    before = server.peak_kib()

    with server.connected() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(f"GET {files.root}/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        assert sock.recv(1000)
        time.sleep(1)

        assert server.peak_kib() - before < MEMORY_KIB_MAX


def put_head(files: Files, path: str, framing: str) -> bytes:
    return f"PUT {files.root}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{framing}\r\n\r\n".encode()


@pytest.mark.parametrize("framing", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("ending", ["closed", "half-closed", "reset"])
def test_a_torn_upload_leaves_nothing(files: Files, server: Served, framing: str, ending: str) -> None:
    files.put("kept", b"before")
    data = b"x" * 2_000_000
    for path in ("kept", "new/folder/file"):
        with server.connected() as sock:
            sock.sendall(put_head(files, path, framing))
            sock.sendall(b"%x\r\n%b\r\n" % (len(data), data) if "chunked" in framing else data)
            eventually(lambda: server.leftovers())
            if ending == "half-closed":
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1000):
                    pass
            if ending == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: not server.leftovers())

    assert files.get("kept").content == b"before"
    assert files.names() == ["kept"]
    eventually(lambda: not (server.shared / "new").exists())


def test_an_upload_that_stalls_is_given_up(start: Callable[..., Served]) -> None:
    server = start(slow_reader_timeout_s=0.5)
    files = server.session()

    with server.connected() as sock:
        sock.sendall(put_head(files, "a", "Content-Length: 100") + b"some")
        assert sock.recv(1000) == b""

    assert files.names() == [] and server.leftovers() == []


def test_a_reader_that_stalls_is_cut_off_and_a_slow_one_is_not(start: Callable[..., Served]) -> None:
    server = start(slow_reader_timeout_s=0.5)
    files = server.session()
    files.put("large", noise(30))

    def ask(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(f"GET {files.root}/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())

    with server.connected() as stalled, server.connected() as slow:
        ask(stalled)
        ask(slow)
        began, taken, left = time.monotonic(), 0, 30 * MIB
        while time.monotonic() < began + 3:
            taken += len(slow.recv(30_000))
            time.sleep(0.1)
        while taken < 30 * MIB and (data := slow.recv(MIB)):
            taken += len(data)
        assert taken >= 30 * MIB
        eventually(lambda: server.reads("large") == 0)
        with suppress(ConnectionResetError):
            while data := stalled.recv(MIB):
                left -= len(data)
        assert left > 0


def test_refused_before_the_body_is_sent(files: Files, server: Served) -> None:
    files.put("a", b"1")

    for more, status in (("If-None-Match: *", b"412"), ("Content-Range: bytes 0-1/2", b"400")):
        with server.connected() as sock:
            sock.sendall(put_head(files, "a", f"Content-Length: 100\r\nExpect: 100-continue\r\n{more}"))
            assert sock.recv(1000).split()[1] == status
    with server.connected() as sock:
        sock.sendall(put_head(files, "a", "Content-Length: 3\r\nExpect: 100-continue"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"new")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_caller_who_sends_all_of_a_refused_upload_reads_the_refusal(start: Callable[..., Served]) -> None:
    server = start(upload_bytes_max=1000)

    assert error_of(server.session().put("a", noise(20))) == (413, "payload_too_large")
    assert error_of(server.session().put("a", b"x" * 20 * MIB)) == (413, "payload_too_large")


def test_a_reader_sees_the_old_or_the_new_file(files: Files, server: Served) -> None:
    files.put("file", b"a" * MIB)
    done = threading.Event()
    seen: set[bytes] = set()
    faults: list[str] = []

    def read() -> None:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as client:
            while not done.is_set():
                answer = client.get(f"{files.root}/file")
                letters = set(answer.content)
                if answer.status_code != 200 or len(letters) != 1 or len(answer.content) != MIB:
                    faults.append(f"{answer.status_code} {len(answer.content)} {letters}")
                seen.add(bytes(letters))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for number in range(40):
        letter = bytes([97 + number % 26])
        files.put("file", iter([letter * (MIB // 2)] * 2))
    done.set()
    for thread in readers:
        thread.join()

    assert faults == []
    assert len(seen) > 2


def test_a_download_goes_on_from_the_file_that_was_opened(files: Files, server: Served) -> None:
    files.put("file", b"a" * 20 * MIB)

    with server.client.stream("GET", f"{files.root}/file") as answer:
        chunks = answer.iter_raw()
        content = next(chunks)
        files.put("file", b"b")
        content += b"".join(chunks)

    assert content == b"a" * 20 * MIB


def test_a_file_that_shrinks_while_it_is_read_ends_in_a_broken_connection(files: Files, server: Served) -> None:
    files.put("file", b"a" * 40 * MIB)

    with pytest.raises(httpx.TransportError), server.client.stream("GET", f"{files.root}/file") as answer:
        chunks = answer.iter_raw()
        next(chunks)
        os.truncate(server.shared / "file", 100)
        for _ in chunks:
            pass


def test_hanging_up_in_a_download_frees_the_file(files: Files, server: Served) -> None:
    files.put("large", noise(30))

    for _ in range(5):
        with server.client.stream("GET", f"{files.root}/large") as answer:
            next(answer.iter_raw())
        with server.client.stream("GET", f"{files.root}?format=zip") as answer:
            next(answer.iter_raw())

    eventually(lambda: server.reads("large") == 0)


def test_a_crash_in_an_upload_leaves_nothing_after_the_next_start(start: Callable[..., Served]) -> None:
    server = start()
    files = server.session()
    files.put("kept", b"before")
    with server.connected() as sock:
        sock.sendall(put_head(files, "kept", "Content-Length: 5000000") + b"x" * 2_000_000)
        eventually(lambda: server.leftovers())
        server.close(kill=True)
    assert server.leftovers()
    named_like_one = server.shared / ".turnwire-mine.part"
    named_like_one.touch()

    server.start()

    eventually(lambda: not server.leftovers() or server.leftovers() == [named_like_one])
    assert files.get("kept").content == b"before"
    assert named_like_one.exists()


# Folders as zip files


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_folder_comes_as_a_zip(files: Files, server: Served) -> None:
    files.put("top/a.txt", b"a" * 5000)
    files.put("top/in/é.bin", b"\0\1")
    files.put("top/caf%e9", b"latin")
    files.put("other", b"not here")
    (server.shared / "top" / "empty").mkdir()
    (server.shared / "top" / "link").symlink_to("/etc/passwd")
    os.mkfifo(server.shared / "top" / "fifo")
    (server.shared / "top" / "old").touch()
    os.utime(server.shared / "top" / "old", (0, 0))

    answer = files.get("top?format=zip")

    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="top.zip"'
    assert unzipped(answer.content) == {
        "a.txt": b"a" * 5000,
        "caf\\xe9": b"latin",
        "empty/": b"",
        "in/": b"",
        "in/é.bin": b"\0\1",
        "old": b"",
    }
    assert set(unzipped(files.request("GET", params={"format": "zip"}).content)) >= {"other", "top/a.txt"}
    assert set(unzipped(files.request("GET", params={"format": "zip", "path": "top/in"}).content)) == {"é.bin"}
    assert files.head("top?format=zip").headers["content-type"] == "application/zip"
    assert error_of(files.get("other?format=zip")) == (409, "conflict")
    assert error_of(files.get("top?format=tar")) == (400, "invalid_request")
    assert error_of(files.get("nowhere?format=zip")) == (404, "not_found")


def test_a_zip_holds_what_the_session_may_read(files: Files, server: Served) -> None:
    files.put("pub/a", b"1")
    files.put("secret/b", b"2")
    narrow = server.session(file_access={"read": ["pub"]})

    assert set(unzipped(narrow.request("GET", params={"format": "zip"}).content)) == {"pub/", "pub/a"}
    assert error_of(narrow.get("secret?format=zip")) == (403, "forbidden")


def test_a_zip_is_whole_while_files_come_and_go(files: Files, server: Served) -> None:
    for number in range(300):
        files.put(f"f/{number}", b"x" * 1000)
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            for number in range(0, 300, 7):
                (server.shared / "f" / str(number)).unlink(missing_ok=True)
            for number in range(0, 300, 7):
                (server.shared / "f" / str(number)).write_bytes(b"x" * 1000)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            content = unzipped(files.get("f?format=zip").content)
            assert len(content) >= 300 - 43
    finally:
        done.set()
        thread.join()


def test_the_document_tells_of_all_answers(server: Served) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    at = paths["/v1/sessions/{session_id}/files/{path}"]

    assert set(at) == {"get", "head", "put", "delete"}
    assert {"200", "206", "304", "400", "401", "403", "404", "409", "412", "413", "416"} <= set(at["get"]["responses"])
    assert {"200", "201", "400", "401", "403", "404", "409", "412", "413", "415", "507"} == set(at["put"]["responses"])
    assert {"204", "400", "401", "403", "404", "409", "412"} == set(at["delete"]["responses"])
    for operation in at.values():
        names = [(p["name"], p["in"]) for p in operation["parameters"]]
        assert names.count(("path", "path")) == 1


def test_part_files_are_never_shown(files: Files, server: Served, tmp_path: Path) -> None:
    with server.connected() as sock:
        sock.sendall(put_head(files, "a", "Content-Length: 5000000") + b"x" * 2_000_000)
        eventually(lambda: server.leftovers())

        assert files.names() == []
        assert unzipped(files.request("GET", params={"format": "zip"}).content) == {}
    eventually(lambda: not server.leftovers())
