"""Majorities."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence


class Outcome(enum.Enum):
    """How an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(count: int) -> int:
    """How many of so many voters are more than half."""
    return count // 2 + 1


def agreed(values: Sequence[int]) -> int:
    """The largest number that a majority has reached, one value for each voter; 0 without voters."""
    if not values:
        return 0
    return sorted(values, reverse=True)[majority(len(values)) - 1]


def tally(voters: Collection[str], votes: Mapping[str, bool]) -> Outcome:
    """
    How an election stands.

    :param votes: what was answered so far; only voters count.
    """
    needed = majority(len(voters))
    granted = sum(votes.get(voter, False) for voter in voters)
    refused = sum(not votes.get(voter, True) for voter in voters)
    if voters and granted >= needed:
        return Outcome.WON
    return Outcome.LOST if len(voters) - refused < needed else Outcome.PENDING
