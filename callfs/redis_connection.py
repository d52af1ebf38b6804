"""One connection to a Redis server: where it leads, what it asks, what its replies are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from txredisapi import RedisError, RedisProtocol, ResponseError

from callfs.redis_errors import Refused, Unanswered
from callfs.sending import send_now

DEFAULT_PORT = 6379

_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 2.0

Argument = bytes | str | int
ConnectionEvent = Callable[["Connection"], None]


def endpoint_for(address: str, reactor: Any, connect_seconds: float) -> IStreamClientEndpoint:
    """
    Where a configured address leads.

    :param address: ``host:port``, ``host``, ``:port``, ``[v6]:port``, or ``unix:/path``.
    :param connect_seconds: how long making a connection may take.
    """
    if address.startswith("unix:"):
        return UNIXClientEndpoint(reactor, address.removeprefix("unix:"), timeout=connect_seconds)
    host, port = split_address(address)
    return HostnameEndpoint(reactor, host, port, timeout=connect_seconds)


def split_address(address: str) -> tuple[str, int]:
    """
    Host and port.

    :raises ValueError: the port is no number.
    """
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, int(rest.removeprefix(":") or DEFAULT_PORT)
    host, _, port = address.partition(":")
    return host or "localhost", int(port or DEFAULT_PORT)


class Connection(RedisProtocol):
    """One connection; replies are bytes, never numbers made of text."""

    transport: Any

    def __init__(self, clock: IReactorTime, made: ConnectionEvent, lost: ConnectionEvent) -> None:
        super().__init__(charset=None, convertNumbers=False)  # type: ignore[no-untyped-call]
        self._clock = clock
        self._made = made
        self._lost = lost
        self.waiting = 0
        self.heard_at = 0.0

    def connectionMade(self) -> Any:
        """It can be asked."""
        made = super().connectionMade()
        self._made(self)
        return made

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits for a reply is told; nothing more comes."""
        self._lost(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def ask(self, request: tuple[Argument, ...], seconds: float) -> Deferred[Any]:
        """
        Send a request.

        :param seconds: how long to wait for its reply.
        :return: the reply. Cancelled, the reply is thrown away when it comes.
        :raises callfs.redis_errors.Refused: the server's error.
        :raises callfs.redis_errors.Unanswered: the connection broke, or no reply came in time.
        """
        answer: Deferred[Any] = Deferred()
        if not self.waiting:
            self.heard_at = self._clock.seconds()
        self.waiting += 1
        timer = self._clock.callLater(max(seconds, 0.0), self._too_late, answer)

        def ended(reply: Any) -> None:
            self.waiting -= 1
            self.heard_at = self._clock.seconds()
            if timer.active():
                timer.cancel()
            if not answer.called:
                answer.callback(reply if not isinstance(reply, Failure) else _meaning(reply))

        maybeDeferred(self.execute_command, *request).addBoth(ended)
        if self.waiting == 1:
            # Several at once share a packet. One alone doesn't wait: a lock is on its way back before the client
            # has an answer, so that a node that dies right after it leaves nothing locked.
            send_now(self.transport)
        return answer

    def _build_command(self, *words: Argument, **_options: Any) -> bytes:
        """As txredisapi's own, which takes a third of the time of a short script's call."""
        parts = [word if type(word) is bytes else str(word).encode() for word in words]
        return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]))

    def silent_seconds(self) -> float:
        """How long replies have been waited for in vain."""
        return self._clock.seconds() - self.heard_at if self.waiting else 0.0

    def _too_late(self, answer: Deferred[Any]) -> None:
        if not answer.called:
            answer.errback(Unanswered("no reply came in time"))


def _meaning(failure: Failure) -> Failure:
    if failure.check(ResponseError):
        return Failure(Refused(str(failure.value)))
    if failure.check(RedisError):
        return Failure(Unanswered("the connection broke"))
    return failure


class Connections(Factory):
    """Makes connections for ``ClientService``."""

    noisy = False

    def __init__(self, clock: IReactorTime, made: ConnectionEvent, lost: ConnectionEvent) -> None:
        self._clock = clock
        self._made = made
        self._lost = lost

    def buildProtocol(self, _address: Any) -> Connection:
        connection = Connection(self._clock, self._made, self._lost)
        connection.factory = self
        return connection


def retry_seconds(attempt: int) -> float:
    """How long to wait before the next attempt to connect: soon at first, so that a restarted server is found."""
    return min(_RETRY_SECONDS * 1.5 ** min(attempt, 20), _LONGEST_RETRY_SECONDS)
