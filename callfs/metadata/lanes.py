"""
Which commands of one node may be on their way at the same time, where a store carries out several at once.

Commands about the same thing, or about things of which one lies within the other, go one after the other in the
order of their coming: so a client that gives commands without waiting gets what it would have got by waiting, they
don't wait for each other's row locks on connections that others could use, and don't have to be decided again
because one overtook the other. All others pass by. Other nodes know nothing of this: what is right is up to the
database.

A command is *alone* at each thing that it is about, and *passes* the directories above. Whoever is alone waits for
all that came before, whoever passes only for those that are alone. So entering and leaving cost a step for each
directory above, however many wait.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from heapq import heappop, heappush
from itertools import takewhile
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred

from callfs import paths
from callfs.metadata.commands import (
    Command,
    ConsumeLink,
    CreateDirectory,
    CreateFile,
    ForgetInstance,
    IssueLink,
    Move,
    PostponeReplication,
    PutFile,
    RegisterInstance,
    Relocate,
    Remove,
)

Footprint = tuple[str, ...]
"""What a command is about: paths, and words for what has none, which don't begin with a slash."""


def footprint(command: Command[Any]) -> Footprint:
    """What a command is about."""
    things: Callable[[Any], Footprint] = _FOOTPRINTS.get(type(command), _queue_of)
    return things(command)


def _queue_of(command: Command[Any]) -> Footprint:
    return (f"queue {command.__struct_config__.tag}",)


def _path_of(command: CreateFile | PutFile | CreateDirectory | Remove) -> Footprint:
    return (command.path,)


def _instance_of(command: RegisterInstance | ForgetInstance) -> Footprint:
    return (f"instance {command.instance_id}",)


def _link(token_hash: bytes) -> str:
    return f"link {token_hash.hex()}"


_FOOTPRINTS: Mapping[type[Command[Any]], Callable[[Any], Footprint]] = MappingProxyType(
    {
        CreateFile: _path_of,
        PutFile: _path_of,
        CreateDirectory: _path_of,
        Remove: _path_of,
        Move: lambda command: (command.source, command.destination),
        Relocate: lambda command: (f"inode {command.inode_id}",),
        PostponeReplication: lambda command: (f"replication {command.blob_id}",),
        IssueLink: lambda command: (command.path, _link(command.token_hash)),
        ConsumeLink: lambda command: (_link(command.token_hash),),
        RegisterInstance: _instance_of,
        ForgetInstance: _instance_of,
    }
)


class Turn:
    """
    A place in the order.

    :ivar come: fires when it is this one's turn. Cancelled before, the place is given up.
    """

    __slots__ = ("blocked", "come", "gone", "number", "under_way", "where")

    def __init__(self, number: int, where: Mapping[str, bool], given_up: Callable[[Turn], None]) -> None:
        self.number = number
        self.where = where
        self.blocked = 0
        self.under_way = False
        self.gone = False
        self.come: Deferred[None] = Deferred(lambda _: given_up(self))


class _Line:
    """Who is at one place, or waits to be, in the order of their coming, and whether alone."""

    __slots__ = ("alone", "turns")

    def __init__(self) -> None:
        self.turns: OrderedDict[Turn, bool] = OrderedDict()
        self.alone = 0

    def add(self, turn: Turn, alone: bool) -> bool:
        """Put one at the end; whether it has to wait."""
        waits = bool(self.turns) if alone else self.alone > 0
        self.turns[turn] = alone
        self.alone += alone
        return waits

    def remove(self, turn: Turn) -> list[Turn]:
        """Take one out; those who have no reason any more to wait here."""
        was_first, was_alone = next(iter(self.turns)) is turn, self.turns[turn]
        freed = self._passing_behind(turn) if was_alone and not was_first else []
        del self.turns[turn]
        self.alone -= was_alone
        if not was_first or not self.turns:
            return freed
        first, is_alone = next(iter(self.turns.items()))
        if is_alone:
            return [first]
        return _passing(iter(self.turns.items())) if was_alone else []

    def _passing_behind(self, turn: Turn) -> list[Turn]:
        """Who waits only for this one, which gives its place up."""
        items = iter(self.turns.items())
        for earlier, is_alone in items:
            if earlier is turn:
                return _passing(items)
            if is_alone:
                break
        return []


def _passing(items: Iterator[tuple[Turn, bool]]) -> list[Turn]:
    """Those up to the first who is alone."""
    return [turn for turn, _ in takewhile(lambda item: not item[1], items)]


class Lanes:
    """
    The commands that wait and those that are on their way.

    :param width: how many may be on their way at once; infinity for any number.
    """

    def __init__(self, width: float = math.inf) -> None:
        self._width = width
        self._lines: dict[str, _Line] = {}
        self._number = 0
        self._under_way = 0
        self._ready: list[tuple[int, Turn]] = []
        self._calling = False

    def enter(self, things: Footprint) -> Turn:
        """Queue up."""
        self._number += 1
        turn = Turn(self._number, _places(things), self.leave)
        for place, alone in turn.where.items():
            line = self._lines.get(place)
            if line is None:
                line = self._lines[place] = _Line()
            turn.blocked += line.add(turn, alone)
        if not turn.blocked:
            heappush(self._ready, (turn.number, turn))
            self._call_next()
        return turn

    def leave(self, turn: Turn) -> None:
        """The command has ended, or was given up; nothing when it has left before."""
        if turn.gone:
            return
        turn.gone = True
        self._under_way -= turn.under_way
        for place in turn.where:
            line = self._lines[place]
            for freed in line.remove(turn):
                freed.blocked -= 1
                if not freed.blocked:
                    heappush(self._ready, (freed.number, freed))
            if not line.turns:
                del self._lines[place]
        self._call_next()

    def _call_next(self) -> None:
        """Who is called may leave at once; then the next one is called by this loop, not from within the last."""
        if self._calling:
            return
        self._calling = True
        try:
            while self._ready and self._under_way < self._width:
                _, turn = heappop(self._ready)
                if not turn.gone:
                    turn.under_way = True
                    self._under_way += 1
                    turn.come.callback(None)
        finally:
            self._calling = False


def _places(things: Footprint) -> dict[str, bool]:
    """Where a command is alone, and what it passes."""
    places: dict[str, bool] = {}
    for thing in things:
        places[thing] = True
        if thing.startswith(paths.ROOT):
            for above in paths.ancestors(thing):
                places.setdefault(above, False)
    return places
