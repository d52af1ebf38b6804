"""
What a benchmark comes to: a ratio, its target, and how much the rounds differed.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Scale:
    """
    How much is done.

    :param rounds: how often large transfers that are compared take turns.
    :param load_rounds: the same of loads with many small requests: many and short, so that other work on the
        machine falls on both sides of a round.
    :param load_seconds: of one such load.
    :param warm_files: that are written before writing is measured.
    :param large_bytes: of a large file.
    :param directory_entries: in the large directory.
    """

    rounds: int
    load_rounds: int
    load_seconds: float
    warm_files: int
    large_bytes: int
    directory_entries: int


FULL = Scale(
    rounds=7, load_rounds=21, load_seconds=1.0, warm_files=5_000, large_bytes=GIB, directory_entries=100_000
)
QUICK = Scale(
    rounds=3, load_rounds=5, load_seconds=0.5, warm_files=1_000, large_bytes=128 * MIB, directory_entries=10_000
)


@dataclass(frozen=True)
class Figure:
    """
    A line of the table.

    :param value: a ratio, or what else ``unit`` says.
    :param at_most: whether the target is an upper limit.
    :param detail: where the value comes from.
    """

    name: str
    value: float
    target: float
    detail: str
    at_most: bool = False
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target if self.at_most else self.value >= self.target


def alternating(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """
    Measure two things in turns, so that what else the machine does falls on both.

    What was written before is on the disk when a round begins: nobody pays for the other's write-back.
    """
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for measure, results in zip((ours, theirs), found, strict=True):
            os.sync()
            results.append(measure())
    return found


def compared(
    name: str, target: float, rates: tuple[Sequence[float], Sequence[float]], unit: str, other: str
) -> Figure:
    """The figure of two series of rates: the median of the rounds' ratios, and their range."""
    ours, theirs = rates
    ratios = [one / another for one, another in zip(ours, theirs, strict=True)]
    detail = (
        f"{_shown(statistics.median(ours))} of {other}'s {_shown(statistics.median(theirs))} {unit}; "
        f"rounds from {min(ratios):.2f} to {max(ratios):.2f}"
    )
    return Figure(name, statistics.median(ratios), target, detail)


def _shown(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def table(figures: Sequence[Figure]) -> str:
    """All figures under each other."""
    width = max(len(figure.name) for figure in figures)
    lines = [f"{'':{width}}  {'measured':>10}  {'target':>12}         detail"]
    for figure in figures:
        sign = "at most" if figure.at_most else "at least"
        digits = 2 if not figure.unit else 1 if figure.value < 10 else 0
        value = f"{figure.value:.{digits}f} {figure.unit}".rstrip()
        target = f"{sign} {figure.target:g}"
        verdict = "met" if figure.met else "MISSED"
        lines.append(f"{figure.name:{width}}  {value:>10}  {target:>12}  {verdict:>6}  {figure.detail}")
    return "\n".join(lines)
