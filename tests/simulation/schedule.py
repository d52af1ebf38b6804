"""Virtual time: what shall happen, in order of its instant, and for one instant in the order it was planned."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MICROSECONDS = 1
MILLISECONDS = 1_000
SECONDS = 1_000_000


class Schedule:
    """
    The events to come.

    Everything that happens in a simulation happens in an event of this schedule, so the same plans lead to the same
    run.
    """

    def __init__(self) -> None:
        self.now = 0
        self.events = 0
        self._planned: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, delay: int, act: Callable[..., None], *arguments: Any) -> None:
        """
        Plan an event.

        :param delay: microseconds from now; never negative.
        :param act: called with ``arguments`` when the time has come.
        """
        self._number += 1
        heappush(self._planned, (self.now + delay, self._number, act, arguments))

    def step(self, until: int) -> bool:
        """
        Let the next event happen.

        :param until: the last instant to go to, in microseconds.
        :returns: whether there was an event by then; if not it is ``until`` now.
        """
        if not self._planned or self._planned[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, act, arguments = heappop(self._planned)
        self.events += 1
        act(*arguments)
        return True
