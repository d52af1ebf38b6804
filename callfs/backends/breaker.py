"""
The circuit breaker: a peer that failed repeatedly is spared for a while, then tried with a single call.

=========  ======================  ======================  ==========================  =====================
state      may a call be made?     a call succeeded        a call failed               a call was given up
=========  ======================  ======================  ==========================  =====================
closed     yes                     forget the failures     count it; at the threshold  nothing
                                                           open, for the first delay
open       no; when the delay is   closed                  nothing: it had begun       nothing
           over half-open, and                             before
           this call is the trial
half-open  no; if the trial takes  closed                  open, for twice the delay   open, the next call is
           too long another one                            before, up to the longest   a trial
=========  ======================  ======================  ==========================  =====================

Delays are shortened by chance, by up to a half, so that many nodes don't come back to a peer at the same moment.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class BreakerState(enum.Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class BreakerSettings:
    """
    :param threshold: after so many failures in a row the peer is spared.
    :param first_delay_seconds: for how long at first.
    :param longest_delay_seconds: for how long at most.
    :param trial_seconds: after so long a trial without a result isn't waited for any more.
    """

    threshold: int = 3
    first_delay_seconds: float = 1.0
    longest_delay_seconds: float = 30.0
    trial_seconds: float = 10.0


class Breaker:
    """
    The state of one peer. Time is a parameter, in seconds of a clock that never goes back; so is chance, a number
    from 0 to 1.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._delay_seconds = 0.0
        self._until = 0.0
        self.state = BreakerState.CLOSED

    def refuses(self, now: float) -> bool:
        """Whether a call made now would be refused; asking changes nothing."""
        return self.state is not BreakerState.CLOSED and now < self._until

    def admits(self, now: float) -> bool:
        """Whether a call may be made; if so one of the other three methods is told of its end."""
        if self.refuses(now):
            return False
        if self.state is not BreakerState.CLOSED:
            self.state = BreakerState.HALF_OPEN
            self._until = now + self._settings.trial_seconds
        return True

    def wait_seconds(self, now: float) -> float:
        """How long calls will still be refused; 0 when they aren't."""
        return self._until - now if self.refuses(now) else 0.0

    def succeeded(self) -> None:
        """The peer answered, whatever it said."""
        self._failures = 0
        self._delay_seconds = 0.0
        self.state = BreakerState.CLOSED

    def failed(self, now: float, chance: float) -> None:
        """The peer didn't answer, or not in time."""
        settings = self._settings
        self._failures += 1
        if self.state is BreakerState.OPEN:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._open(now, min(self._delay_seconds * 2, settings.longest_delay_seconds), chance)
        elif self._failures >= settings.threshold:
            self._open(now, settings.first_delay_seconds, chance)

    def given_up(self, now: float) -> None:
        """Whoever made the call lost interest before there was a result."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
            self._until = now

    def _open(self, now: float, delay_seconds: float, chance: float) -> None:
        self.state = BreakerState.OPEN
        self._delay_seconds = delay_seconds
        self._until = now + delay_seconds * (1 - chance / 2)
