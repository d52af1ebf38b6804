"""Doing the same to many things, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, gatherResults

T = TypeVar("T")

WIDTH = 4
"""How many at a time: background work must leave threads for requests."""


async def succeeded(things: Sequence[T], act: Callable[[T], Deferred[bool]]) -> list[T]:
    """
    Act on each of ``things``, :data:`WIDTH` at a time.

    :param act: never fails; says whether it succeeded.
    :return: those with which it succeeded.
    """
    done: list[T] = []
    for start in range(0, len(things), WIDTH):
        wave = things[start : start + WIDTH]
        outcomes = await gatherResults([act(thing) for thing in wave], consumeErrors=True)
        done += [thing for thing, outcome in zip(wave, outcomes, strict=True) if outcome]
    return done
