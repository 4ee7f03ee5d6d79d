"""A machine in a small internet, without any: network namespaces, for tests of what a sandbox reaches.

The machine is the calling process: 192.0.2.2, and 198.51.100.9 on its loopback. Its resolver listens on 127.0.0.53, as
systemd's does, and beside it whatever listens on all addresses. Behind its gateway, 192.0.2.1, the world has a public
address, and some that are not.
"""

import ctypes
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PUBLIC = "203.0.113.7"
OWN = ("192.0.2.2", "198.51.100.9")
GATEWAY = "192.0.2.1"
INNER = ("10.7.7.7", "172.20.0.7", "192.168.7.7", "169.254.169.254", "100.64.7.7")
RESOLVER = "127.0.0.53"
PORT = 8080
NAME = "public.example"
GREETING = b"hello from outside\n"
BULK_BYTES = 20_000_000

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER, _NEWNET = 0x20000, 0x10000000, 0x40000000


def enter(tun: Callable[[], None]) -> None:
    """Make this process such a machine. Call it before any thread is started; `tun` may see to /dev/net/tun."""
    uid, root = os.geteuid(), os.geteuid() == 0
    _unshare(_NEWNET | _NEWNS | (0 if root else _NEWUSER))
    if not root:
        _map(0, uid)
    _run("mount", "--make-rprivate", "/")
    _run("ip", "link", "set", "lo", "up")
    for address in OWN[1:]:
        _run("ip", "address", "add", f"{address}/32", "dev", "lo")
    _connect(_world())
    _resolve_here()
    tun()
    if not root:
        _unshare(_NEWUSER)
        _map(uid, 0)
    _serve("0.0.0.0")


def tun_for_all() -> None:
    """As most distributions have it."""
    if os.geteuid() == 0 and not Path("/dev/net/tun").stat().st_mode & 0o002:
        _run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
        _run("mknod", "-m", "666", "/mnt/tun", "c", "10", "200")
        _run("mount", "--bind", "/mnt/tun", "/dev/net/tun")


def tun_as_it_is() -> None:
    """Root's server sees to it."""


def no_tun() -> None:
    _run("mount", "--bind", "/dev/null", "/dev/net/tun")


def can_connect(address: str, port: int = PORT) -> bool:
    """From the machine itself, outside of any sandbox."""
    with suppress(OSError), socket.create_connection((address, port), timeout=0.5) as connection:
        return connection.recv(100) == GREETING
    return False


def _world() -> int:
    """A process with a network of its own, and servers in it. It ends with this one."""
    reading, writing = os.pipe()
    # Not PR_SET_PDEATHSIG: this process may have become somebody who can't send root's a signal.
    lifeline, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _unshare(_NEWNET)
        os.write(writing, b"x")
        _run("ip", "link", "set", "lo", "up")
        while not Path("/sys/class/net/out").exists() and "out" not in dict(map(reversed, socket.if_nameindex())):
            time.sleep(0.01)
        _run("ip", "address", "add", f"{GATEWAY}/24", "dev", "out")
        for address in (PUBLIC, *INNER):
            _run("ip", "address", "add", f"{address}/32", "dev", "out")
        _run("ip", "link", "set", "out", "up")
        _serve("0.0.0.0")
        threading.Thread(target=_echo_udp, daemon=True).start()
        threading.Thread(target=_send_much, daemon=True).start()
        os.read(lifeline, 1)
        os._exit(0)
    os.close(lifeline)
    os.read(reading, 1)
    return pid


def _connect(world: int) -> None:
    _run("ip", "link", "add", "wan", "type", "veth", "peer", "name", "out", "netns", str(world))
    _run("ip", "address", "add", f"{OWN[0]}/24", "dev", "wan")
    _run("ip", "link", "set", "wan", "up")
    _run("ip", "route", "add", "default", "via", GATEWAY)
    deadline = time.monotonic() + 5
    while not can_connect(PUBLIC):
        assert time.monotonic() < deadline, "the small internet is not up"
        time.sleep(0.01)


def _resolve_here() -> None:
    _run("mount", "-t", "tmpfs", "tmpfs", "/media")
    Path("/media/resolv.conf").write_bytes(f"nameserver {RESOLVER}\n".encode())
    _run("mount", "--bind", "/media/resolv.conf", os.path.realpath("/etc/resolv.conf"))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((RESOLVER, 53))
    threading.Thread(target=_answer, args=(server,), daemon=True).start()


def _answer(server: socket.socket) -> None:
    """DNS (RFC 1035): the one name has the one address."""
    while True:
        query, client = server.recvfrom(2000)
        end = query.index(b"\0", 12) + 5
        is_it = query[12 : end - 4] == b"".join(bytes([len(p)]) + p.encode() for p in NAME.split(".")) + b"\0"
        found = is_it and query[end - 4 : end - 2] == b"\0\1"
        head = query[:2] + struct.pack("!HHHHH", 0x8180 if is_it else 0x8183, 1, int(found), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(PUBLIC)
        server.sendto(head + query[12:end] + (record if found else b""), client)


def _serve(address: str) -> None:
    server = socket.create_server((address, PORT))
    threading.Thread(target=_greet, args=(server,), daemon=True).start()


def _greet(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with suppress(OSError), connection:
            connection.sendall(GREETING)


def _echo_udp() -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((PUBLIC, PORT))
    while True:
        data, client = server.recvfrom(2000)
        server.sendto(data, client)


def _send_much() -> None:
    server = socket.create_server((PUBLIC, PORT + 1))
    while True:
        connection, _ = server.accept()
        with suppress(OSError), connection:
            connection.sendall(bytes(BULK_BYTES))


def _unshare(flags: int) -> None:
    if _LIBC.unshare(flags) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")


def _map(inside: int, outside: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside} {outside} 1")
    Path("/proc/self/gid_map").write_text(f"{inside} {outside} 1")


def _run(*line: str) -> None:
    subprocess.run(line, check=True, capture_output=True)
