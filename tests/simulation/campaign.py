"""Many seeds on all processors."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from tests.simulation.scenario import scenario_of
from tests.simulation.simulation import Outcome, Simulation

CHUNK = 8
PROGRESS_SECONDS = 10.0


@dataclass(slots=True)
class Summary:
    """What many simulations came to."""

    seeds: int = 0
    operations: int = 0
    events: int = 0
    committed: int = 0
    virtual_seconds: float = 0.0
    scenarios: Counter[str] = field(default_factory=Counter)
    violations: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.seeds += 1
        self.operations += outcome.operations
        self.events += outcome.events
        self.committed += outcome.commit
        self.virtual_seconds += outcome.virtual_seconds
        self.scenarios[outcome.scenario] += 1
        if outcome.violation:
            self.violations.append(outcome)

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {len(self.violations)} violations: "
            f"{self.virtual_seconds / 3600:.2f} h simulated, "
            f"{self.events} events, {self.committed} entries, {self.operations} answered requests"
        )


def run_seed(seed: int, scenario: str | None) -> Outcome:
    """Run one seed in the scenario that is asked for, or in its own."""
    return Simulation(seed, scenario or scenario_of(seed)).run()


def run_seeds(seeds: Sequence[int], scenario: str | None) -> list[Outcome]:
    """Run a few seeds, one after the other."""
    return [run_seed(seed, scenario) for seed in seeds]


def campaign(first: int, count: int, scenario: str | None, jobs: int | None) -> Iterator[Outcome]:
    """
    Run many seeds in several processes.

    :param jobs: how many processes; ``None`` for one on each processor.
    :returns: the outcomes as they come.
    """
    chunks = iter(range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK))
    jobs = jobs or os.cpu_count() or 1
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(run_seeds, chunk, scenario) for chunk in islice(chunks, 2 * jobs)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(run_seeds, chunk, scenario) for chunk in islice(chunks, len(finished))}
            yield from _outcomes(finished)


def _outcomes(finished: set[Future[list[Outcome]]]) -> Iterator[Outcome]:
    for future in finished:
        yield from future.result()


def report(outcomes: Iterator[Outcome], count: int) -> Summary:
    """Print each violation with the line that replays it, now and then the progress, at the end the sum."""
    summary, began = Summary(), time.monotonic()
    told = began
    for outcome in outcomes:
        summary.add(outcome)
        if outcome.violation:
            print(f"{outcome.replay}\n    {outcome.violation}", flush=True)
        now = time.monotonic()
        if now - told > PROGRESS_SECONDS:
            told = now
            left = (now - began) / summary.seeds * (count - summary.seeds)
            print(
                f"... {summary.seeds} of {count} seeds, {len(summary.violations)} violations, {left:.0f} s left",
                flush=True,
            )
    print(f"{summary} in {time.monotonic() - began:.0f} s")
    print(", ".join(f"{name} {number}" for name, number in summary.scenarios.most_common()))
    return summary
