"""
Files from the page cache to a TCP connection without a copy.

Twisted has no ``sendfile``. Once the transport's own buffer is empty, a sender works beside the transport on a
duplicate of its socket. The slices run in a thread pool, because reading from a disk blocks; waiting for the client
happens in the reactor, with the duplicate as a write descriptor.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from callfs.web.duplicates import Duplicates
from callfs.web.readiness import writable

SLICE_BYTES = 1024 * 1024
_JOB_BYTES = 16 * SLICE_BYTES
"""A pool thread returns after so much, so that other jobs come to their turn."""

_PATIENCE_MILLISECONDS = 2
"""How long a pool thread waits for a client that reads fast, instead of a round through the reactor."""


def plain_tcp_socket(transport: Any) -> socket.socket | None:
    """The socket of a TCP transport without TLS; ``None`` of any other."""
    is_plain_tcp = ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)
    handle = transport.getHandle() if is_plain_tcp else None
    return handle if isinstance(handle, socket.socket) else None


def send_some(target: int, source: int, offset: int, length: int) -> tuple[int, bool]:
    """
    Send until the socket is full and stays so for a moment; blocks on the disk alone.

    :return: bytes sent, and whether the file ended.
    :raises OSError: the connection is gone, or the file can't be read.
    """
    sent = 0
    limit = min(length, _JOB_BYTES)
    poll: select.poll | None = None
    while sent < limit:
        try:
            count = os.sendfile(target, source, offset + sent, min(SLICE_BYTES, limit - sent))
        except BlockingIOError:
            if poll is None:
                poll = select.poll()
                poll.register(target, select.POLLOUT)
            if not poll.poll(_PATIENCE_MILLISECONDS):
                break
            continue
        if count == 0:
            return sent, True
        sent += count
    return sent, False


class FileSender:
    """
    Sends one stretch of a file.

    :param reactor: waits for the socket; also where the pool's results go.
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

    async def send(self, target: int, source: int, start: int, length: int) -> int:
        """
        Send ``length`` bytes from ``start``.

        :param target: a socket, non-blocking, to which nobody else writes meanwhile. It and ``source`` are
            duplicated at once: the caller may close them whenever it likes.
        :return: bytes sent; fewer than ``length`` where the file ends before.
        :raises OSError: the connection is gone, or the file can't be read.
        """
        duplicates = Duplicates((target, source))
        own_target, own_source = duplicates.descriptors
        total = 0
        try:
            while total < length:
                job = partial(send_some, own_target, own_source, start + total, length - total)
                count, ended = await self._done(duplicates, job)
                total += count
                self._sent(count)
                if ended:
                    break
                if count < _JOB_BYTES and total < length:
                    await self._writable(own_target)
        finally:
            duplicates.give_up()
        return total

    def _done(self, duplicates: Duplicates, job: Callable[[], tuple[int, bool]]) -> Deferred[tuple[int, bool]]:
        return deferToThreadPool(self._reactor, self._pool, duplicates.use, job, (0, False))

    async def _writable(self, target: int) -> None:
        self._waiting(True)
        try:
            await writable(self._reactor, target)
        finally:
            self._waiting(False)
