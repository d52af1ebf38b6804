"""Work that is begun on behalf of somebody and has to end when the node does."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class UnderWay:
    """Coroutines that run; all must bear being cancelled wherever they wait."""

    def __init__(self) -> None:
        self._all: set[Deferred[Any]] = set()
        self._stopped = False

    def run(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Begin; after :meth:`stop` it is cancelled as soon as it waits."""
        running = Deferred.fromCoroutine(work)
        if running.called:
            return running
        self._all.add(running)

        def ended(result: Any) -> Any:
            self._all.discard(running)
            return result

        running.addBoth(ended)
        if self._stopped:
            running.cancel()
        return running

    def stop(self) -> None:
        """Cancel everything."""
        self._stopped = True
        for running in list(self._all):
            running.cancel()
