"""HTTP to peers: one pool of connections for the whole node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse

from callfs import tracing
from callfs.backends.peerconnections import PeerEndpoints
from callfs.backends.plainagent import PlainAgent
from callfs.config.secret import Secret

KEPT_CONNECTIONS = 16
"""So many idle ones to each peer."""


class PeerClient:
    """
    Makes requests with the internal secret, and says on whose behalf.

    :param secrets: ``auth.internal_proxy_secret``; the first is sent.
    :param policy: how certificates are verified; see :mod:`callfs.backends.peertls`.
    :param connect_seconds: how long a connection may take to come about.
    :param idle_seconds: how long an idle connection is kept: less than peers keep theirs (``server.read_timeout``),
        so that no request is sent into a connection that is just being closed.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        secrets: Sequence[Secret],
        policy: IPolicyForHTTPS,
        connect_seconds: float,
        idle_seconds: int = 15,
    ) -> None:
        self._reactor = reactor
        self._secrets = tuple(secrets)
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = KEPT_CONNECTIONS
        self._pool.cachedConnectionTimeout = idle_seconds
        self._endpoints = PeerEndpoints(reactor, policy, connect_seconds)
        self._agent = PlainAgent(Agent.usingEndpointFactory(reactor, self._endpoints, self._pool))

    def replace_secrets(self, secrets: Sequence[Secret]) -> None:
        """Send another secret from now on."""
        self._secrets = tuple(secrets)

    def replace_policy(self, policy: IPolicyForHTTPS) -> None:
        """Verify certificates in another way from the next connection on."""
        self._endpoints.replace_policy(policy)

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """
        Make a request; redirections are answers as any other, because the secret is for nobody else.

        :param url: absolute.
        :return: fires when the answer's headers are there; cancelling it ends the connection.
        """
        sent = Headers()
        for name, value in {**headers, **tracing.headers()}.items():
            sent.setRawHeaders(name, [value])
        sent.setRawHeaders("Authorization", [f"Bearer {self._secrets[0].reveal()}"])
        # Each has a client of its own, which forgets the cookies that anything on the way may have set.
        answer: Deferred[Any] = HTTPClient(self._agent).request(
            method, url, headers=sent, data=body, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )
        return answer

    def socket_paused_by(self, pause: Callable[[], object]) -> int | None:
        """See :meth:`PeerEndpoints.socket_paused_by`."""
        return self._endpoints.socket_paused_by(pause)

    def close(self) -> Deferred[None]:
        """End all connections; requests under way fail."""
        self._pool.cachedConnectionTimeout = 0
        self._endpoints.close()
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed
