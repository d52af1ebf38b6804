"""
Idle limits: they run only while the client is the one waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_CHECKS_PER_LIMIT = 4


class IdleTimer:
    """
    Calls ``expired`` when it has run for the limit without progress.

    Starting and stopping cost next to nothing, because they happen several times in a request: the delayed call
    underneath stays scheduled and looks, when it fires, at what happened meanwhile.

    :param expired: called once for each start that runs out.
    :param progress: what changes as the client takes data, where that can't be seen otherwise; each change counts
        as a new start. It is looked at four times within the limit.
    """

    def __init__(
        self, clock: IReactorTime, expired: Callable[[], Any], progress: Callable[[], object] | None = None
    ) -> None:
        self._clock = clock
        self._expired = expired
        self._progress = progress
        self._seen: object = None
        self._running = False
        self._since = 0.0
        self._limit = 0.0
        self._call: IDelayedCall | None = None
        self._due = 0.0
        self._closed = False

    def start(self, limit_seconds: float) -> None:
        """Run from now on, for ``limit_seconds`` unless stopped or started anew before; not once it is closed."""
        if self._closed:
            return
        self._running = True
        self._limit = limit_seconds
        self._since = self._clock.seconds()
        self._seen = None
        due = self._since + self._interval()
        if self._call is not None and self._due > due:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._schedule(due)

    def stop(self) -> None:
        """Stand still."""
        self._running = False

    def close(self) -> None:
        """Stand still for good, and leave nothing with the clock."""
        self._running = False
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _interval(self) -> float:
        return self._limit if self._progress is None else self._limit / _CHECKS_PER_LIMIT

    def _schedule(self, due: float) -> None:
        self._due = due
        self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._look)

    def _look(self) -> None:
        self._call = None
        if not self._running:
            return
        now = self._clock.seconds()
        if self._progress is not None:
            seen = self._progress()
            if seen != self._seen:
                self._seen, self._since = seen, now
        end = self._since + self._limit
        if now >= end:
            self._running = False
            self._expired()
        else:
            self._schedule(min(end, now + self._interval()))
