"""
Which commands of one node may be on their way at the same time, where a store has several connections.

Commands about the same thing, or about things of which one lies within the other, go one after the other in the
order of their coming: so they don't wait for each other's row locks on connections that others could use, and don't
have to be decided again because one overtook the other. All others pass by. Other nodes know nothing of this: what
is right is up to the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred

from callfs.metadata.commands import (
    Command,
    ConsumeLink,
    CreateDirectory,
    CreateFile,
    IssueLink,
    Move,
    PutFile,
    RegisterInstance,
    Remove,
)
from callfs.paths import subtree_start

Footprint = tuple[str, ...]
"""Starts of what a command is about; two commands meet when one start begins another."""


def footprint(command: Command[Any]) -> Footprint:
    """What a command is about."""
    places: Callable[[Any], Footprint] = _FOOTPRINTS.get(type(command), _queue_of)
    return places(command)


def _queue_of(command: Command[Any]) -> Footprint:
    return (f"queue:{command.__struct_config__.tag};",)


def _path_of(command: CreateFile | PutFile | CreateDirectory | Remove) -> Footprint:
    return (subtree_start(command.path),)


def _link(token_hash: bytes) -> str:
    return f"link:{token_hash.hex()};"


_FOOTPRINTS: Mapping[type[Command[Any]], Callable[[Any], Footprint]] = MappingProxyType(
    {
        CreateFile: _path_of,
        PutFile: _path_of,
        CreateDirectory: _path_of,
        Remove: _path_of,
        Move: lambda command: (subtree_start(command.source), subtree_start(command.destination)),
        IssueLink: lambda command: (subtree_start(command.path), _link(command.token_hash)),
        ConsumeLink: lambda command: (_link(command.token_hash),),
        RegisterInstance: lambda command: (f"instance:{command.instance_id};",),
    }
)


def meet(one: Footprint, other: Footprint) -> bool:
    """Whether two commands are about the same thing."""
    return any(a.startswith(b) or b.startswith(a) for a in one for b in other)


class Turn:
    """
    A place in the order.

    :ivar come: fires when it is this one's turn. Cancelled before, the place is given up.
    """

    def __init__(self, footprint: Footprint, given_up: Callable[[Turn], None]) -> None:
        self.footprint = footprint
        self.come: Deferred[None] = Deferred(lambda _: given_up(self))


class Lanes:
    """
    The commands that wait and those that are on their way.

    :param width: how many may be on their way at once.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._turns: list[Turn] = []

    def enter(self, footprint: Footprint) -> Turn:
        """Queue up."""
        turn = Turn(footprint, self.leave)
        self._turns.append(turn)
        self._call_next()
        return turn

    def leave(self, turn: Turn) -> None:
        """The command has ended."""
        if turn in self._turns:
            self._turns.remove(turn)
            self._call_next()

    def _call_next(self) -> None:
        under_way = sum(turn.come.called for turn in self._turns)
        for turn in self._next(self._width - under_way):
            if not turn.come.called:
                turn.come.callback(None)

    def _next(self, free: int) -> list[Turn]:
        ready: list[Turn] = []
        for position, turn in enumerate(self._turns):
            if len(ready) >= free:
                break
            if not turn.come.called and not any(
                meet(turn.footprint, earlier.footprint) for earlier in self._turns[:position]
            ):
                ready.append(turn)
        return ready
