"""Mutual TLS between raft peers: both show a certificate of one authority, the acceptor one for its address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

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
        self.own = PrivateCertificate.loadPEM(key_file.read_bytes() + b"\n" + chain[0])
        self.intermediate = [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in chain[1:]]
        self.trusted = trustRootFromCertificates(authorities)
        self.server = CertificateOptions(
            privateKey=self.own.privateKey.original,
            certificate=self.own.original,
            extraCertChain=self.intermediate,
            trustRoot=self.trusted,
        )
        self.server.getContext().check_privatekey()


@implementer(IOpenSSLServerConnectionCreator)
class PeerTLS:
    """
    Certificate, key and authority of a node.

    :param cert_file: the node's certificate, PEM, with any intermediate ones after it.
    :param key_file: its private key, PEM.
    :param ca_file: the authorities that peers' certificates must come from, PEM.
    :raises TLSUnusable: a file can't be read or isn't what it should be.
    """

    def __init__(self, cert_file: Path, key_file: Path, ca_file: Path) -> None:
        self._files = (cert_file, key_file, ca_file)
        self.reload()

    def reload(self) -> None:
        """
        Read the files again, for all connections from now on.

        :raises TLSUnusable: they can't be used; what was read before is kept.
        """
        try:
            self._credentials = _Credentials(*self._files)
        except OSError as error:
            raise TLSUnusable(f"can't read {error.filename}: {error.strerror}") from error
        except (SSL.Error, crypto.Error, VerifyError, ValueError) as error:
            raise TLSUnusable(
                "the files of raft.tls_cert_file, tls_key_file, tls_ca_file don't fit together"
            ) from error

    def serverConnectionForTLS(self, _protocol: object) -> SSL.Connection:
        """What a connection that comes in begins with."""
        return SSL.Connection(self._credentials.server.getContext(), None)

    def accepting(self, factory: Factory) -> Any:
        """A factory that speaks TLS first, and only with who has a certificate of the authority."""
        return TLSMemoryBIOFactory(self, False, factory)

    def dialling(self, endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        """
        An endpoint that speaks TLS first, and only with who has a certificate of the authority for ``host``.

        :param host: a name or an IP address.
        """
        return _Dialling(self, endpoint, host)

    def client_options(self, host: str) -> Any:
        """For one connection to ``host``."""
        credentials = self._credentials
        more = {"extraCertChain": credentials.intermediate} if credentials.intermediate else None
        return optionsForClientTLS(
            host, trustRoot=credentials.trusted, clientCertificate=credentials.own, extraCertificateOptions=more
        )


@implementer(IStreamClientEndpoint)
class _Dialling:
    """Looks the certificates up for each attempt."""

    def __init__(self, tls: PeerTLS, endpoint: IStreamClientEndpoint, host: str) -> None:
        self._tls = tls
        self._endpoint = endpoint
        self._host = host

    def connect(self, factory: IProtocolFactory) -> Any:
        """TLS, then the factory's protocol."""
        return wrapClientTLS(self._tls.client_options(self._host), self._endpoint).connect(factory)
