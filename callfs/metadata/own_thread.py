"""A thread for work that has to go one after the other, as with a connection to a database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple[Callable[[Any], None], Callable[[], Any]]
"""Who gets the result, on the thread, and what makes it."""


class Begun(Generic[T]):
    """
    Work whose result is fetched when it is wanted. That spares the reactor a turn for work that is done by then, or
    that nobody wants in the end.

    :param reactor: carries the result over where somebody waits for it.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._lock = threading.Lock()
        self._done = False
        self._outcome: Any = None
        self._wanted: Deferred[T] | None = None

    def ended(self, outcome: Any) -> None:
        """On the thread: this is the result, or a Failure."""
        with self._lock:
            self._done, self._outcome, wanted = True, outcome, self._wanted
        if wanted is not None:
            self._reactor.callFromThread(_answer, wanted, outcome)

    def result(self) -> Deferred[T]:
        """On the reactor's thread, once: the result."""
        wanted: Deferred[T] = Deferred()
        with self._lock:
            self._wanted = wanted
            done = self._done
        if done:
            wanted.callback(self._outcome)
        return wanted


class OwnThread:
    """
    Runs functions one after the other. All methods are called on the reactor's thread.

    The way through a pool costs about as much as one small change of a database, and nearly twice the way to a
    thread that waits for nothing else.

    :param name: of the thread.
    :param reactor: carries results back.
    """

    def __init__(self, name: str, reactor: IReactorFromThreads) -> None:
        self._name = name
        self._reactor = reactor
        self._queue: SimpleQueue[_Job | None] | None = None

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """The function's result, after everything that was asked for before. The thread begins with the first."""
        result: Deferred[T] = Deferred()
        self._put(lambda outcome: self._reactor.callFromThread(_answer, result, outcome), function, *args, **kwargs)
        return result

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Begun[T]:
        """The same, but the result isn't brought before it is asked for."""
        begun: Begun[T] = Begun(self._reactor)
        self._put(begun.ended, function, *args, **kwargs)
        return begun

    def _put(
        self, ended: Callable[[Any], None], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        if self._queue is None:
            self._queue = SimpleQueue()
            threading.Thread(target=self._work, args=(self._queue,), name=self._name, daemon=True).start()
        self._queue.put((ended, lambda: function(*args, **kwargs)))

    def end(self) -> None:
        """Let the thread go when everything is done; what is asked for later begins another."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.put(None)

    def _work(self, queue: SimpleQueue[_Job | None]) -> None:
        while (job := queue.get()) is not None:
            ended, function = job
            try:
                outcome: Any = function()
            except BaseException:
                outcome = Failure()
            ended(outcome)
            # Nothing of a job may live on while its thread waits for the next.
            del job, ended, function, outcome


def _answer(deferred: Deferred[Any], outcome: Any) -> None:
    if not deferred.called:
        deferred.callback(outcome)
