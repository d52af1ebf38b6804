"""A network that delays, drops, duplicates and reorders messages, and that can be cut, also in one direction."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.simulation.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Weather:
    """
    How the network treats messages.

    :param shortest: the least time under way, in microseconds.
    :param longest: the usual greatest time.
    :param straggling: the share of messages that take up to twenty times as long, and so are overtaken.
    :param dropping: the share that never arrives.
    :param doubling: the share that arrives twice.
    """

    shortest: int = 200
    longest: int = 2_000
    straggling: float = 0.0
    dropping: float = 0.0
    doubling: float = 0.0


CALM = Weather()


class Network:
    """
    The links between nodes.

    :param deliver: called with sender, receiver and message when one arrives.
    """

    def __init__(self, schedule: Schedule, rng: random.Random, deliver: Callable[[str, str, Any], None]) -> None:
        self.weather = CALM
        self.sent = 0
        self.healed = 0
        self._schedule = schedule
        self._random = rng.random
        self._deliver = deliver
        self._cut: set[tuple[str, str]] = set()

    def send(self, sender: str, receiver: str, message: Any) -> None:
        """Send a message, or two, or none, as the weather has it."""
        self.sent += 1
        if (sender, receiver) in self._cut:
            return
        weather, chance = self.weather, self._random()
        if chance < weather.dropping:
            return
        self._carry(sender, receiver, message)
        if chance > 1 - weather.doubling:
            self._carry(sender, receiver, message)

    def cut(self, links: Iterable[tuple[str, str]]) -> None:
        """Cut links, each from a sender to a receiver; what is under way on them is lost too."""
        self._cut.update(links)

    def cut_off(self, side: Iterable[str], others: Iterable[str], both_ways: bool = True) -> None:
        """Cut all links from one side to the other, and back if wanted."""
        ahead = [(one, other) for one in sorted(side) for other in sorted(others)]
        self.cut(ahead)
        if both_ways:
            self.cut((other, one) for one, other in ahead)

    def heal(self) -> None:
        """Mend all links."""
        self.healed += 1
        self._cut.clear()

    def reaches(self, sender: str, receiver: str) -> bool:
        """Whether the link is whole."""
        return (sender, receiver) not in self._cut

    def _carry(self, sender: str, receiver: str, message: Any) -> None:
        weather = self.weather
        delay = weather.shortest + int(self._random() * (weather.longest - weather.shortest))
        if weather.straggling and self._random() < weather.straggling:
            delay += int(self._random() * 20 * weather.longest)
        self._schedule.after(delay, self._arrive, sender, receiver, message)

    def _arrive(self, sender: str, receiver: str, message: Any) -> None:
        if (sender, receiver) not in self._cut:
            self._deliver(sender, receiver, message)
