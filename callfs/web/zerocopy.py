"""
Bytes to a TCP connection beside its transport, without a copy.

Twisted has neither ``sendfile`` nor ``splice``. Once the transport's own buffer is empty, a sender works beside the
transport on a duplicate of its socket. The slices run in a thread pool, because reading from a disk blocks; waiting
for long happens in the reactor, with the duplicates as descriptors. Where the bytes come from, and by which call,
is the business of a :class:`Flow`: :mod:`callfs.web.sendfile`, :mod:`callfs.web.splicing`.
"""

from __future__ import annotations

import enum
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from callfs.deferreds import with_timeout
from callfs.web.descriptors import readable, writable
from callfs.web.duplicates import Duplicates

SLICE_BYTES = 1024 * 1024
"""What one call moves at most."""

_JOB_BYTES = 16 * SLICE_BYTES
"""A pool thread returns after so much, so that other jobs come to their turn."""

_PATIENCE_MILLISECONDS = {select.POLLIN: 8, select.POLLOUT: 2}
"""
How long a pool thread waits for either end, instead of a round through the reactor: for a client, which may be slow
for long, less than for another node.
"""


class Stop(enum.Enum):
    """Why a job returned."""

    TURN_OVER = enum.auto()
    NOTHING_CAME = enum.auto()
    NOTHING_TAKEN = enum.auto()
    ENDED = enum.auto()


class _Silent(Exception):
    """Nothing came for too long."""


class Flow(Protocol):
    """
    Bytes under way from one descriptor to another.

    ``ends`` has both and whatever else is needed in between; ``target`` and ``source`` are of these.
    """

    ends: Duplicates
    target: int
    source: int

    def move(self, length: int) -> tuple[int, Stop]:
        """
        In a pool thread: move the next ``length`` bytes, for as long as they come and are taken.

        :return: how many bytes the target took, and why it isn't more.
        :raises OSError: the target is gone, or the source can't be read.
        """


def soon(descriptor: int, event: int) -> bool:
    """In a pool thread: wait a moment for an end; whether it became ready."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(_PATIENCE_MILLISECONDS[event]))


def plain_tcp_socket(transport: Any) -> socket.socket | None:
    """The socket of a TCP transport without TLS; ``None`` of any other: beside that nothing can be sent."""
    is_plain_tcp = ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)
    handle = transport.getHandle() if is_plain_tcp else None
    return handle if isinstance(handle, socket.socket) else None


class Sender:
    """
    Sends what a flow brings.

    :param reactor: waits for the descriptors; also where the pool's results go.
    :param sent: told of bytes as they go out.
    :param waiting: told when the client is the one waited for, and when no longer.
    """

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        sent: Callable[[int], object],
        waiting: Callable[[bool], object],
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._sent = sent
        self._waiting = waiting

    async def send(self, flow: Flow, length: int, timeout_seconds: float = 0.0) -> int:
        """
        Send the next ``length`` bytes of a flow, which is given up at the end, however that comes.

        :param timeout_seconds: how long the source may be silent; a file never is.
        :return: bytes sent; fewer than ``length`` where the source ended or was silent before.
        :raises OSError: see :meth:`Flow.move`.
        """
        total = 0
        try:
            while total < length:
                count, stop = await self._job(flow, min(length - total, _JOB_BYTES))
                total += count
                self._sent(count)
                if stop is Stop.ENDED or not await self._ready(flow, stop, timeout_seconds):
                    break
        finally:
            flow.ends.give_up()
        return total

    def _job(self, flow: Flow, length: int) -> Deferred[tuple[int, Stop]]:
        job = partial(flow.move, length)
        return deferToThreadPool(self._reactor, self._pool, flow.ends.use, job, (0, Stop.ENDED))

    async def _ready(self, flow: Flow, stop: Stop, timeout_seconds: float) -> bool:
        """Wait for what a job had to stop for; whether it came about."""
        if stop is Stop.NOTHING_TAKEN:
            self._waiting(True)
            try:
                await writable(self._reactor, flow.target)
            finally:
                self._waiting(False)
        elif stop is Stop.NOTHING_CAME:
            came = readable(self._reactor, flow.source)
            try:
                await with_timeout(came, timeout_seconds, self._reactor, _Silent)
            except _Silent:
                return False
        return True
