"""
Blocking work in a thread pool, with cancellation that loses nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from callfs.deferreds import shielded

P = ParamSpec("P")
T = TypeVar("T")

LINGER_SECONDS = 0.2
"""How long a thread waits for the next job before it goes back to the pool; a pool's end waits for that."""

_Job = tuple[Deferred[Any], Callable[[], Any]]


class Jobs:
    """
    Runs functions in the pool's threads.

    Handing a job through the pool and its result back costs more than a short job itself, and most of that is
    waiting for the interpreter's lock. So a thread stays for the next job as long as they come quickly, and results
    that are ready together reach the reactor together.

    :param pool: all of its threads may be kept busy: whoever shares it waits behind these jobs.
    """

    def __init__(
        self, reactor: IReactorFromThreads, pool: ThreadPool, linger_seconds: float = LINGER_SECONDS
    ) -> None:
        self._reactor = reactor
        self._linger_seconds = linger_seconds
        self._pool = pool
        self._waiting: deque[_Job] = deque()
        self._idle: deque[threading.Lock] = deque()
        self._under_way = 0
        self._threads = 0
        self._ended: deque[tuple[Deferred[Any], Any]] = deque()
        self._delivery_due = False

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """The function's result. Cancelling the Deferred doesn't stop the thread."""
        result: Deferred[T] = Deferred()
        self._under_way += 1
        self._waiting.append((result, lambda: function(*args, **kwargs)))
        with suppress(IndexError):
            # The one that waits for the shortest time is the quickest, and the others get to leave.
            self._idle.pop().release()
        if self._under_way > self._threads and self._threads < self._pool.max:
            self._threads += 1
            self._pool.callInThread(self._work)
        return result

    def _work(self) -> None:
        """In a thread: job after job, until none has come for a while."""
        wake = threading.Lock()
        wake.acquire()
        while (job := self._next(wake)) is not None:
            deferred, function = job
            try:
                outcome: Any = function()
            except BaseException:
                outcome = Failure()
            self._ended.append((deferred, outcome))
            if not self._delivery_due:
                self._delivery_due = True
                self._reactor.callFromThread(self._deliver)
            # Nothing of a job may live on while its thread waits for the next.
            del job, deferred, function, outcome
        self._reactor.callFromThread(self._thread_left)

    def _next(self, wake: threading.Lock) -> _Job | None:
        """
        In a thread: the next job; ``None`` when none has come for a while.

        Not a ``SimpleQueue``: when another thread takes what one was woken for just as the time is over, its
        ``get(timeout=...)`` waits for ever (CPython 3.11), and so does whoever stops the pool.

        :param wake: held; released, once, by whoever takes it off the idle ones.
        """
        while True:
            try:
                return self._waiting.popleft()
            except IndexError:
                self._idle.append(wake)
            if self._waiting:
                # It came between the look and the line above, and woke nobody.
                self._rise(wake)
            elif not wake.acquire(timeout=self._linger_seconds) and self._rise(wake):
                return None

    def _rise(self, wake: threading.Lock) -> bool:
        """In a thread: be idle no longer; whether nobody has ended that already."""
        try:
            self._idle.remove(wake)
        except ValueError:
            wake.acquire()
            return False
        return True

    def _thread_left(self) -> None:
        """A job that came while the thread was leaving wants another one."""
        self._threads -= 1
        if self._threads < min(self._under_way, self._pool.max):
            self._threads += 1
            self._pool.callInThread(self._work)

    def _deliver(self) -> None:
        """On the reactor's thread. What ends after the first line is taken here, or asks for another delivery."""
        self._delivery_due = False
        while self._ended:
            deferred, outcome = self._ended.popleft()
            self._under_way -= 1
            if not deferred.called:
                deferred.callback(outcome)


def handed_over(made: Deferred[T], undo: Callable[[T], object]) -> Deferred[T]:
    """
    A Deferred with the same result; when it is cancelled before, the late result is given to ``undo``.

    So a descriptor that a thread opens for somebody who has gone is closed all the same.
    """
    return shielded(made, late=undo)
