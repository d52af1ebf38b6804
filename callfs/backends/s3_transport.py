"""
One attempt of a request, over treq with one pool of persistent connections.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgentEndpointFactory
from zope.interface import implementer

from callfs.backends.peerfaults import explain, was_cancelled
from callfs.backends.plainagent import PlainAgent
from callfs.backends.s3_bodies import ContentProducer, ReplyBody, Watch
from callfs.backends.s3_errors import S3Closed, S3Fault, S3Unreachable, S3Untrusted
from callfs.backends.s3_request import Content

_KEPT_CONNECTIONS = 32
# Servers close idle connections earlier or later; using one at that moment costs an attempt.
_KEPT_SECONDS = 15


@dataclass(frozen=True)
class Answer:
    """
    A reply whose headers are there.

    :param headers: by lower-case name.
    """

    status: int
    headers: Mapping[str, str]
    body: ReplyBody


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """How to connect; TLS is verified against the system's trusted roots."""

    def __init__(self, reactor: Any, timeout_seconds: float) -> None:
        self._reactor = reactor
        self._timeout_seconds = timeout_seconds
        self._policy = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`IAgentEndpointFactory.endpointForURI`."""
        endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port, self._timeout_seconds)
        if uri.scheme == b"http":
            return endpoint
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)


class _Lease:
    """
    The pool as one request sees it. It remembers the connection, which can then be cut: what Twisted gives a
    reply's reader can only be closed in good order, and with TLS that waits for all that the server still sends.

    :ivar given_up: the request was, because all connections were cut.
    """

    def __init__(self, pool: HTTPConnectionPool) -> None:
        self.persistent = pool.persistent
        self.given_up = False
        self._pool = pool
        self._connection: Any = None

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """See :meth:`HTTPConnectionPool.getConnection`."""
        return self._pool.getConnection(key, endpoint).addCallback(self._remember)

    def abort(self) -> None:
        """Cut the connection."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abortConnection()

    def _remember(self, connection: Any) -> Any:
        self._connection = connection
        return connection


class S3Transport:
    """
    Sends requests as they are.

    :param clock: measures silence.
    :param timeout_seconds: for making a connection.
    """

    def __init__(self, reactor: Any, clock: IReactorTime, timeout_seconds: float) -> None:
        self._reactor = reactor
        self._clock = clock
        self._endpoints = _Endpoints(reactor, timeout_seconds)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = _KEPT_CONNECTIONS
        self._pool.cachedConnectionTimeout = _KEPT_SECONDS
        self._pool.retryAutomatically = False
        self._bodies: set[ReplyBody] = set()
        self._sending: dict[Deferred[Any], _Lease] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Content, silence_seconds: float
    ) -> Answer:
        """
        One attempt, until the headers of the reply are there; its body then has to be read or aborted.

        :param silence_seconds: when nothing moves for so long, it has failed; of the body, too.
        :raises S3Unreachable: it has failed.
        :raises S3Closed: the connections were cut meanwhile.
        :raises S3Untrusted: the server's certificate isn't good.
        """
        lease = _Lease(self._pool)
        body = ReplyBody(lease)
        watch = Watch(self._clock, silence_seconds, lambda: sending.cancel())
        agent = PlainAgent(Agent.usingEndpointFactory(self._reactor, self._endpoints, lease))
        sending: Deferred[Any] = HTTPClient(agent).request(
            method,
            url,
            headers=Headers({name: [value] for name, value in headers.items()}),
            data=ContentProducer(content, watch) if content.size or method in ("PUT", "POST") else None,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        watch.moved()
        self._sending[sending] = lease
        try:
            response = await sending
        except Exception as error:
            if lease.given_up:
                raise S3Closed from error
            if watch.was_silent:
                raise S3Unreachable("no reply came in time") from error
            if was_cancelled(error):
                raise CancelledError from error
            raise _fault(error) from error
        finally:
            del self._sending[sending]
            watch.rest()
        return self._answer(response, body, silence_seconds)

    async def close(self) -> None:
        """Cut every connection; what is under way fails, and isn't tried again."""
        self.cut()
        # A connection whose reply has just ended comes back to the pool in this turn of the reactor.
        await deferLater(self._reactor, 0)
        await self._pool.closeCachedConnections()

    def cut(self) -> None:
        """What is under way fails, and isn't tried again."""
        for sending, lease in list(self._sending.items()):
            lease.given_up = True
            sending.cancel()
        for body in list(self._bodies):
            body.abort()

    def _answer(self, response: Any, body: ReplyBody, silence_seconds: float) -> Answer:
        body.watch = Watch(self._clock, silence_seconds, body.cut)
        body.watch.moved()
        self._bodies.add(body)
        body.over.addCallback(lambda _: self._bodies.discard(body))
        response.deliverBody(body)
        headers = {
            name.decode("latin-1").lower(): ",".join(value.decode("latin-1") for value in values)
            for name, values in response.headers.getAllRawHeaders()
        }
        if response.length is not UNKNOWN_LENGTH:
            # Twisted keeps this header to itself.
            headers.setdefault("content-length", str(response.length))
        return Answer(response.code, headers, body)


def _fault(error: Exception) -> S3Fault:
    fault = explain(error)
    return S3Untrusted(fault.text) if fault.reason == "tls" else S3Unreachable(fault.text)
