"""Run in a network namespace of its own: a reader whose machine is gone from one moment to the next.

    unshare -Urn python half_open.py FOLDER

The loopback goes down under an open stream, so that no packet comes through any more, no FIN and no RST either.
"""

import fcntl
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.harness import Server, eventually

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def set_loopback(up: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def main() -> None:
    set_loopback(True)
    with Server(Path(sys.argv[1]), TCP_USER_TIMEOUT_S=2, HEARTBEAT_INTERVAL_S=0.3) as server:
        api = server.api()
        session = api.create()["id"]
        api.http.close()
        api = server.api()
        time.sleep(1)  # the connection before it is closed on the other side, too
        before = server.sockets()
        with api.sending(session, "/text a\n/stall 20") as live:
            live.until("text.delta")
            eventually(lambda: server.sockets() == before + 1, 5)
            set_loopback(False)
            began = time.monotonic()
            eventually(lambda: server.sockets() == before, 15)
            print(f"{time.monotonic() - began:.1f}")
            set_loopback(True)
        with server.api() as fresh:
            assert fresh.session(session)["busy"] is True, "the turn runs on"
            fresh.request("DELETE", f"/v1/sessions/{session}", status=204)


main()
