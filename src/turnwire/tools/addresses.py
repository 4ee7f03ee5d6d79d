"""Which addresses of the network an agent may reach: none of this machine's, and none of the networks behind it."""

import asyncio
import ipaddress
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """A name or an address that leads where an agent may not go. The text is for the agent."""


def is_public(address: Address) -> bool:
    """Whether the address is of the public Internet. An IPv4 address inside an IPv6 one is judged as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def check_host(host: str, *, private: bool) -> None:
    """Refuse a host that is an address which is not public. A name is checked when it is resolved."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return
    if not private and not is_public(address):
        raise AddressRefused(f"{host} is no address of the public Internet, so it is not fetched.")


class CheckedResolver(AbstractResolver):
    """Resolves names, and gives only addresses that may be connected to: what was checked is what is connected to, so
    that a name which answers otherwise the next time (DNS rebinding) gains nothing."""

    def __init__(self, *, private: bool) -> None:
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found: list[Any] = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for its_family, _, proto, _, (address, its_port, *_) in found:
            if self._private or is_public(ipaddress.ip_address(address.partition("%")[0])):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=address,
                        port=its_port,
                        family=its_family,
                        proto=proto,
                        flags=socket.AI_NUMERICHOST,
                    )
                )
        if not results:
            raise AddressRefused(f"{host} leads to no address of the public Internet, so it is not fetched.")
        return results

    async def close(self) -> None:
        pass
