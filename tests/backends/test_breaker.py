"""When a peer that fails is spared, and when it is tried again."""

from __future__ import annotations

from callfs.backends.breaker import Breaker, BreakerSettings, BreakerState

SETTINGS = BreakerSettings(threshold=3, first_delay_seconds=2.0, longest_delay_seconds=10.0, trial_seconds=5.0)


def opened(now: float = 100.0, chance: float = 0.0) -> Breaker:
    """A breaker that has just opened, at ``now``."""
    breaker = Breaker(SETTINGS)
    for _ in range(SETTINGS.threshold):
        assert breaker.admits(now)
        breaker.failed(now, chance)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_single_failures_are_forgiven() -> None:
    """Below the threshold, and whenever a success came between, calls go on."""
    breaker = Breaker(SETTINGS)
    for _ in range(10):
        breaker.failed(0.0, 0.0)
        breaker.failed(0.0, 0.0)
        assert breaker.admits(0.0)
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_failures_in_a_row_open_it() -> None:
    """At the threshold no call is admitted until the delay is over."""
    breaker = opened()
    assert not breaker.admits(100.0)
    assert not breaker.admits(101.9)
    assert breaker.refuses(101.9)
    assert round(breaker.wait_seconds(101.5), 6) == 0.5
    assert breaker.wait_seconds(102.0) == 0.0
    assert breaker.admits(102.0)


def test_one_call_tries_it() -> None:
    """After the delay a single call goes out, and the others wait for what becomes of it."""
    breaker = opened()
    assert breaker.admits(102.0)
    assert breaker.state.value == "half_open"
    assert not breaker.admits(102.0)
    breaker.succeeded()
    assert breaker.state.value == "closed"
    assert breaker.admits(102.0)
    assert breaker.admits(102.0)


def test_a_trial_that_takes_too_long() -> None:
    """A trial without a result doesn't hold the others up for ever."""
    breaker = opened()
    assert breaker.admits(102.0)
    assert not breaker.admits(106.9)
    assert breaker.admits(107.0)


def test_a_trial_that_is_given_up() -> None:
    """When whoever tried loses interest, the next call is the trial."""
    breaker = opened()
    assert breaker.admits(102.0)
    breaker.given_up(103.0)
    assert breaker.admits(103.0)
    assert not breaker.admits(103.0)


def test_delays_grow() -> None:
    """Each failed trial doubles the delay, up to the longest; a success brings it back to the first."""
    breaker = opened()
    now, delays = 102.0, []
    for _ in range(4):
        assert breaker.admits(now)
        breaker.failed(now, 0.0)
        delays.append(breaker.wait_seconds(now))
        now += delays[-1]
    assert delays == [4.0, 8.0, 10.0, 10.0]
    assert breaker.admits(now)
    breaker.succeeded()
    for _ in range(3):
        breaker.failed(now, 0.0)
    assert breaker.wait_seconds(now) == 2.0


def test_delays_differ() -> None:
    """Chance shortens a delay by up to a half."""
    assert opened(chance=1.0).wait_seconds(100.0) == 1.0
    assert opened(chance=0.5).wait_seconds(100.0) == 1.5


def test_late_results() -> None:
    """Calls that began before it opened: a failure changes nothing, a success closes it."""
    breaker = opened()
    breaker.failed(101.0, 0.0)
    breaker.given_up(101.0)
    assert breaker.wait_seconds(101.0) == 1.0
    breaker.succeeded()
    assert breaker.admits(101.0)


def test_asking_changes_nothing() -> None:
    """Whether a call would be refused can be asked without making one."""
    breaker = opened()
    assert not breaker.refuses(102.0)
    assert not breaker.refuses(102.0)
    assert breaker.state is BreakerState.OPEN
