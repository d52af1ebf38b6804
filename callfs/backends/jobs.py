"""
Blocking work in a thread pool, with cancellation that loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class Jobs:
    """Runs functions in the pool's threads."""

    def __init__(self, reactor: IReactorFromThreads, pool: ThreadPool) -> None:
        self._reactor = reactor
        self._pool = pool

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """The function's result. Cancelling the Deferred doesn't stop the thread."""
        result: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
        return result


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
