"""The way out of a sandbox with network: a program of its own, between the server and bwrap, for one command.

    command ── eth0 ══ veth ══ door │ gate │ tap ── slirp4netns or pasta ── the machine's sockets
    └─ bwrap's own namespace ─┘     └─ this program's ─┘                    └─ the machine's namespace

Everything that a command sends is *forwarded* by the gate, whose rules nothing in the sandbox can touch, and none lead
to what is closed. Routes in the sandbox itself would not do: a socket that is bound to a link (SO_BINDTODEVICE and
IP_PKTINFO need no rights) passes by them, and slirp4netns and pasta connect wherever a packet says, 127.0.0.1 included.
Of the resolver, which may be a program on the machine's loopback, port 53 is open and no other: hence by rule.

It needs no rights but those in a user namespace of its own. All that it starts dies with it, and it with the server.
It imports nothing but the standard library and `netlink`. Sources: user_namespaces(7), network_namespaces(7), veth(4),
ip-rule(8), slirp4netns(1), pasta(1), prctl(2).
"""

import ctypes
import itertools
import os
import re
import select
import signal
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, collapse_addresses
from pathlib import Path
from typing import NamedTuple, NoReturn

from turnwire.sandboxes.network.netlink import (
    ARP_IGNORE,
    FORWARDING,
    MAIN,
    PROXY_ARP,
    ROUTE_LOCALNET,
    RP_FILTER,
    Netlink,
    announce,
)

CLOSED = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
)
"""What is not public, or not one machine (RFC 6890). The machine's own addresses and networks are closed, too."""

RESOLVER = IPv4Address("10.0.2.3")
"""Where a command asks for names: slirp4netns and pasta hand that on to the machine's own resolver."""

_ROUTER = IPv4Address("10.0.2.2")
_NETWORK = IPv4Network("10.0.2.0/24")
_TAP_ADDRESS = IPv4Interface("10.0.2.100/32")
_DOOR_ADDRESS, _COMMAND_ADDRESS = IPv4Interface("10.0.2.101/30"), IPv4Interface("10.0.2.102/30")
_ANYWHERE = IPv4Network("0.0.0.0/0")
_TAP, _DOOR, _INSIDE = "tap0", "door", "eth0"
_OUTSIDE_TABLE, _RESOLVER_TABLE = 100, 101
_DNS_PORT = 53
_MTU = 65520
"""The largest that slirp4netns takes: large packets cost the least."""

_SETTINGS = {FORWARDING: 1, PROXY_ARP: 0, RP_FILTER: 1, ROUTE_LOCALNET: 0, ARP_IGNORE: 0}
"""Of both links of the gate. A new namespace copies those of the machine, which may be anything."""

_SANDBOX_USER = 1000
"""bwrap's user and group, in a user namespace below the gate's: any but root."""

_LINK_TIMEOUT_S = 5.0
"""slirp4netns and pasta make their link within some hundredths of a second."""

_TROUBLE = 125
"""The exit code when there is no way out."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_NO_NEW_PRIVS = 1, 4, 38


class Trouble(Exception):
    """Why there is no network: a sentence."""


def main(arguments: Sequence[str]) -> NoReturn:
    """`arguments`: pid of the server; user to become, or ""; kind and path of the uplink; LD_PRELOAD of bwrap, or "";
    and bwrap's command line."""
    server, user, kind, program, preload, *line = arguments
    try:
        _die_with(int(server))
        closed = closed_networks()
        if user:
            _become(int(user))
            _die_with(int(server))
        os._exit(_run(kind, program, closed, line, {"LD_PRELOAD": preload} if preload else {}))
    except Trouble as exc:
        _say(f"The sandbox's network can't be set up: {exc}")
    except OSError as exc:
        _say(f"The sandbox's network can't be set up: {exc}.")
    os._exit(_TROUBLE)


