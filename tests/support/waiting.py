"""The only place where tests wait: always for something, always with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.02


def eventually(probe: Callable[[], T], *, within_seconds: float = 10.0, what: str = "the condition") -> T:
    """
    Ask again and again until the answer is true.

    :param probe: the question; its first true answer ends the waiting.
    :param within_seconds: how long at most.
    :param what: how a failure names the thing waited for.
    :return: the true answer.
    :raises AssertionError: it never came.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} didn't come within {within_seconds} s; the last answer was {answer!r}")
        time.sleep(_POLL_SECONDS)


def stays(probe: Callable[[], bool], *, for_seconds: float = 0.5) -> bool:
    """
    See whether something remains true for a while.

    :param probe: the question.
    :param for_seconds: for how long it must hold.
    :return: whether it held the whole time.
    """
    deadline = time.monotonic() + for_seconds
    while time.monotonic() < deadline:
        if not probe():
            return False
        time.sleep(_POLL_SECONDS)
    return True


def pace(seconds: float) -> None:
    """Let time pass where time itself is what is tested: a slow peer between two of its bytes."""
    time.sleep(seconds)
