"""Idle limits."""

from __future__ import annotations

from twisted.internet.task import Clock

from callfs.web.timers import IdleTimer


class Timing:
    """A timer of 10 s on a clock of its own, and when it expired."""

    def __init__(self, progress: bool = False) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.moved = 0
        self.timer = IdleTimer(
            self.clock,
            lambda: self.expired.append(self.clock.seconds()),
            (lambda: self.moved) if progress else None,
        )

    def pass_by(self, seconds: float) -> None:
        """Let time pass, in steps."""
        self.clock.pump([0.25] * int(seconds * 4))


def test_expires_once() -> None:
    """A timer that nobody stops expires after its limit, once."""
    timing = Timing()
    timing.timer.start(10)
    timing.pass_by(100)
    assert timing.expired == [10.0]
    assert not timing.clock.getDelayedCalls()


def test_stopped() -> None:
    """A stopped timer doesn't expire, and leaves nothing behind in the end."""
    timing = Timing()
    timing.timer.start(10)
    timing.pass_by(5)
    timing.timer.stop()
    timing.pass_by(100)
    assert timing.expired == []
    assert not timing.clock.getDelayedCalls()


def test_started_anew() -> None:
    """Each start begins the limit from the beginning, also one that is shorter."""
    timing = Timing()
    for _ in range(5):
        timing.timer.start(10)
        timing.pass_by(9)
    assert timing.expired == []
    timing.timer.start(2)
    timing.pass_by(100)
    assert timing.expired == [47.0]


def test_restarts_are_cheap() -> None:
    """Starting and stopping again and again keeps one delayed call."""
    timing = Timing()
    for _ in range(100):
        timing.timer.start(10)
        timing.timer.stop()
    assert len(timing.clock.getDelayedCalls()) == 1
    timing.timer.close()
    assert not timing.clock.getDelayedCalls()
    timing.timer.start(10)
    assert not timing.clock.getDelayedCalls()


def test_progress() -> None:
    """As long as there is progress within the limit it doesn't expire, and then within a quarter of the limit."""
    timing = Timing(progress=True)
    timing.timer.start(10)
    for _ in range(10):
        timing.pass_by(8)
        timing.moved += 1
    assert timing.expired == []
    moved_at = timing.clock.seconds()
    timing.pass_by(100)
    (expired,) = timing.expired
    assert moved_at + 10 <= expired <= moved_at + 12.5