def closed_networks() -> list[IPv4Network]:
    """What a command must not reach, on the machine as it is now."""
    with Netlink() as machine:
        own = [address.network for address in machine.addresses()]
        own += [IPv4Network(address.ip) for address in machine.addresses()]
    # A tunnel's "network" may be everything.
    return list(collapse_addresses([*map(IPv4Network, CLOSED), *(net for net in own if net.prefixlen >= 8)]))


class _Command(NamedTuple):
    """bwrap, which holds its sandbox back. `init`: the sandbox's first process; 0 when bwrap failed before that."""

    bwrap: int
    init: int
    unblock: int

    def network(self) -> int:
        """A handle of its namespace."""
        return os.open(f"/proc/{self.init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def go(self) -> None:
        os.write(self.unblock, b"g")

    def drop(self) -> None:
        """While it waits: when this process just ended it would run, for a moment."""
        for pid in filter(None, (self.init, self.bwrap)):
            os.kill(pid, signal.SIGKILL)

    def wait(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.bwrap, 0)[1])
        return code if code >= 0 else 128 - code


def _run(kind: str, program: str, closed: Sequence[IPv4Network], line: list[str], env: dict[str, str]) -> int:
    """The command's exit code."""
    go_reading, go = os.pipe()
    alive_reading, alive = os.pipe()
    said = os.memfd_create("said")
    uplink = os.fork()
    if uplink == 0:
        _start_uplink(kind, program, go_reading, alive_reading, said)
    # slirp4netns becomes root of the gate, to shut itself in.
    _own_user_namespace(_NEWNET, inside=0)
    with Netlink(hear_links=True) as gate:
        os.write(go, b"g")
        command = _start_command(line, env)
        try:
            if command.init:
                _await_tap(gate, os.pidfd_open(uplink), said)
                sandbox = command.network()
                _open_gate(gate, closed, sandbox)
                _enter_sandbox(sandbox, closed)
                _let_go()
                command.go()
        except BaseException:
            command.drop()
            raise
    code = command.wait()
    os.close(alive)
    os.kill(uplink, signal.SIGKILL)
    os.waitpid(uplink, 0)
    return code


def _let_go() -> None:
    """Of input and output: that one is closed is between the command and who reads it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)


def _own_user_namespace(flags: int, inside: int | None = None) -> None:
    """As the user `inside` there, by default the same as here."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", ctypes.c_int(_NEWUSER | flags))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid if inside is None else inside} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid if inside is None else inside} {gid} 1")


def _start_uplink(kind: str, program: str, go: int, alive: int, said: int) -> NoReturn:
    """In the child, which stays in the machine's network."""
    parent = os.getppid()
    try:
        _die_with(parent)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.dup2(said, 2)
        if os.read(go, 1):
            _execute(program, _uplink_line(kind, program, parent, alive), {"PATH": os.defpath})
    except OSError as exc:
        os.write(2, f"{program}: {exc}\n".encode())
    os._exit(_TROUBLE)


def _uplink_line(kind: str, program: str, gate: int, alive: int) -> list[str]:
    if kind == "pasta":
        return [
            *(program, "--foreground", "--quiet", "--ipv4-only", "--no-map-gw"),
            *("--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"),
            *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
            *("--address", str(_TAP_ADDRESS.ip), "--netmask", "24", "--gateway", str(_ROUTER)),
            *("--dns-forward", str(RESOLVER), "--mtu", str(_MTU), "--ns-ifname", _TAP, str(gate)),
        ]
    os.set_inheritable(alive, True)
    return [
        *(program, "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"),
        *(f"--mtu={_MTU}", f"--cidr={_NETWORK}", f"--exit-fd={alive}"),
        *(str(gate), _TAP),
    ]


def _start_command(line: list[str], env: dict[str, str]) -> _Command:
    info, info_writing = os.pipe()
    block, unblock = os.pipe()
    gate = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            # bwrap would leave the command root's rights, were it root.
            _own_user_namespace(0, inside=_SANDBOX_USER)
            _die_with(gate)
            program, *rest = line
            ours = [_handed(info_writing, "--info-fd"), _handed(block, "--block-fd")]
            _execute(program, [program, *itertools.chain(*ours), *rest], env)
        except OSError as exc:
            _say(f"bwrap can't be started: {exc}.")
        os._exit(_TROUBLE)
    os.close(info_writing)
    os.close(block)
    text = b""
    while b"}" not in text and (read := os.read(info, 4096)):
        text += read
    os.close(info)
    found = re.search(rb'"child-pid"\s*:\s*(\d+)', text)
    return _Command(pid, int(found[1]) if found else 0, unblock)


