"""A process that can be stopped, paused and started again: what was planned in one life is not done in the next."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable

from tests.simulation.schedule import Schedule

BACKLOG = 2_000
"""What waits for a paused process at most; the rest is lost."""


class Process(ABC):
    """
    The life of a process, and the turns of its reactor.

    :param tick: between two ticks of its clock, in microseconds.
    """

    def __init__(self, schedule: Schedule, rng: random.Random, tick: int) -> None:
        self._schedule = schedule
        self._rng = rng
        self._tick_length = tick
        self._life = 0
        self._alive = False
        self._began_at = 0
        self._paused_until = 0
        self._backlog: list[tuple[Callable[..., None], tuple[object, ...]]] = []
        self._turn_planned = False

    @abstractmethod
    def tick(self) -> None:
        """One unit of time has passed."""

    @abstractmethod
    def turn(self) -> None:
        """The inputs of a turn are in."""

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._alive

    def begin_life(self) -> None:
        """Run, and hear the clock."""
        self._alive = True
        self._began_at = self._schedule.now
        self._life += 1
        self.turn()
        self.after(self._rng.randrange(self._tick_length), self._tick)

    def end_life(self) -> None:
        """Stop at once."""
        self._alive = False
        self._life += 1
        self._backlog.clear()
        self._paused_until = 0
        self._turn_planned = False

    def pause(self, duration: int) -> None:
        """Do nothing for a while, in microseconds; what comes in meanwhile waits."""
        now = self._schedule.now
        if self._alive and now >= self._paused_until:
            self._paused_until = now + duration
            self.after(duration, self._resume)

    def has_run_since(self, instant: int) -> bool:
        """Whether it has been up, and not paused, all the time."""
        return self._alive and self._began_at <= instant and self._paused_until <= instant

    def input(self, act: Callable[..., None], *arguments: object) -> None:
        """Take something in; most turns see one input, in some there are more."""
        if not self._alive:
            return
        if self._schedule.now < self._paused_until:
            if len(self._backlog) < BACKLOG:
                self._backlog.append((act, arguments))
            return
        act(*arguments)
        if self._turn_planned:
            return
        if self._rng.random() < 0.1:
            self._turn_planned = True
            self.after(self._rng.randrange(1_000), self._late_turn)
        elif self._alive:
            self.turn()

    def after(self, delay: int, act: Callable[..., None], *arguments: object) -> None:
        """Plan something outside of the process, which is not to happen if it stops before."""
        self._schedule.after(delay, self._if_alive, self._life, act, arguments)

    def later(self, delay: int, act: Callable[..., None], *arguments: object) -> None:
        """Plan an input."""
        self._schedule.after(delay, self._if_alive, self._life, self.input, (act, *arguments))

    def _if_alive(self, life: int, act: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if life == self._life:
            act(*arguments)

    def _late_turn(self) -> None:
        self._turn_planned = False
        if self._schedule.now >= self._paused_until:
            self.turn()

    def _resume(self) -> None:
        backlog, self._backlog = self._backlog, []
        for act, arguments in backlog:
            self.input(act, *arguments)

    def _tick(self) -> None:
        if self._schedule.now >= self._paused_until:
            self.input(self.tick)
        self.after(self._tick_length, self._tick)
