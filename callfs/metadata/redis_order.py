"""
Commands of one node in the order they were given, as far as the order matters.

Two commands meet when they name the same thing, or one names a directory above what the other names. Of those the
later waits for the earlier; all others go side by side. So a client that gives commands without waiting gets what
it would have got by waiting, and simultaneous commands of a node don't make each other start over. Between nodes
the commands themselves decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from callfs import paths
from callfs.metadata.commands import Command, ConsumeLink, Move, RegisterInstance


class Turn:
    """A command's place in the order, from :meth:`Order.enter` to :meth:`Order.leave`."""

    def __init__(self, things: Sequence[str]) -> None:
        self.things = things
        self.before = 0
        self.followers: list[Turn] = []
        self.ready: Deferred[None] | None = None


class Order:
    """Who is under way."""

    def __init__(self) -> None:
        self._at: dict[str, set[Turn]] = defaultdict(set)
        self._below: dict[str, set[Turn]] = defaultdict(set)

    def enter(self, command: Command[Any]) -> Turn:
        """Take a place behind all that came before and meet this command."""
        turn = Turn(_things(command))
        earlier: set[Turn] = set()
        for thing in turn.things:
            for above in (*_above(thing), thing):
                earlier |= self._at.get(above, set())
            earlier |= self._below.get(thing, set())
        turn.before = len(earlier)
        for each in earlier:
            each.followers.append(turn)
        for thing in turn.things:
            self._at[thing].add(turn)
            for above in _above(thing):
                self._below[above].add(turn)
        return turn

    async def wait(self, turn: Turn) -> None:
        """Until all that came before is over."""
        if turn.before:
            turn.ready = Deferred()
            await turn.ready

    def leave(self, turn: Turn) -> None:
        """The command is over, or was never begun; those behind it move up."""
        for thing in turn.things:
            _discard(self._at, thing, turn)
            for above in _above(thing):
                _discard(self._below, above, turn)
        for follower in turn.followers:
            follower.before -= 1
            if not follower.before and follower.ready is not None and not follower.ready.called:
                follower.ready.callback(None)


def _discard(index: dict[str, set[Turn]], key: str, turn: Turn) -> None:
    turns = index.get(key)
    if turns is not None:
        turns.discard(turn)
        if not turns:
            del index[key]


def _above(thing: str) -> Sequence[str]:
    return tuple(paths.ancestors(thing)) if thing.startswith(paths.ROOT) else ()


def _things(command: Command[Any]) -> Sequence[str]:
    """What a command names; names of things that have no path don't begin with a slash."""
    match command:
        case Move():
            return tuple({command.source, command.destination})
        case ConsumeLink():
            return ("link " + command.token_hash.hex(),)
        case RegisterInstance():
            return ("instance " + command.instance_id,)
    path: str | None = getattr(command, "path", None)
    return () if path is None else (path,)
