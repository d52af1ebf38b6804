"""
Coroutines and Deferreds: await in a straight line, return a Deferred at a boundary, shield a commit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


def returns_deferred(function: Callable[P, Coroutine[Deferred[Any], Any, T]]) -> Callable[P, Deferred[T]]:
    """Decorate a coroutine function so that calling it starts it and returns a Deferred."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return wrapper


def is_settled(deferred: Deferred[Any]) -> bool:
    """
    Whether there is a result already, so that nothing can be cancelled and nothing has to be waited for.

    What is in the page cache or takes microseconds is answered at once; a callback more, or a Deferred around it,
    would cost as much as the answer.
    """
    return deferred.called and not deferred.paused


def _nobody_waits(_outcome: object) -> None:
    """An outcome that came after the cancellation goes to nobody."""


def shielded(
    deferred: Deferred[T],
    late: Callable[[T], object] = _nobody_waits,
    failed_late: Callable[[Failure], object] = _nobody_waits,
) -> Deferred[T]:
    """
    A Deferred with the same result, whose cancellation doesn't reach ``deferred``.

    The work goes on to its end. A failure that comes after the cancellation has nobody to go to, so callers that
    can be cancelled put their clean-up and logging inside the shielded part, or into the last two parameters.

    :param late: takes a result that came after the cancellation; ``deferred`` has what it returns.
    :param failed_late: takes a failure that did.
    """
    outer: Deferred[T] = Deferred()

    def succeeded(result: T) -> object:
        if outer.called:
            return late(result)
        outer.callback(result)
        return None

    def failed(failure: Failure) -> object:
        if outer.called:
            return failed_late(failure)
        outer.errback(failure)
        return None

    deferred.addCallbacks(succeeded, failed)
    return outer


def with_timeout(
    deferred: Deferred[T], seconds: float, clock: IReactorTime, error: Callable[[], Exception]
) -> Deferred[T]:
    """
    Cancel ``deferred`` when it has no result after ``seconds``.

    :param error: makes the exception that the returned Deferred then fails with.
    """

    def translate(result: T | Failure, _seconds: float) -> T | Failure:
        if isinstance(result, Failure) and result.check(CancelledError):
            return Failure(error())
        return result

    return deferred.addTimeout(seconds, clock, onTimeoutCancel=translate)
