"""A connection on which Redis says that a lock has become free, so that nobody has to ask often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from txredisapi import SubscriberProtocol

from callfs.redis_connection import endpoint_for, retry_seconds

_SHORTEST_RETRY_SECONDS = 0.5


class _Subscriber(SubscriberProtocol):
    """Passes each message on."""

    transport: Any

    def __init__(self, received: Callable[[str], None], password: str | None, channel: str) -> None:
        super().__init__(charset=None, convertNumbers=False)  # type: ignore[no-untyped-call]
        self._received = received
        self._password_to_send = password
        self._channel = channel

    def connectionMade(self) -> Any:
        """Subscribe; what was published while there was no connection is found by asking."""
        made = super().connectionMade()
        requests: list[Deferred[Any]] = []
        if self._password_to_send is not None:
            requests.append(self.auth(self._password_to_send))  # type: ignore[no-untyped-call]
        requests.append(self.subscribe([self._channel]))  # type: ignore[no-untyped-call]
        for request in requests:
            request.addErrback(lambda _: self.transport.abortConnection())
        return made

    def messageReceived(self, pattern: Any, channel: Any, message: bytes) -> None:
        """A lock is free."""
        self._received(message.decode())


class _Subscribers(Factory):
    noisy = False

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def buildProtocol(self, _address: Any) -> _Subscriber:
        protocol = _Subscriber(*self._arguments)
        protocol.factory = self
        return protocol


class Wakeups:
    """
    :param channel: where the names are published.
    :param received: called with each name.
    """

    def __init__(
        self,
        address: str,
        *,
        reactor: Any,
        connect_seconds: float,
        password: str | None,
        channel: str,
        received: Callable[[str], None],
    ) -> None:
        self._service = ClientService(
            endpoint_for(address, reactor, connect_seconds),
            _Subscribers(received, password, channel),
            retryPolicy=lambda attempt: max(retry_seconds(attempt), _SHORTEST_RETRY_SECONDS),
            clock=reactor,
        )

    def start(self) -> None:
        """Begin to connect."""
        self._service.startService()

    def stop(self) -> Deferred[None]:
        """Disconnect."""
        return self._service.stopService()
