"""Run with a data folder on a small file system of its own:

    python full_disk.py DISK LOGS

Turns stream while the disk fills up; then there is room again.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e import wire
from e2e.harness import Api, Server, Turn, eventually

TURNS = 4


def fill(disk: Path) -> Path:
    """Leave no byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def stream(api: Api, session: str) -> Turn:
    return api.send(session, "/stream 100000 2000", event_ids=True)


def check_refusals(api: Api, idle: str) -> None:
    """What would write is refused, for the moment; what reads works."""
    messages = f"/v1/sessions/{idle}/messages"
    refused = api.refused("POST", messages, 503, "unavailable", json={"message": "hello"})
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    big = {"instructions": "x" * 50_000}
    api.refused("POST", "/v1/sessions", 503, "unavailable", json=big)
    api.refused("PATCH", f"/v1/sessions/{idle}", 503, "unavailable", json=big)
    assert api.session(idle)["busy"] is False
    assert api.responses(idle)[0]["status"] == "completed"
    assert [message["status"] for message in api.messages(idle)] == ["completed", "completed"]


def main() -> None:
    disk, logs = Path(sys.argv[1]), Path(sys.argv[2])
    server = Server(disk)
    server.log_file = logs / "server.log"  # on a disk of its own: there is always room for it
    with server:
        api = server.api()
        idle = api.create(persistent=True)["id"]
        before = api.send(idle, "hello")
        running = [api.create(persistent=True)["id"] for _ in range(TURNS)]
        with ThreadPoolExecutor(TURNS) as pool:
            streams = [pool.submit(stream, api, session) for session in running]
            eventually(lambda: all(api.session(session)["busy"] for session in running))
            time.sleep(0.5)
            ballast = fill(disk)
            eventually(lambda: "The disk is full" in server.log)
            # Whatever room there was in the write-ahead log is used up by now: nothing more is committed.
            time.sleep(1)
            check_refusals(api, idle)
            assert all(api.session(session)["busy"] for session in running), "they end when there is room for it"
            follower = threading.Thread(target=api.follow, args=(running[0], api.session(running[0])["response_id"]))
            follower.start()
            time.sleep(0.5)
            ballast.unlink()
            freed = time.monotonic()
            turns = [future.result(30) for future in streams]
            took_s = time.monotonic() - freed
            follower.join(30)

        assert took_s < 12, f"{took_s:.1f} s until the running turns had ended"
        for session, turn in zip(running, turns, strict=True):
            # check_stream saw the grammar; what the caller saw is in the log, and is all of it.
            assert turn.ending == "message.error", turn.last
            assert "disk" in turn.error
            assert len(turn.events) > 100
            assert api.follow(session, turn.id).content == turn.content
            assert api.messages(session)[1]["content"] == [{"type": "text", "text": turn.text}]
        # Without a restart, all works again.
        assert api.send(idle, "/text again").text == "again"
        assert api.send(running[0], "/text again").text == "again"
        api.create(instructions="x" * 50_000)
        assert server.process.poll() is None

        server.stop()
        server.restart()
        for session, turn in zip(running, turns, strict=True):
            assert api.follow(session, turn.id).content == turn.content
        assert api.follow(idle, before.id).events == before.events
        wire.check_turn(before.events)


main()
