"""A proxy in front of a server that can lose what passes through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol


class Interception:
    """
    Forwards everything until something passes that a test waits for.

    :ivar port: on 127.0.0.1, once :meth:`listen` has fired.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self._marks: list[tuple[bytes, Callable[[_Near, bytes], None]]] = []
        self._listening: Any = None
        self._near: list[_Near] = []
        self._held: list[bytes] = []

    async def listen(self) -> None:
        """Begin."""
        factory = Factory.forProtocol(lambda: _Near(self))
        self._listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.port = self._listening.getHost().port

    async def close(self) -> None:
        """End, connections too."""
        for near in list(self._near):
            near.cut()
        await self._listening.stopListening()

    def lose_request(self, mark: str) -> None:
        """The next request with ``mark`` in it doesn't arrive, and its connection is cut."""
        self._marks.append((mark.encode(), lambda near, data: near.cut()))

    def lose_reply(self, mark: str) -> None:
        """The next request with ``mark`` arrives, but its connection is cut before the reply comes back."""
        self._marks.append((mark.encode(), lambda near, data: near.cut_at_reply(data)))

    def change_request(self, mark: str, change: Callable[[bytes], bytes]) -> None:
        """The next request with ``mark`` arrives as another."""
        self._marks.append((mark.encode(), lambda near, data: near.forward(change(data))))

    def delay_request(self, mark: str, cut: bool = False) -> None:
        """The next request with ``mark`` is kept until :meth:`deliver`, its connection cut or left silent."""

        def hold(near: _Near, data: bytes) -> None:
            self._held.append(data)
            if cut:
                near.cut()
            else:
                near.silent = True

        self._marks.append((mark.encode(), hold))

    async def deliver(self) -> bytes:
        """What was kept arrives after all, on a connection of its own; the reply."""
        late = await connectProtocol(self._target(), _Late())
        late.transport.write(b"".join(self._held))
        return await late.replied

    def _target(self) -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self.target_port)

    def connect(self, near: _Near) -> Deferred[Any]:
        """A connection to the server for one from a client."""
        self._near.append(near)
        return connectProtocol(self._target(), _Far(near))

    def gone(self, near: _Near) -> None:
        """A client has gone."""
        self._near.remove(near)

    def meets(self, near: _Near, data: bytes) -> bool:
        """Whether a test waits for this; then it has its effect."""
        for number, (mark, effect) in enumerate(self._marks):
            if mark in data:
                del self._marks[number]
                effect(near, data)
                return True
        return False


class _Near(Protocol):
    """Towards the client."""

    def __init__(self, proxy: Interception) -> None:
        self._proxy = proxy
        self._far: Any = None
        self._early = b""
        self.silent = False
        self._cut_at_reply = False

    def connectionMade(self) -> None:
        self._proxy.connect(self).addCallbacks(self._connected, lambda _: self.cut())

    def _connected(self, far: Any) -> None:
        self._far = far
        if self._early:
            self.forward(self._early)

    def dataReceived(self, data: bytes) -> None:
        if not self.silent and not self._proxy.meets(self, data):
            self.forward(data)

    def forward(self, data: bytes) -> None:
        """On to the server."""
        if self._far is None:
            self._early += data
        else:
            self._far.transport.write(data)

    def backward(self, data: bytes) -> None:
        """From the server."""
        if self._cut_at_reply:
            self.cut()
        elif not self.silent:
            self.transport.write(data)

    def cut_at_reply(self, data: bytes) -> None:
        """Forward, and cut when the reply comes."""
        self._cut_at_reply = True
        self.forward(data)

    def cut(self) -> None:
        """End it at once."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._proxy.gone(self)
        if self._far is not None:
            self._far.transport.abortConnection()


class _Far(Protocol):
    """Towards the server."""

    def __init__(self, near: _Near) -> None:
        self._near = near

    def dataReceived(self, data: bytes) -> None:
        self._near.backward(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._near.cut()


class _Late(Protocol):
    def __init__(self) -> None:
        self.replied: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self.replied.called:
            self.transport.loseConnection()
            self.replied.callback(data)
