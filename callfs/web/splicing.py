"""
Bytes from one TCP connection to another without a copy (splice(2), Linux).

What a node reads from another one on behalf of a client passes through a pipe in the kernel, by reference; to take
it into Python and give it out again costs several times as much. As with files (:mod:`callfs.web.sendfile`) this
goes on beside the transports, on duplicates of their sockets and in a thread pool. It waits in the reactor.
"""

from __future__ import annotations

import enum
import fcntl
import os
import select
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from callfs.deferreds import with_timeout
from callfs.web.duplicates import Duplicates
from callfs.web.readiness import readable, writable

AVAILABLE = hasattr(os, "splice")

_SLICE_BYTES = 1024 * 1024
_JOB_BYTES = 16 * _SLICE_BYTES
"""A pool thread returns after so much, so that other jobs come to their turn."""

_PATIENCE_MILLISECONDS = {select.POLLIN: 8, select.POLLOUT: 2}
"""
How long a pool thread waits for either end, instead of a round through the reactor: for a client, which may be slow
for long, less than for another node.
"""


class _Stop(enum.Enum):
    """Why a job returned."""

    TURN_OVER = enum.auto()
    NOTHING_CAME = enum.auto()
    NOTHING_TAKEN = enum.auto()
    ENDED = enum.auto()


class _Silent(Exception):
    """Nothing came for too long."""


class _Flow:
    """
    Two sockets and the pipe between them.

    :raises OSError: there are no descriptors left.
    """

    def __init__(self, target: int, source: int) -> None:
        self._duplicates = Duplicates((target, source))
        self.target, self.source = self._duplicates.descriptors
        try:
            self._outlet, self._inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._duplicates.give_up()
            raise
        self._duplicates.add((self._outlet, self._inlet))
        self.give_up = self._duplicates.give_up
        self._held = 0
        _widen(self._inlet)

    def run(self, length: int) -> tuple[int, _Stop]:
        """
        In a pool thread: pass on what comes, for as long as it comes and is taken.

        :return: how many bytes the target took, and why it isn't more.
        :raises OSError: the target is gone.
        """
        return self._duplicates.use(lambda: self._pass_on(min(length, _JOB_BYTES)), (0, _Stop.ENDED))

    def _pass_on(self, length: int) -> tuple[int, _Stop]:
        sent = 0
        while sent < length:
            if not self._held and (stop := self._fill(length - sent)) is not None:
                return sent, stop
            try:
                count = os.splice(self._outlet, self.target, self._held, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                if not _soon(self.target, select.POLLOUT):
                    return sent, _Stop.NOTHING_TAKEN
                continue
            self._held -= count
            sent += count
        return sent, _Stop.TURN_OVER

    def _fill(self, length: int) -> _Stop | None:
        """Bring something into the empty pipe; never more than is wanted: it could not be put back."""
        while True:
            try:
                self._held = os.splice(
                    self.source, self._inlet, min(length, _SLICE_BYTES), flags=os.SPLICE_F_NONBLOCK
                )
            except BlockingIOError:
                if not _soon(self.source, select.POLLIN):
                    return _Stop.NOTHING_CAME
            except OSError:
                return _Stop.ENDED
            else:
                return None if self._held else _Stop.ENDED


def _widen(pipe: int) -> None:
    """A wider pipe needs fewer calls; where the system doesn't grant it, the one there is will do."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _SLICE_BYTES)
    except OSError:
        return


def _soon(descriptor: int, event: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(_PATIENCE_MILLISECONDS[event]))


class SocketSender:
    """
    Sends what comes from a socket.

    :param reactor: waits for the sockets; also where the pool's results go.
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

    async def send(self, target: int, source: int, length: int, timeout_seconds: float) -> int:
        """
        Send the next ``length`` bytes that come from ``source``.

        :param target: a socket, non-blocking, to which nobody else writes meanwhile.
        :param source: a socket, non-blocking, from which nobody else reads. Both are duplicated at once: the caller
            may close them whenever it likes.
        :param timeout_seconds: how long ``source`` may be silent.
        :return: bytes sent; fewer than ``length`` where ``source`` ended, failed or was silent before. Bytes that
            came and weren't sent are lost then.
        :raises OSError: the connection of ``target`` is gone.
        """
        try:
            flow = _Flow(target, source)
        except OSError:
            return 0
        total = 0
        try:
            while total < length:
                count, stop = await self._job(flow, length - total)
                total += count
                self._sent(count)
                if stop is _Stop.ENDED or not await self._ready(flow, stop, timeout_seconds):
                    break
        finally:
            flow.give_up()
        return total

    def _job(self, flow: _Flow, length: int) -> Deferred[tuple[int, _Stop]]:
        return deferToThreadPool(self._reactor, self._pool, flow.run, length)

    async def _ready(self, flow: _Flow, stop: _Stop, timeout_seconds: float) -> bool:
        """Wait for what a job had to stop for; whether it came about."""
        if stop is _Stop.NOTHING_TAKEN:
            self._waiting(True)
            try:
                await writable(self._reactor, flow.target)
            finally:
                self._waiting(False)
        elif stop is _Stop.NOTHING_CAME:
            came = readable(self._reactor, flow.source)
            try:
                await with_timeout(came, timeout_seconds, self._reactor, _Silent)
            except _Silent:
                return False
        return True
