"""What a node counts of its calls to other nodes."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from callfs.backends.breaker import BreakerState

_LEVELS = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class PeerObserver(Protocol):
    """Who is told of the calls to other nodes."""

    def peer_request(self, peer: str, operation: str) -> None:
        """A call was made."""

    def peer_failure(self, peer: str, reason: str) -> None:
        """A call failed."""

    def peer_breaker(self, peer: str, state: BreakerState) -> None:
        """Whether the peer is spared."""


class PeerMetrics:
    """
    Series by peer: as many as there are nodes.

    :param registry: of the node's other metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "callfs_peer_requests_total", "Calls to other nodes.", ["peer", "operation"], registry=registry
        )
        self._failures = Counter(
            "callfs_peer_failures_total", "Calls to other nodes that failed.", ["peer", "reason"], registry=registry
        )
        self._breakers = Gauge(
            "callfs_peer_breaker_state",
            "0 while a node is called, 1 while one call tries it, 2 while it is spared.",
            ["peer"],
            registry=registry,
        )

    def peer_request(self, peer: str, operation: str) -> None:
        """
        A call was made.

        :param operation: ``stage``, ``open``, ``read``, ``stat``, ``delete``.
        """
        self._requests.labels(peer, operation).inc()

    def peer_failure(self, peer: str, reason: str) -> None:
        """
        A call failed.

        :param reason: ``connection``, ``timeout``, ``tls``, ``cut``, ``credentials``, ``identity``, ``spared``,
            ``storage`` or ``answer``.
        """
        self._failures.labels(peer, reason).inc()

    def peer_breaker(self, peer: str, state: BreakerState) -> None:
        """Whether the peer is spared."""
        self._breakers.labels(peer).set(_LEVELS[state])
