"""
The address of the client behind proxies that are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)', re.IGNORECASE)

_Address = IPv4Address | IPv6Address


class TrustedProxies:
    """
    Networks whose ``Forwarded`` (RFC 7239) and ``X-Forwarded-For`` are believed.

    :param networks: addresses or networks in CIDR notation.
    :raises ValueError: one of them is neither.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(network, strict=False) for network in networks
        )

    def client_address(self, peer: str, headers: Mapping[str, str]) -> str:
        """
        The nearest address that isn't a trusted proxy's.

        Each proxy appends the address that it was called from, so the list is read from its end, and only as long
        as who wrote the entry is trusted: what a client wrote itself is never reached.

        :param peer: the address at the other end of the connection; not an address for a UNIX socket.
        :param headers: of the request, by lower-case name.
        """
        if not self._networks:
            return peer
        address = _parsed(peer)
        for hop in reversed(_hops(headers)):
            if address is None or not self._trusts(address):
                break
            following = _parsed(hop)
            if following is None:
                break
            address = following
        return peer if address is None else str(address)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _hops(headers: Mapping[str, str]) -> list[str]:
    forwarded = headers.get("forwarded")
    if forwarded is not None:
        found = [_FORWARDED_FOR.search(element) for element in forwarded.split(",")]
        return [match[1].strip('"') if match is not None else "" for match in found]
    listed = headers.get("x-forwarded-for")
    return [] if listed is None else listed.split(",")


def _parsed(text: str) -> _Address | None:
    """An address, without the port and the brackets that it may have; IPv4 also when mapped into IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
