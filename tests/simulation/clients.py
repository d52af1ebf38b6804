"""Clients that work with files through any node, ask again after a lost answer, and write down what they saw."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.history import DONE, Kind, Operation, Request
from tests.simulation.machine import REFUSED, Client, Command
from tests.simulation.schedule import MILLISECONDS, SECONDS, Schedule

KINDS = (Kind.READ,) * 8 + (Kind.WRITE,) * 4 + (Kind.CREATE, Kind.REPLACE) * 2 + (Kind.DELETE, Kind.MOVE)
LONE_PATHS = ("/a", "/b", "/c")
MOVING_PATHS = ("/m", "/n", "/o")

Answered = Callable[[str | None], None]


class Service(Protocol):
    """What clients see of a cluster."""

    def nodes(self) -> Sequence[str]:
        """The nodes that a client may ask now."""

    def propose(self, node: str, command: Command, answered: Answered) -> None:
        """Ask a node to have a command applied; it may be that no answer ever comes."""

    def read(self, node: str, request: Request, answered: Answered) -> None:
        """Ask a node for a linearizable read; it may be that no answer ever comes."""


class Record:
    """The history of all clients, as far as it has come."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._open: dict[int, tuple[Request, int, str]] = {}
        self._closed: list[Operation] = []
        self._number = 0

    def begin(self, request: Request, client: str) -> int:
        """Note that a client asks; returns the number to give to :meth:`end`."""
        self._number += 1
        self._open[self._number] = (request, self._schedule.now, client)
        return self._number

    def end(self, number: int, answer: str | None) -> None:
        """Note the answer."""
        request, invoked, client = self._open.pop(number)
        self._closed.append(Operation(request, invoked, self._schedule.now, answer, client))

    def history(self) -> list[Operation]:
        """Every operation; those without an answer have an unknown outcome."""
        unknown = [Operation(request, at, client=client) for request, at, client in self._open.values()]
        return self._closed + unknown


@dataclass(slots=True)
class _Change:
    """A change under way: over when it has an answer, or was given up."""

    request: Request
    number: int
    client: Client
    sequence: int
    deadline: int
    over: bool = False


class BusyClient:
    """
    A client process with a few requests open at a time.

    :param pace: the mean pause between two requests, in microseconds.
    """

    def __init__(
        self, name: str, schedule: Schedule, rng: random.Random, service: Service, record: Record, pace: int
    ) -> None:
        self.name = name
        self.stopped = False
        self.finished = 0
        self._schedule = schedule
        self._rng = rng
        self._service = service
        self._record = record
        self._pace = pace
        self._patience = 30 * SECONDS if rng.random() < 0.8 else 3 * SECONDS
        self._client = Client(name, schedule.now)
        self._sequence = 0
        self._open: set[int] = set()
        self._values: dict[str, str] = {}
        self._made = 0

    @property
    def busy(self) -> bool:
        """Whether a change of it is still without an outcome."""
        return bool(self._open)

    def start(self, slots: int) -> None:
        """Begin to work, with so many requests open at a time."""
        for _ in range(slots):
            self._schedule.after(self._rng.randrange(self._pace), self._next)

    def restart(self) -> None:
        """Become a new start of the process, which knows nothing of what was asked: that has no answer."""
        self._open.clear()
        self._sequence = 0
        self._client = Client(self.name, self._schedule.now)

    def _later(self) -> None:
        """Go on with another request after a pause, which is now and then a long one."""
        long = self._rng.random() < 0.01
        pause = self._rng.randrange(4 * SECONDS) if long else int(self._rng.expovariate(1 / self._pace))
        self._schedule.after(pause, self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        request = self._choose()
        number = self._record.begin(request, self.name)
        if request.kind is Kind.READ:
            self._read(request, number, [False], 8)
            return
        self._sequence += 1
        self._open.add(self._sequence)
        self._ask(_Change(request, number, self._client, self._sequence, self._schedule.now + self._patience))

    def _choose(self) -> Request:
        kind = self._rng.choice(KINDS)
        if kind is Kind.MOVE:
            path, target = self._rng.sample(MOVING_PATHS, 2)
            return Request(kind, path, target=target)
        path = self._rng.choice(MOVING_PATHS if self._rng.random() < 0.4 else LONE_PATHS)
        if kind in (Kind.READ, Kind.DELETE):
            return Request(kind, path)
        self._made += 1
        expected = self._values.get(path, "nothing") if kind is Kind.REPLACE else ""
        return Request(kind, path, f"{self.name}.{self._made}", expected)

    def _ask(self, change: _Change) -> None:
        """Send the command to some node, and again to another one while there is no answer."""
        if change.over:
            return
        if change.client != self._client or self._schedule.now > change.deadline:
            self._give_up(change)
            return
        command = Command(change.client, change.sequence, min(self._open), self._schedule.now, change.request)
        self._service.propose(
            self._rng.choice(self._service.nodes()), command, lambda answer: self._answered(change, answer)
        )
        self._schedule.after(self._rng.randrange(150, 850) * MILLISECONDS, self._ask, change)

    def _answered(self, change: _Change, answer: str | None) -> None:
        if change.over or change.client != self._client:
            return
        if answer == REFUSED:
            self._give_up(change)
            self.restart()
            return
        change.over = True
        self._open.remove(change.sequence)
        self._record.end(change.number, answer)
        self.finished += 1
        if answer == DONE and change.request.value:
            self._values[change.request.path] = change.request.value
        self._later()

    def _give_up(self, change: _Change) -> None:
        change.over = True
        if change.client == self._client:
            self._open.discard(change.sequence)
        self._later()

    def _read(self, request: Request, number: int, over: list[bool], attempts: int) -> None:
        """Ask some node for the file, and another one while there is no answer; in the end do without."""
        if over[0]:
            return
        if attempts == 0:
            over[0] = True
            self._later()
            return

        def answered(answer: str | None) -> None:
            if over[0]:
                return
            over[0] = True
            self._record.end(number, answer)
            self.finished += 1
            if answer is not None:
                self._values[request.path] = answer
            self._later()

        self._service.read(self._rng.choice(self._service.nodes()), request, answered)
        self._schedule.after(
            self._rng.randrange(150, 850) * MILLISECONDS, self._read, request, number, over, attempts - 1
        )
