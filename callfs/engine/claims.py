"""Things that somebody has to give back, although nobody waits for them any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.deferreds import is_settled, shielded

_log = Logger()
T = TypeVar("T")


def claimed(deferred: Deferred[T], give_back: Callable[[T], Deferred[None] | None]) -> Deferred[T]:
    """
    A Deferred with the same result, whose cancellation neither interrupts the work nor loses what it brings.

    A thread that opens a file can't be called back; when the caller is gone by the time it is done, what it
    brings is given back instead: a reader closed, a staged blob aborted, a lease released.

    :param deferred: the work, on its way.
    :param give_back: takes a result that came too late.
    """
    if is_settled(deferred):
        return deferred

    def not_given_back(failure: Failure) -> None:
        _log.failure("what nobody waited for could not be given back", failure, event="late_result")

    claim = shielded(deferred, late=give_back)
    deferred.addErrback(not_given_back)
    return claim
