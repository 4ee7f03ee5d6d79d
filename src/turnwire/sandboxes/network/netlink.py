"""rtnetlink, as far as a sandbox's network needs it: links, addresses, routes and rules, for IPv4.

Standard library only, and quick to import: the gate is a process of its own for each command. Sources: netlink(7),
rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h, linux/fib_rules.h.
"""

import contextlib
import os
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Self

_NETLINK_ROUTE = 0
_REQUEST, _ACK, _CREATE, _EXCL, _DUMP = 0x1, 0x4, 0x400, 0x200, 0x300
_ERROR, _DONE, _NEWLINK, _NEWADDR, _GETADDR, _NEWROUTE, _NEWRULE = 2, 3, 16, 20, 22, 24, 32
_GROUP_LINK = 1
_IFNAME, _MTU, _LINKINFO, _AF_SPEC, _NET_NS_FD = 3, 4, 18, 26, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_INET_CONF, _INET6_ADDR_GEN_MODE = 1, 8
_GEN_MODE_NONE = 1
_ADDRESS, _LOCAL = 1, 2
_DST, _OIF, _GATEWAY, _TABLE = 1, 4, 5, 15
_RULE_DST, _RULE_IIF, _RULE_PRIORITY, _RULE_TABLE, _RULE_IP_PROTO, _RULE_DPORTS = 1, 3, 6, 15, 22, 24
_RULE_TO_TABLE, _RULE_PROHIBIT = 1, 8
_UNICAST, _PROHIBIT, _STATIC = 1, 8, 4
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_ONLINK = 4
_UP = 1
_IPV4, _ARP = 0x0800, 0x0806

MAIN = 254
"""The table of routes that is asked when no rule says another."""

FORWARDING, PROXY_ARP, RP_FILTER, ROUTE_LOCALNET, ARP_IGNORE = 1, 3, 8, 26, 19
"""Keys of an interface's settings (IPV4_DEVCONF_*), as under /proc/sys/net/ipv4/conf."""


