"""Many seeds at once: counted, reported, and a failure is a failure of the command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from callfs.raft.core import Core
from tests.simulation.campaign import campaign, report
from tests.simulation.simulation import Outcome, Simulation

BAD = Outcome(5, "three", "election safety: n1 and n2 both lead term 2", 7, 100, 3, 1.5)
GOOD = Outcome(6, "five", "", 20, 200, 9, 1.5)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command."""
    return subprocess.run([sys.executable, "-m", "tests.simulation", *arguments], capture_output=True, text=True)


def test_every_seed_is_run_once() -> None:
    """Seeds are spread over processes, each is run once, in the scenario that is asked for."""
    outcomes = list(campaign(100, 11, "single", 2))
    assert sorted(outcome.seed for outcome in outcomes) == list(range(100, 111))
    assert {outcome.scenario for outcome in outcomes} == {"single"}


def test_a_violation_is_reported_with_its_replay(capsys: pytest.CaptureFixture[str]) -> None:
    """A violation is printed with the line that replays it, and counted."""
    summary = report(iter([GOOD, BAD]), 2)
    printed = capsys.readouterr().out
    assert "python -m tests.simulation --seed 5 --scenario three --trace\n    election safety: n1 and n2" in printed
    assert "2 seeds, 1 violations" in printed
    assert summary.violations == [BAD]


def test_the_command_runs_seeds() -> None:
    """``--seeds`` runs so many, prints the sum, and succeeds if nothing was violated."""
    done = run("--seeds", "3", "--first", "50", "--scenario", "single", "--jobs", "1")
    assert done.returncode == 0
    assert "3 seeds, 0 violations" in done.stdout


def test_a_trace_tells_what_happened() -> None:
    """``--trace`` prints faults, elections and messages in the order of time."""
    lines = run("--seed", "1", "--scenario", "three", "--trace").stdout.splitlines()
    assert any("leader in term" in line for line in lines)
    assert any("fault" in line for line in lines)
    assert any("hears n1: Append" in line for line in lines)
    instants = [float(line.split()[0]) for line in lines[:-2]]
    assert instants == sorted(instants)


def test_an_unknown_scenario_is_refused() -> None:
    """A mistyped scenario is refused with the names there are."""
    done = run("--seed", "1", "--scenario", "thre")
    assert done.returncode == 2
    assert "membership-five" in done.stderr


def test_a_mutant_is_replayed() -> None:
    """``--mutant`` runs a seed on a broken core, and fails as it does in the search."""
    done = run("--seed", "1", "--scenario", "returning", "--mutant", "no PreVote")
    assert done.returncode == 1
    assert "a good leader stays" in done.stdout


def test_an_error_of_a_core_is_an_outcome() -> None:
    """A core that raises is a finding like another: the seed is reported, the others go on."""

    class BrokenCore(Core):
        def tick(self) -> None:
            raise ZeroDivisionError

    outcome = Simulation(1, "three", BrokenCore).run()
    assert outcome.violation.startswith("error")
    assert "ZeroDivisionError" in outcome.violation
