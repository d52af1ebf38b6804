"""What Redis couldn't be told to take back."""

from __future__ import annotations

from callfs.locks.redis_lease import Unreleased


def test_it_is_kept_until_it_has_run_out() -> None:
    """However long the server is away, no more is kept than what could still be held there."""
    unreleased = Unreleased()
    for number in range(1000):
        unreleased.forget(float(number))
        unreleased.add("/a", f"token {number}", number + 10.0)
    assert len(unreleased) == 10
    unreleased.forget(2000.0)
    assert not unreleased


def test_it_is_told_the_oldest_first() -> None:
    """In parts, and once."""
    unreleased = Unreleased()
    for number in range(3):
        unreleased.add(f"/{number}", str(number), 10.0)
    assert unreleased.first(2) == {"0": "/0", "1": "/1"}
    unreleased.told(["0", "1", "gone"])
    assert unreleased.first(2) == {"2": "/2"}