def _handed(descriptor: int, option: str) -> tuple[str, str]:
    os.set_inheritable(descriptor, True)
    return option, str(descriptor)


def _execute(program: str, line: list[str], env: dict[str, str]) -> NoReturn:
    # Which Python ignores, and what it starts would, too.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, line, env)


def _await_tap(gate: Netlink, uplink: int, said: int) -> None:
    """Until the uplink has made its link."""
    deadline = time.monotonic() + _LINK_TIMEOUT_S
    while not gate.has_link(_TAP):
        ready, _, _ = select.select([gate, uplink], [], [], max(0.0, deadline - time.monotonic()))
        if gate in ready:
            gate.take_news()
        else:
            lines = os.pread(said, 4096, 0).decode("utf-8", "replace").split("\n")
            raise Trouble("; ".join(filter(None, lines))[:300] or "its link did not come up.")


def _open_gate(gate: Netlink, closed: Sequence[IPv4Network], sandbox: int) -> None:
    gate.add_veth(_DOOR, _INSIDE, sandbox)
    for name, address in ((_TAP, _TAP_ADDRESS), (_DOOR, _DOOR_ADDRESS)):
        gate.set_up(name, mtu=_MTU, settings=_SETTINGS)
        gate.add_address(name, address)
    # slirp4netns would ask whose the command's address is.
    announce(_TAP, _COMMAND_ADDRESS.ip)
    gate.add_route(_ANYWHERE, _TAP, gateway=_ROUTER)
    for network in closed:
        gate.prohibit(network, _OUTSIDE_TABLE)
    gate.add_route(_ANYWHERE, _TAP, gateway=_ROUTER, table=_OUTSIDE_TABLE)
    gate.add_route(IPv4Network(RESOLVER), _TAP, table=_RESOLVER_TABLE)
    for number, protocol in enumerate((17, 6)):
        gate.add_rule(
            100 + number, came_by=_DOOR, table=_RESOLVER_TABLE, to=RESOLVER, protocol=protocol, port=_DNS_PORT
        )
    gate.add_rule(110, came_by=_DOOR, table=_OUTSIDE_TABLE)
    gate.add_rule(111, came_by=_DOOR, table=None)


def _enter_sandbox(sandbox: int, closed: Sequence[IPv4Network]) -> None:
    """Set up the command's end. This process stays there; the handle keeps the gate."""
    os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _call("setns", ctypes.c_int(sandbox), ctypes.c_int(_NEWNET))
    with Netlink() as inside:
        inside.set_up(_INSIDE, mtu=_MTU)
        inside.add_address(_INSIDE, _COMMAND_ADDRESS)
        inside.add_route(_ANYWHERE, _INSIDE, gateway=_DOOR_ADDRESS.ip)
        inside.add_route(IPv4Network(RESOLVER), _INSIDE, gateway=_DOOR_ADDRESS.ip)
        for network in closed:
            # The gate is what closes them. This says so at once, where its answers are few a second.
            inside.prohibit(network, MAIN)


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # Else /proc/self is root's after that. Nothing of the server's is in this process.
    _call("prctl", *map(ctypes.c_ulong, (_SET_DUMPABLE, 1, 0, 0, 0)))


def _die_with(parent: int) -> None:
    _call("prctl", *map(ctypes.c_ulong, (_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)))
    _call("prctl", *map(ctypes.c_ulong, (_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))
    if os.getppid() != parent:
        os._exit(_TROUBLE)


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _say(text: str) -> None:
    """Into the command's output; that of a program that is talked with is its own."""
    os.write(2, f"{text}\n".encode())