class Netlink:
    """A socket to the kernel of the network namespace that it was made in. What is refused raises OSError."""

    def __init__(self, *, hear_links: bool = False) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._socket.bind((0, _GROUP_LINK if hear_links else 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def has_link(self, name: str) -> bool:
        return name in (named for _, named in socket.if_nameindex())

    def take_news(self) -> None:
        """Read what has come. For a socket that hears of links, each of which is news."""
        self._socket.recv(65536)

    def add_veth(self, name: str, peer: str, peer_netns: int) -> None:
        """A pair of links, the peer in another namespace, which an open handle is given of."""
        other = _link(0) + _text(_IFNAME, peer) + _attribute(_NET_NS_FD, struct.pack("=I", peer_netns))
        info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, other))
        self._ask(_NEWLINK, _CREATE | _EXCL, _link(0) + _text(_IFNAME, name) + _attribute(_LINKINFO, info))

    def set_up(self, name: str, *, mtu: int | None = None, settings: dict[int, int] | None = None) -> None:
        """Bring a link up: with these settings of IPv4, and without addresses of IPv6 that make themselves."""
        index = socket.if_nametoindex(name)
        values = b"".join(_attribute(key, struct.pack("=I", value)) for key, value in (settings or {}).items())
        families = _attribute(socket.AF_INET, _attribute(_INET_CONF, values)) if values else b""
        size = b"" if mtu is None else _attribute(_MTU, struct.pack("=I", mtu))
        self._ask(_NEWLINK, 0, _link(index) + size + (_attribute(_AF_SPEC, families) if families else b""))
        quiet = _attribute(socket.AF_INET6, _attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE])))
        # A kernel without IPv6, or with it switched off, refuses this: then there are none.
        with contextlib.suppress(OSError):
            self._ask(_NEWLINK, 0, _link(index) + _attribute(_AF_SPEC, quiet))
        self._ask(_NEWLINK, 0, _link(index, up=True))

    def add_address(self, name: str, address: IPv4Interface) -> None:
        head = struct.pack("=BBBBI", socket.AF_INET, address.network.prefixlen, 0, 0, socket.if_nametoindex(name))
        packed = address.ip.packed
        self._ask(_NEWADDR, _CREATE | _EXCL, head + _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed))

    def add_route(self, to: IPv4Network, name: str, *, gateway: IPv4Address | None = None, table: int = MAIN) -> None:
        """By a gateway that is on the link, or straight onto it."""
        scope = _SCOPE_LINK if gateway is None else _SCOPE_UNIVERSE
        way = b"" if gateway is None else _attribute(_GATEWAY, gateway.packed)
        way += _attribute(_OIF, struct.pack("=I", socket.if_nametoindex(name)))
        self._ask(_NEWROUTE, _CREATE, _route(to, table, scope, _UNICAST, _ONLINK if gateway else 0) + way)

    def prohibit(self, to: IPv4Network, table: int) -> None:
        """Packets there are answered as prohibited."""
        self._ask(_NEWROUTE, _CREATE, _route(to, table, _SCOPE_UNIVERSE, _PROHIBIT, 0))

    def add_rule(
        self,
        priority: int,
        *,
        came_by: str,
        table: int | None,
        to: IPv4Address | None = None,
        protocol: int | None = None,
        port: int | None = None,
    ) -> None:
        """Which table is asked for what came in by a link; None: it is prohibited."""
        action = _RULE_PROHIBIT if table is None else _RULE_TO_TABLE
        rule = struct.pack("=BBBBBBBBI", socket.AF_INET, 32 if to else 0, 0, 0, 0, 0, 0, action, 0)
        rule += _attribute(_RULE_PRIORITY, struct.pack("=I", priority)) + _text(_RULE_IIF, came_by)
        if table is not None:
            rule += _attribute(_RULE_TABLE, struct.pack("=I", table))
        if to is not None:
            rule += _attribute(_RULE_DST, to.packed)
        if protocol is not None:
            rule += _attribute(_RULE_IP_PROTO, bytes([protocol]))
        if port is not None:
            rule += _attribute(_RULE_DPORTS, struct.pack("=HH", port, port))
        self._ask(_NEWRULE, _CREATE | _EXCL, rule)

    def addresses(self) -> list[IPv4Interface]:
        """Those of all links."""
        self._send(_GETADDR, _DUMP, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0))
        found: list[IPv4Interface] = []
        while True:
            for kind, content in self._messages():
                if kind == _DONE:
                    return found
                if kind == _NEWADDR:
                    values = dict(_attributes(content[8:]))
                    address = values.get(_LOCAL) or values.get(_ADDRESS)
                    if address:
                        found.append(IPv4Interface((address, content[1])))

    def _ask(self, kind: int, flags: int, content: bytes) -> None:
        self._send(kind, flags | _ACK, content)
        sequence = self._sequence
        while True:
            data = self._socket.recv(65536)
            for offset, length, answer, number in _heads(data):
                if answer == _ERROR and number == sequence:
                    code = -struct.unpack_from("=i", data, offset + 16)[0]
                    assert length >= 20
                    if code:
                        raise OSError(code, os.strerror(code))
                    return

    def _send(self, kind: int, flags: int, content: bytes) -> None:
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(content), kind, flags | _REQUEST, self._sequence, 0)
        self._socket.send(head + content)

    def _messages(self) -> list[tuple[int, bytes]]:
        data = self._socket.recv(262144)
        return [(kind, data[offset + 16 : offset + length]) for offset, length, kind, _ in _heads(data)]


def announce(name: str, address: IPv4Address) -> None:
    """Tell who is on a link that an address is to be found here (a gratuitous ARP request, RFC 5227)."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((name, 0))
        own = link.getsockname()[4]
        request = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + own + address.packed + bytes(6) + address.packed
        link.send(b"\xff" * 6 + own + struct.pack("!H", _ARP) + request)


def _heads(data: bytes) -> list[tuple[int, int, int, int]]:
    """Of each message: where it begins, its length, its kind, its number."""
    found: list[tuple[int, int, int, int]] = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, number, _ = struct.unpack_from("=IHHII", data, offset)
        found.append((offset, length, kind, number))
        offset += _aligned(length)
    return found


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found.append((kind, data[offset + 4 : offset + length]))
        offset += max(4, _aligned(length))
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (_aligned(length) - length)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _link(index: int, *, up: bool = False) -> bytes:
    """struct ifinfomsg."""
    return struct.pack("=BxHiII", 0, 0, index, _UP * up, _UP * up)


def _route(to: IPv4Network, table: int, scope: int, kind: int, flags: int) -> bytes:
    """struct rtmsg, and what every route has."""
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, to.prefixlen, 0, 0, 0, _STATIC, scope, kind, flags)
    destination = _attribute(_DST, to.network_address.packed) if to.prefixlen else b""
    return head + destination + _attribute(_TABLE, struct.pack("=I", table))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
