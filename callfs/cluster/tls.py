"""Mutual TLS between raft peers: both show a certificate of one authority; whom it names the handshake looks at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from callfs.cluster.certified import CertifiedNames, expected
from callfs.cluster.unusable import CannotTakePart

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class TLSUnusable(CannotTakePart):
    """The files of ``raft.tls_*`` can't be used; the message is for the operator."""


class _Credentials:
    """What was in the files at one time."""

    def __init__(self, cert_file: Path, key_file: Path, ca_file: Path) -> None:
        chain = _PEM_CERTIFICATE.findall(cert_file.read_bytes())
        authorities = [Certificate.loadPEM(pem) for pem in _PEM_CERTIFICATE.findall(ca_file.read_bytes())]
        if not chain or not authorities:
            raise TLSUnusable("raft.tls_cert_file and raft.tls_ca_file must contain PEM certificates")
        own = PrivateCertificate.loadPEM(key_file.read_bytes() + b"\n" + chain[0])
        self.names = CertifiedNames.of(own.original.to_cryptography())
        # Both sides verify that the other's certificate is the authority's. Whom it names can be judged only when
        # the other side has said who it is.
        self.options = CertificateOptions(
            privateKey=own.privateKey.original,
            certificate=own.original,
            extraCertChain=[crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in chain[1:]],
            trustRoot=trustRootFromCertificates(authorities),
        )
        self.options.getContext().check_privatekey()


@implementer(IOpenSSLServerConnectionCreator)
class PeerTLS:
    """
    Certificate, key and authority of a node.

    :param cert_file: the node's certificate, PEM, with any intermediate ones after it.
    :param key_file: its private key, PEM.
    :param ca_file: the authorities that peers' certificates must come from, PEM.
    :param node_id: this node.
    :param raft_address: where the others reach it.
    :raises TLSUnusable: a file can't be read or isn't what it should be, or the certificate is another node's.
    """

    def __init__(self, cert_file: Path, key_file: Path, ca_file: Path, *, node_id: str, raft_address: str) -> None:
        self._files = (cert_file, key_file, ca_file)
        self._node_id = node_id
        self._raft_address = raft_address
        self.reload()

    def reload(self) -> None:
        """
        Read the files again, for all connections from now on.

        :raises TLSUnusable: they can't be used; what was read before is kept.
        """
        try:
            credentials = _Credentials(*self._files)
        except OSError as error:
            raise TLSUnusable(f"can't read {error.filename}: {error.strerror}") from error
        except (SSL.Error, crypto.Error, VerifyError, ValueError) as error:
            raise TLSUnusable(
                "the files of raft.tls_cert_file, tls_key_file, tls_ca_file don't fit together"
            ) from error

        places = (self._raft_address,)
        if not credentials.names.fit(self._node_id, places):
            raise TLSUnusable(
                f"the certificate of raft.tls_cert_file is for {credentials.names}: no peer would take this node "
                f"for {self._node_id}. It has to be for {expected(self._node_id, places)}, as a subject "
                "alternative name"
            )
        self._credentials = credentials

    def serverConnectionForTLS(self, _protocol: object) -> SSL.Connection:
        """What a connection that comes in begins with."""
        return SSL.Connection(self._credentials.options.getContext(), None)

    def connection_to(self, host: str) -> SSL.Connection:
        """What a connection to ``host`` begins with."""
        connection = self.serverConnectionForTLS(None)
        # Some proxies go by the name; for addresses there is no such thing (RFC 6066, section 3).
        if not isIPAddress(host) and not isIPv6Address(host):
            connection.set_tlsext_host_name(host.encode("ascii"))
        return connection

    def accepting(self, factory: Factory) -> Any:
        """A factory that speaks TLS first, and only with who has a certificate of the authority."""
        return TLSMemoryBIOFactory(self, False, factory)

    def dialling(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        """
        An endpoint that speaks TLS first, and only with who has a certificate of the authority.

        :param host: a name or an IP address.
        """
        return wrapClientTLS(_Dialling(self, host), endpoint)


@implementer(IOpenSSLClientConnectionCreator)
class _Dialling:
    """Looks the certificates up for each attempt."""

    def __init__(self, tls: PeerTLS, host: str) -> None:
        self._tls = tls
        self._host = host

    def clientConnectionForTLS(self, _protocol: object) -> SSL.Connection:
        return self._tls.connection_to(self._host)
