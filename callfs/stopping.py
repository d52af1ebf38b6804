"""Taking a node down: gracefully as long as that may take, and then all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from callfs.deferreds import shielded, with_timeout
from callfs.engine.presence import Presence
from callfs.node import Node

_log = Logger()

_LAST_SECONDS = 1.0
"""How long what was cut may take to come to its end."""

_AT_LEAST_SECONDS = 0.1
"""What every step has, be it ever so late."""


class _TooLate(Exception):
    """A step has had its time."""


class TakingDown:
    """
    The end of a node.

    Whatever still hangs when the time is over (a transfer, a bucket or a node that has fallen silent) is cut, as a
    crash would: then nothing is half done either.

    :param reactor: for time.
    :param patience_seconds: ``server.shutdown_timeout``, from now.
    """

    def __init__(self, node: Node, reactor: Any, patience_seconds: float) -> None:
        self._node = node
        self._reactor = reactor
        self._patience_seconds = patience_seconds
        self._ends_at: float = reactor.seconds() + patience_seconds
        self._cutting: IDelayedCall = reactor.callLater(patience_seconds, self._cut)

    async def run(self, presence: Presence | None) -> None:
        """
        End everything, in the order in which one part needs another.

        :param presence: the sign of life, once it has begun.
        """
        node = self._node
        await gatherResults([node.site.stop(self._left_seconds()), node.transfers.stop()])
        await node.metrics_site.stop(0)
        # Uploads that were complete when their client went away are still on their way to the store.
        await self._in_time("uploads", lambda: Deferred.fromCoroutine(node.filesystem.settled()))
        if presence is not None:
            await self._in_time("the sign of life", presence.stopService)
        await self._in_time("second copies", node.replicator.stopService)
        await self._in_time("the janitor", node.janitor.stopService)
        for place in (node.disk, node.bucket):
            if place is not None:
                await self._in_time(f"the backend {place.blobs.name}", place.blobs.close)
        await self._in_time("other nodes", node.others.peers.close)
        await self._in_time("locks", node.locks.service.close)
        await node.store.close()
        if node.membership is not None:
            await node.membership.raft.stop()
        if node.disk is not None:
            node.disk.root.unlock()
        node.pools.stop()
        if self._cutting.active():
            self._cutting.cancel()

    def _left_seconds(self, more_seconds: float = 0.0) -> float:
        now_seconds: float = self._reactor.seconds()
        return max(0.0, self._ends_at + more_seconds - now_seconds)

    def _cut(self) -> None:
        self._node.transfers.cut()
        if self._node.bucket is not None:
            self._node.bucket.bucket.cut()

    async def _in_time(self, what: str, step: Callable[[], Deferred[None]]) -> None:
        """Take a step; it goes on by itself when its time is over, as far as it gets."""
        limit_seconds = max(_AT_LEAST_SECONDS, self._left_seconds(_LAST_SECONDS))
        try:
            await with_timeout(shielded(step()), limit_seconds, self._reactor, _TooLate)
        except _TooLate:
            _log.warn(
                "stopping doesn't wait for {what} any longer: server.shutdown_timeout, {seconds} s, is over",
                event="stop_cut",
                what=what,
                seconds=self._patience_seconds,
            )
        except Exception:
            _log.failure("{what} didn't end as it should", event="stop_failed", what=what)
