"""Whether a peer is who it says it is: the verification of its certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_PEM_END = b"-----END CERTIFICATE-----"


class UnusableCertificates(Exception):
    """The file of ``backend.internal_proxy_ca_file`` holds no certificates; the message is for the operator."""


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """
    The certificates of a PEM file.

    :raises UnusableCertificates: there are none, or one can't be read.
    :raises OSError: the file can't be read.
    """
    blocks = [block + _PEM_END for block in path.read_bytes().split(_PEM_END)[:-1]]
    try:
        certificates = tuple(Certificate.loadPEM(block) for block in blocks)
    except crypto.Error:
        certificates = ()
    if not certificates:
        raise UnusableCertificates(f"{path} has no usable certificates: it should be a PEM file of the peers' CA")
    return certificates


@implementer(IPolicyForHTTPS)
class VerifiedPeers:
    """
    Certificates have to be valid for the name in the peer's endpoint (RFC 9110, section 4.3.4).

    :param authorities: who may have signed them; none: whom the system trusts.
    """

    def __init__(self, authorities: Sequence[Certificate] = ()) -> None:
        self._trust = trustRootFromCertificates(list(authorities)) if authorities else platformTrust()

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """For Twisted."""
        return optionsForClientTLS(hostname.decode("ascii"), trustRoot=self._trust)


@implementer(IPolicyForHTTPS)
class UnverifiedPeers:
    """Encrypted, but to whomever: ``backend.internal_proxy_skip_tls_verify``."""

    def __init__(self) -> None:
        self._options = CertificateOptions(verify=False, raiseMinimumTo=TLSVersion.TLSv1_2)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """For Twisted."""
        return _UnverifiedConnection(hostname, self._options.getContext())


def policy_for(skip_verify: bool, ca_file: Path | None) -> IPolicyForHTTPS:
    """
    How the configuration wants certificates verified.

    :param skip_verify: ``backend.internal_proxy_skip_tls_verify``.
    :param ca_file: ``backend.internal_proxy_ca_file``; then only the authorities in it are trusted.
    :raises UnusableCertificates: the file has none.
    :raises OSError: the file can't be read.
    """
    if skip_verify:
        return UnverifiedPeers()
    return VerifiedPeers(() if ca_file is None else read_certificates(ca_file))


@implementer(IOpenSSLClientConnectionCreator)
class _UnverifiedConnection:
    def __init__(self, hostname: bytes, context: SSL.Context) -> None:
        self._hostname = hostname
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """For Twisted."""
        connection = SSL.Connection(self._context, None)
        if not _is_address(self._hostname):
            connection.set_tlsext_host_name(self._hostname)
        return connection


def _is_address(hostname: bytes) -> bool:
    try:
        ipaddress.ip_address(hostname.decode("ascii"))
    except ValueError:
        return False
    return True
