"""
Whom a certificate names: a peer has to be named in the one that it shows.

That a certificate is the authority's proves that its owner belongs here, not which node it is. So one of its
subject alternative names has to be that of the node:

======================  ==========================================================================================
in the certificate      names
======================  ==========================================================================================
``DNS:node-1``          the node with this id, letter by letter
``URI:callfs:node-1``   the same, for authorities that take no such id for a host name
``DNS:host.example``    the node whose raft address has this host; case and a dot at the end don't count
``IP:192.0.2.1``        the node whose raft address has this host
======================  ==========================================================================================

The common name isn't looked at (RFC 9525, section 2), and a wildcard names nobody: it would fit every node.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509

from callfs.config.addresses import parse_host_port

_SCHEME = "callfs:"
_MOST_SHOWN = 12

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class CertifiedNames:
    """
    The subject alternative names of a certificate; what it has of other kinds is left out.

    :param hosts: of the kind DNS.
    :param addresses: of the kind IP.
    :param uris: of the kind URI.
    """

    hosts: tuple[str, ...] = ()
    addresses: tuple[_IP, ...] = ()
    uris: tuple[str, ...] = ()

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertifiedNames:
        """Those of a certificate; none when it has none, or none that can be read."""
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
            return cls()
        addresses = names.get_values_for_type(x509.IPAddress)
        return cls(
            tuple(names.get_values_for_type(x509.DNSName)),
            tuple(each for each in addresses if isinstance(each, _IP)),
            tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        )

    def fit(self, node_id: str, raft_addresses: Iterable[str]) -> bool:
        """
        Whether a node is named.

        :param raft_addresses: where it is or may be, ``host:port``.
        """
        if node_id in self.hosts or _SCHEME + node_id in self.uris:
            return True
        hosts = {_folded(host) for host in self.hosts}
        return any(
            host in self.addresses if isinstance(host, _IP) else host in hosts for host in _hosts(raft_addresses)
        )

    def __str__(self) -> str:
        names = (
            *(f"DNS:{host}" for host in self.hosts),
            *(f"IP:{address}" for address in self.addresses),
            *(f"URI:{uri}" for uri in self.uris),
        )
        more = f", and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
        return ", ".join(names[:_MOST_SHOWN]) + more if names else "nobody"


def expected(node_id: str, raft_addresses: Iterable[str]) -> str:
    """What a certificate of this node may say, for the operator."""
    hosts = [f"IP:{host}" if isinstance(host, _IP) else f"DNS:{host}" for host in _hosts(raft_addresses)]
    return " or ".join(dict.fromkeys([f"DNS:{node_id}", f"URI:{_SCHEME}{node_id}", *hosts]))


def _hosts(raft_addresses: Iterable[str]) -> list[_IP | str]:
    places = [parse_host_port(address) for address in raft_addresses]
    return [_host(place.host) for place in places if place is not None and place.host]


def _host(text: str) -> _IP | str:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return _folded(text)


def _folded(host: str) -> str:
    return host.lower().removesuffix(".")
