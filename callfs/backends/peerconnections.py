"""Connections to peers: how they are made, and that they end at once when they end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

T = TypeVar("T")

_READ_BYTES = 256 * 1024
_NEXT_ADDRESS_SECONDS = 0.1


class _Connection(ProtocolWrapper):
    """
    Ends abruptly. A client ends a connection when it has all it wants, or wants no more: to wait for a peer to take
    what is left, or for its farewell in TLS, would keep the connection for as long as the peer is silent.
    """

    def makeConnection(self, transport: Any) -> None:
        """For Twisted."""
        if ITCPTransport.providedBy(transport):
            transport.setTcpKeepAlive(True)
        # Fewer, larger pieces: half the time of a large download goes by the piece.
        getattr(transport, "transport", transport).bufferSize = _READ_BYTES
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        """For Twisted."""
        self.factory.known.open.add(self)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        """For Twisted."""
        self.disconnecting = 1
        self.factory.known.open.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:
        """For Twisted."""
        self.factory.known.paused = self
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def duplicate(self) -> int | None:
        """The socket once more; ``None`` where what comes from it isn't what the peer meant, but TLS."""
        transport: Any = self.transport
        is_plain_tcp = ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)
        if not is_plain_tcp:
            return None
        try:
            return os.dup(transport.getHandle().fileno())
        except OSError:
            return None

    def loseConnection(self) -> None:
        """For Twisted."""
        if not self.disconnecting:
            self.disconnecting = 1
            self.transport.abortConnection()  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        """For Twisted."""
        self.loseConnection()


class _Connections(WrappingFactory):
    protocol = _Connection
    noisy = False

    def __init__(self, factory: IProtocolFactory, known: _Known) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.known = known


class _Known:
    """
    The connections there are.

    :ivar attempts: those that aren't connections yet.
    :ivar paused: the one that was paused last.
    """

    def __init__(self) -> None:
        self.attempts: set[Deferred[Any]] = set()
        self.open: set[_Connection] = set()
        self.paused: _Connection | None = None


@implementer(IStreamClientEndpoint)
class _PeerEndpoint:
    def __init__(self, endpoint: IStreamClientEndpoint, known: _Known) -> None:
        self._endpoint = endpoint
        self._known = known

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """For Twisted."""
        connected: Deferred[Any] = self._endpoint.connect(_Connections(protocolFactory, self._known))
        self._known.attempts.add(connected)
        connected.addBoth(self._ended, connected)
        return connected.addCallback(lambda connection: connection.wrappedProtocol)

    def _ended(self, result: T, connected: Deferred[Any]) -> T:
        self._known.attempts.discard(connected)
        return result


@implementer(IAgentEndpointFactory)
class PeerEndpoints:
    """
    Makes the endpoints of URLs, each once.

    :param policy: how certificates are verified.
    :param connect_seconds: how long a connection may take to come about.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS, connect_seconds: float) -> None:
        self._policy = policy
        self._reactor = reactor
        self._connect_seconds = connect_seconds
        self._made: dict[tuple[bytes, bytes, int], IStreamClientEndpoint] = {}
        self._known = _Known()

    def replace_policy(self, policy: IPolicyForHTTPS) -> None:
        """Verify certificates in another way from the next connection on."""
        self._policy = policy
        self._made.clear()

    def socket_paused_by(self, pause: Callable[[], object]) -> int | None:
        """
        The socket of a connection whose body is being read.

        A response doesn't tell on which connection it comes, but pauses and resumes that one.

        :param pause: pauses it, at once.
        :return: a duplicate, which is the caller's; ``None`` where it is no plain TCP, or there are no descriptors
            left.
        """
        known = self._known
        known.paused = None
        pause()
        connection, known.paused = known.paused, None
        return None if connection is None else connection.duplicate()

    def close(self) -> None:
        """End all connections, and all attempts to make one."""
        for attempt in list(self._known.attempts):
            attempt.cancel()
        for connection in list(self._known.open):
            connection.loseConnection()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """For Twisted."""
        key = (uri.scheme, uri.host, uri.port)
        if key not in self._made:
            self._made[key] = _PeerEndpoint(self._endpoint(uri), self._known)
        return self._made[key]

    def _endpoint(self, uri: URI) -> IStreamClientEndpoint:
        plain = self._plain(uri.host.strip(b"[]").decode("ascii"), uri.port)
        if uri.scheme != b"https":
            return plain
        creator = self._policy.creatorForNetloc(uri.host.strip(b"[]"), uri.port)
        secured: IStreamClientEndpoint = wrapClientTLS(creator, plain)
        return secured

    def _plain(self, host: str, port: int) -> IStreamClientEndpoint:
        """An address is spared the search for the fastest of several, which takes its time to say that none is."""
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, timeout=self._connect_seconds)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, timeout=self._connect_seconds)
        return HostnameEndpoint(
            self._reactor, host, port, self._connect_seconds, attemptDelay=_NEXT_ADDRESS_SECONDS
        )
