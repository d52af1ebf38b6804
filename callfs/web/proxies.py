"""
The address of the client behind proxies that are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

        A proxy that writes one of the two headers passes the other on as its client sent it, and which one it
        writes can't be told. Where both are there and lead to different clients, neither is believed.

        :param peer: as :func:`plain_address` has it; not an address for a UNIX socket.
        :param headers: of the request, by lower-case name.
        """
        if not self._networks:
            return peer
        address = _parsed(peer)
        if address is None or not self._trusts(address):
            return peer
        found = {self._nearest_client(address, hops) for hops in _lists(headers)}
        return str(found.pop() if len(found) == 1 else address)

    def _nearest_client(self, address: _Address, hops: Sequence[str]) -> _Address:
        for hop in reversed(hops):
            following = _parsed(hop) if self._trusts(address) else None
            if following is None:
                break
            address = following
        return address

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def plain_address(host: str) -> str:
    """
    The address of a peer in its usual form.

    A socket that listens on ``::`` has clients of IPv4 as mapped addresses, ``::ffff:192.0.2.1``; in limits, logs
    and lists of proxies they are what they are anywhere else. What is no address stays as it is.
    """
    address = _parsed(host)
    return host if address is None else str(address)


def _lists(headers: Mapping[str, str]) -> Iterator[list[str]]:
    """The lists of addresses that the request came through, as the headers that are there have them."""
    if (forwarded := headers.get("forwarded")) is not None:
        found = [_FORWARDED_FOR.search(element) for element in forwarded.split(",")]
        yield [match[1].strip('"') if match is not None else "" for match in found]
    if (listed := headers.get("x-forwarded-for")) is not None:
        yield listed.split(",")


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
