"""Stands between two nodes: passes everything on, swallows it, or ends connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class _Side(Protocol):
    """One of the two connections of a passage."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.other: _Side | None = None
        self.early: list[bytes] = []

    def connectionMade(self) -> None:
        self.proxy.sides.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.proxy.swallows:
            return
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def join(self, other: _Side) -> None:
        """What came early goes on."""
        self.other = other
        other.transport.write(b"".join(self.early))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.sides.discard(self)
        if self.other is not None:
            self.other.transport.loseConnection()
        self.proxy.ended()


class TcpProxy(Factory):
    """
    :param target: the port on this machine to pass on to.
    :ivar swallows: nothing is passed on, and nobody is told.
    :ivar reads: whether the proxy takes anything at all.
    """

    noisy = False

    def __init__(self, reactor: Any, target: int) -> None:
        self.swallows = False
        self.sides: set[_Side] = set()
        self._reactor = reactor
        self._target = target
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.address = f"127.0.0.1:{self._port.getHost().port}"
        self._closed: Deferred[None] | None = None

    def buildProtocol(self, _address: Any) -> _Side:
        near = _Side(self)
        far = Factory.forProtocol(lambda: _Side(self))
        far.noisy = False

        def reached(side: _Side) -> None:
            side.other = near
            near.join(side)

        def unreached(_failure: Failure) -> None:
            if near.transport is not None:
                near.transport.loseConnection()

        TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._target).connect(far).addCallbacks(reached, unreached)
        return near

    def stop_reading(self) -> None:
        """Take nothing more from anybody: the senders' buffers fill up."""
        for side in self.sides:
            side.transport.pauseProducing()

    def cut(self) -> None:
        """End all connections."""
        for side in list(self.sides):
            side.transport.abortConnection()

    def ended(self) -> None:
        """A connection is gone."""
        if self._closed is not None and not self.sides and not self._closed.called:
            self._closed.callback(None)

    async def close(self) -> None:
        """End everything."""
        await maybeDeferred(self._port.stopListening)
        if self.sides:
            self._closed = Deferred()
            self.cut()
            await self._closed
