"""
Files from the page cache to a TCP connection without a copy.

Twisted has no ``sendfile``. Once the transport's own buffer is empty, a sender works beside the transport on a
duplicate of its socket: the transport may close its descriptor at any time, and the number may then mean another
file, but the duplicate stays what it is until the sender closes it. The slices run in a thread pool, because
reading from a disk blocks; waiting for the client happens in the reactor, with the duplicate as a write descriptor.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, ISSLTransport, ITCPTransport, IWriteDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

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


@implementer(IWriteDescriptor)
class _Writability:
    """Fires once when a descriptor can be written to."""

    def __init__(self, reactor: IReactorFDSet, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self.fired: Deferred[None] = Deferred(lambda _: reactor.removeWriter(self))
        reactor.addWriter(self)

    def fileno(self) -> int:
        """For the reactor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """For the reactor."""
        return "sendfile"

    def doWrite(self) -> None:
        """The descriptor is writable."""
        self._reactor.removeWriter(self)
        self.fired.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave the descriptor up: the next write says why."""
        self._reactor.removeWriter(self)
        if not self.fired.called:
            self.fired.callback(None)


class _Duplicates:
    """Descriptors of our own, closed when they were given up and no job uses them any more."""

    def __init__(self, target: int, source: int) -> None:
        self._lock = threading.Lock()
        self._in_use = False
        self._given_up = False
        self.target = os.dup(target)
        try:
            self._source = os.dup(source)
        except OSError:
            os.close(self.target)
            raise

    def run(self, offset: int, length: int) -> tuple[int, bool]:
        """In a pool thread: see :func:`send_some`."""
        with self._lock:
            if self._given_up:
                return 0, False
            self._in_use = True
        try:
            return send_some(self.target, self._source, offset, length)
        finally:
            self._job_ended()

    def _job_ended(self) -> None:
        with self._lock:
            self._in_use = False
            if self._given_up:
                self._close()

    def give_up(self) -> None:
        """Close them, at once or when the job under way has ended."""
        with self._lock:
            self._given_up = True
            if not self._in_use:
                self._close()

    def _close(self) -> None:
        os.close(self.target)
        os.close(self._source)


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
        duplicates = _Duplicates(target, source)
        total = 0
        try:
            while total < length:
                count, ended = await self._job(duplicates, start + total, length - total)
                total += count
                self._sent(count)
                if ended:
                    break
                if count < _JOB_BYTES and total < length:
                    await self._writable(duplicates.target)
        finally:
            duplicates.give_up()
        return total

    def _job(self, duplicates: _Duplicates, offset: int, length: int) -> Deferred[tuple[int, bool]]:
        return deferToThreadPool(self._reactor, self._pool, duplicates.run, offset, length)

    async def _writable(self, target: int) -> None:
        self._waiting(True)
        try:
            await _Writability(self._reactor, target).fired
        finally:
            self._waiting(False)
