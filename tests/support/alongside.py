"""What goes on in threads beside a test's own steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

Work = Callable[[threading.Event], object]
"""Called once, with the event that tells it to end."""


class Alongside:
    """
    Work that goes on for the time of a block. A fault of it, or that it doesn't end, fails the test.

    :param works: each has a thread of its own.
    :param end_seconds: how long a work may take to end.
    """

    def __init__(self, works: Iterable[Work], end_seconds: float = 40.0) -> None:
        self._end_seconds = end_seconds
        self._ending = threading.Event()
        self._faults: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]

    def __enter__(self) -> Alongside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(self._end_seconds)
            assert not thread.is_alive(), "a request hangs"
        assert not self._faults, self._faults

    def _run(self, work: Work) -> None:
        try:
            work(self._ending)
        except BaseException as fault:
            self._faults.append(fault)


def again_and_again(step: Callable[[], object]) -> Work:
    """A work that repeats a step."""

    def work(ending: threading.Event) -> None:
        while not ending.is_set():
            step()

    return work
