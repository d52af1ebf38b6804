"""A core with one rule broken is noticed, so the simulation would notice such a mistake in the core itself."""

from __future__ import annotations

import time

import pytest

from callfs.raft.core import Core
from tests.simulation.mutants import MUTANTS, first_catch, search
from tests.simulation.simulation import Simulation

MAX_SECONDS = 5.0


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    """A recorded seed catches a mutant within five seconds of processor time, by the rule that it breaks."""
    began = time.process_time()
    assert first_catch(name, MUTANTS[name].seeds), "record the seed that `make simulate-mutants` finds"
    assert time.process_time() - began < MAX_SECONDS


@pytest.mark.parametrize("name", MUTANTS)
def test_the_core_itself_passes(name: str) -> None:
    """Such seeds find nothing in the core as it is: what is caught is the mutation."""
    for seed in MUTANTS[name].seeds[:2]:
        outcome = Simulation(seed, MUTANTS[name].scenario, Core).run()
        assert not outcome.violation, f"{outcome.replay}\n{outcome.violation}"


def test_a_search_names_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """A search prints a seed that catches each mutant, and says whether all were caught."""
    assert search(1, 100)
    printed = capsys.readouterr().out
    assert all(f"{name}: seed " in printed for name in MUTANTS)
    assert f"{len(MUTANTS)} of {len(MUTANTS)} mutants caught" in printed


def test_a_search_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A mutant that no seed catches makes the search fail."""
    assert not search(1, 0)
    assert "not caught" in capsys.readouterr().out
