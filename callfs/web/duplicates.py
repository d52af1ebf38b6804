"""
Descriptors of our own for threads beside the reactor.

A transport may close its descriptor at any time, and the number may then mean another file; a duplicate stays what
it is until whoever made it closes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Duplicates:
    """
    Descriptors that are closed when they were given up and no job uses them any more.

    :param originals: duplicated at once: their owners may close them whenever they like.
    :raises OSError: there are no descriptors left.
    """

    def __init__(self, originals: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._in_use = False
        self._given_up = False
        self.descriptors: list[int] = []
        try:
            for original in originals:
                self.descriptors.append(os.dup(original))
        except OSError:
            self._close()
            raise

    def add(self, descriptors: Sequence[int]) -> None:
        """Own these, too, as they are; before the first job."""
        self.descriptors += descriptors

    def use(self, job: Callable[[], T], otherwise: T) -> T:
        """In a pool thread, one at a time: do the job; when they were given up, nothing."""
        with self._lock:
            if self._given_up:
                return otherwise
            self._in_use = True
        try:
            return job()
        finally:
            self._job_ended()

    def _job_ended(self) -> None:
        with self._lock:
            self._in_use = False
            if self._given_up:
                self._close()

    def give_up(self) -> None:
        """Close them, at once or when the job under way has ended."""
        with self._lock:
            self._given_up = True
            if not self._in_use:
                self._close()

    def _close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())
