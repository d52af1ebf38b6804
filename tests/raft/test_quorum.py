"""Majorities (thesis 3.4, 3.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.raft.quorum import Outcome, agreed, majority, tally


@given(values=st.lists(st.integers(0, 20), min_size=1, max_size=9))
def test_agreed_is_the_largest_value_of_a_majority(values: list[int]) -> None:
    """A majority has reached it, and no majority has reached more."""
    index = agreed(values)
    assert sum(value >= index for value in values) >= majority(len(values))
    assert sum(value > index for value in values) < majority(len(values))


def test_nobody_agrees_on_nothing() -> None:
    """Without voters nothing is agreed, and no election is won."""
    assert agreed([]) == 0
    assert tally([], {"a": True}) is not Outcome.WON


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ({}, Outcome.PENDING),
        ({"a": True}, Outcome.PENDING),
        ({"a": True, "b": True}, Outcome.WON),
        ({"a": True, "b": False}, Outcome.PENDING),
        ({"a": True, "b": False, "c": False}, Outcome.LOST),
        ({"b": False, "c": False}, Outcome.LOST),
        ({"a": True, "x": True, "y": True}, Outcome.PENDING),
        ({"b": False, "x": False}, Outcome.PENDING),
    ],
)
def test_an_election_of_three(votes: dict[str, bool], outcome: Outcome) -> None:
    """Two of three decide; who isn't a voter doesn't count."""
    assert tally(("a", "b", "c"), votes) is outcome
