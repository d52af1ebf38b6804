"""Work that goes on to its end although whoever asked for it has gone."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.deferreds import shielded
from callfs.errors import CallFSError

_log = Logger()
T = TypeVar("T")


def _unheard(failure: Failure) -> None:
    if not failure.check(CallFSError):
        _log.failure("a change failed after its client had gone", failure, event="unattended_failed")


class UnattendedWork:
    """Shields work from cancellation, knows what is under way, and logs the faults that nobody hears of."""

    def __init__(self) -> None:
        self._under_way = 0
        self._waiting: list[Deferred[None]] = []

    def shield(self, work: Deferred[T]) -> Deferred[T]:
        """
        A Deferred with the same result, whose cancellation doesn't reach ``work``.

        :param work: on its way; it clears up behind itself when it fails.
        """
        self._under_way += 1
        outer = shielded(work, failed_late=_unheard)
        work.addBoth(self._over)
        return outer

    def ended(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        waiting: Deferred[None] = Deferred()
        if self._under_way:
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def _over(self, _result: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.called:
                    each.callback(None)
