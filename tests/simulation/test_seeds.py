"""Raft keeps its promises in a few hundred simulations, each decided by its seed; ``make simulate`` runs more."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from tests.simulation.campaign import run_seed
from tests.simulation.scenario import SCENARIOS, scenario_of
from tests.simulation.simulation import Simulation

SEEDS = range(300)


@pytest.mark.parametrize("seed", SEEDS)
def test_seed(seed: int) -> None:
    """Nothing is violated after any step, the cluster converges, and the clients' history is linearizable."""
    outcome = run_seed(seed, None)
    assert not outcome.violation, f"{outcome.replay}\n{outcome.violation}"


def test_every_scenario_has_its_seeds() -> None:
    """The seeds that are run are spread over all scenarios."""
    assert {scenario_of(seed) for seed in SEEDS} == set(SCENARIOS)


@pytest.mark.parametrize("scenario", ["five", "membership"])
def test_a_seed_is_a_run(scenario: str) -> None:
    """The same seed makes the same run, event by event, in another process too, however that hashes."""
    lines: list[str] = []
    Simulation(7, scenario, trace=lines.append).run()
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    program = (
        "import hashlib; from tests.simulation.simulation import Simulation; lines = []; "
        f"Simulation(7, {scenario!r}, trace=lines.append).run(); "
        "print(hashlib.sha256('\\n'.join(lines).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", program]
    other = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "12345"}, capture_output=True, text=True, check=True
    )
    assert len(lines) > 500
    assert other.stdout.strip() == digest


def test_a_failing_seed_says_how_to_replay_it() -> None:
    """An outcome names the command that runs it again."""
    outcome = run_seed(3, "three")
    assert outcome.replay == "python -m tests.simulation --seed 3 --scenario three --trace"
    arguments = [*outcome.replay.split()[1:-1]]
    replayed = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    assert f"{outcome.operations} answered requests" in replayed.stdout
    assert "no violation" in replayed.stdout
