"""A disk: what was written is there after a crash only once it is durable, and it may stall, fill up or fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.simulation.schedule import Schedule


class Disk:
    """
    One writer with group commit: all that waits when it becomes free goes to the disk in one transaction.

    A transaction is there whole or not at all, as with a journal whose torn tail is cut off at the next start. A
    crash loses what waits; the transaction under way may have reached the disk, without anybody having been told.

    :param store: carries one record into the contents.
    :param usable: called with ``False`` when a transaction doesn't fit on the disk, and with ``True`` when there is
        room again and everything that was due has been written.
    :param failed: called when an fsync failed: nobody knows what is on the disk.
    """

    def __init__(
        self,
        schedule: Schedule,
        rng: random.Random,
        store: Callable[[Any], None],
        usable: Callable[[bool], None],
        failed: Callable[[], None],
    ) -> None:
        self.shortest = 100
        self.longest = 1_500
        self.failing = False
        self._schedule = schedule
        self._rng = rng
        self._store = store
        self._usable = usable
        self._failed = failed
        self._full = self._refusing = False
        self._stalled_until = 0
        self._waiting: list[tuple[Any, Callable[[], None]]] = []
        self._under_way: list[tuple[Any, Callable[[], None]]] = []
        self._life = 0

    def write(self, record: Any, durable: Callable[[], None]) -> None:
        """
        Write a record after all earlier ones.

        :param durable: called when it is durable; not after a crash.
        """
        self._waiting.append((record, durable))
        if not self._under_way:
            self._start()

    def stall(self, duration: int) -> None:
        """Let nothing become durable for a while, in microseconds."""
        self._stalled_until = max(self._stalled_until, self._schedule.now + duration)

    def fill(self, full: bool) -> None:
        """Fill the disk, or make room: then what was refused is tried again."""
        if self._full and not full and self._refusing:
            self._plan()
        self._full = full

    def crash(self) -> None:
        """Lose what isn't durable; a coin decides about the transaction under way."""
        self._life += 1
        torn, self._under_way, self._waiting = self._under_way, [], []
        if torn and not self._refusing and self._rng.random() < 0.5:
            for record, _ in torn:
                self._store(record)
        self._refusing = self.failing = False

    def _start(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._plan()

    def _plan(self) -> None:
        stall = max(0, self._stalled_until - self._schedule.now)
        delay = self.shortest + int(self._rng.random() * (self.longest - self.shortest))
        self._schedule.after(stall + delay, self._finish, self._life)

    def _finish(self, life: int) -> None:
        if life != self._life:
            return
        if self._schedule.now < self._stalled_until:
            self._plan()
        elif self.failing:
            self._failed()
        elif self._full:
            if not self._refusing:
                self._refusing = True
                self._usable(False)
        else:
            self._commit(life)

    def _commit(self, life: int) -> None:
        finished, self._under_way = self._under_way, []
        for record, _ in finished:
            self._store(record)
        if self._waiting:
            self._start()
        for _, durable in finished:
            if life == self._life:
                durable()
        if self._refusing and life == self._life and not self._under_way:
            self._refusing = False
            self._usable(True)
