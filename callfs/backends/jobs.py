"""
Blocking work in a thread pool, with cancellation that loses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

_LINGER_SECONDS = 0.2
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

    def __init__(self, reactor: IReactorFromThreads, pool: ThreadPool) -> None:
        self._reactor = reactor
        self._pool = pool
        self._waiting: SimpleQueue[_Job] = SimpleQueue()
        self._under_way = 0
        self._threads = 0
        self._ended: deque[tuple[Deferred[Any], Any]] = deque()
        self._delivery_due = False

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """The function's result. Cancelling the Deferred doesn't stop the thread."""
        result: Deferred[T] = Deferred()
        self._under_way += 1
        self._waiting.put((result, lambda: function(*args, **kwargs)))
        if self._under_way > self._threads and self._threads < self._pool.max:
            self._threads += 1
            self._pool.callInThread(self._work)
        return result

    def _work(self) -> None:
        """In a thread: job after job, until none has come for a while."""
        while True:
            try:
                deferred, function = self._waiting.get(timeout=_LINGER_SECONDS)
            except Empty:
                break
            try:
                outcome: Any = function()
            except BaseException:
                outcome = Failure()
            self._ended.append((deferred, outcome))
            if not self._delivery_due:
                self._delivery_due = True
                self._reactor.callFromThread(self._deliver)
            # Nothing of a job may live on while its thread waits for the next.
            del deferred, function, outcome
        self._reactor.callFromThread(self._thread_left)

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
    outer: Deferred[T] = Deferred()

    def succeeded(result: T) -> None:
        if outer.called:
            undo(result)
        else:
            outer.callback(result)

    def failed(failure: Failure) -> None:
        if not outer.called:
            outer.errback(failure)

    made.addCallbacks(succeeded, failed)
    return outer
