"""What a node does while nobody leads: in the beginning it campaigns at once, in the end it waits for nobody."""

from __future__ import annotations

from collections.abc import Callable

from callfs.raft.boundary import Role
from callfs.raft.core import Core

LOOKS_FOR_VOTES = 5
"""Looks for which a founder waits for votes, at first; twice as long each time."""

ELECTIONS = 2
"""Election timeouts after which a leader would be there if there could be one."""


class Founding:
    """
    Campaigns in a cluster that was just formed, where there is no leader to be waited for.

    It does so again and again until somebody leads, since the others answer only once they have made connections of
    their own, and make them anew when they learn to which cluster they belong.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._is_founder = False
        self._looks = 0
        self._looks_for_votes = LOOKS_FOR_VOTES

    def begin(self) -> None:
        """This node forms a cluster."""
        self._is_founder = True
        self._core.campaign()

    def look(self) -> bool:
        """Whether it campaigned once more."""
        self._is_founder = self._is_founder and self._core.leader is None
        if not self._is_founder:
            return False
        if self._core.role is Role.CANDIDATE:
            # Votes may be lost, or just take their time on slow disks.
            self._looks += 1
            if self._looks < self._looks_for_votes:
                return False
            self._looks, self._looks_for_votes = 0, 2 * self._looks_for_votes
        self._core.campaign()
        return True


class WindingDown:
    """
    Sees to it that a node that is to stop doesn't wait for a leader who can't come.

    :param seconds: a clock that never jumps.
    :param election_seconds: the election timeout.
    :param give_up: refuses what waits, and what comes from now on; may be called again.
    """

    def __init__(
        self, core: Core, seconds: Callable[[], float], election_seconds: float, give_up: Callable[[], None]
    ) -> None:
        self._core = core
        self._seconds = seconds
        self._patience_seconds = ELECTIONS * election_seconds
        self._give_up = give_up
        self._begun = False
        self._led_at = seconds()

    def begin(self) -> None:
        """The node is to stop when all that is under way has ended."""
        self._begun = True

    def look(self) -> None:
        """Give up when there has been no leader for longer than an election takes."""
        if self._core.leader is not None:
            self._led_at = self._seconds()
        elif self._begun and self._seconds() - self._led_at > self._patience_seconds:
            self._give_up()
