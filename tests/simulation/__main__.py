"""
Simulations from the command line.

``--seeds N [--first F]`` runs many, ``--seed N [--trace]`` one again, with ``--mutant NAME`` on a broken core;
``--mutants`` looks for seeds that catch each mutant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from callfs.raft.core import Core
from tests.simulation.campaign import campaign, report
from tests.simulation.mutants import MUTANTS, search
from tests.simulation.scenario import SCENARIOS, scenario_of
from tests.simulation.simulation import Simulation
from tests.simulation.world import CoreFactory


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; 1 when something was violated, or a mutant wasn't caught."""
    options = _options(arguments)
    if options.mutants:
        return 0 if search(options.first, options.seeds or 200) else 1
    if options.seed is not None:
        core = MUTANTS[options.mutant].core if options.mutant else Core
        return _replay(options.seed, options.scenario, core, options.trace)
    count = options.seeds or 100
    return 1 if report(campaign(options.first, count, options.scenario, options.jobs), count).violations else 0


def _replay(seed: int, scenario: str | None, core: CoreFactory, trace: bool) -> int:
    simulation = Simulation(seed, scenario or scenario_of(seed), core, print if trace else None)
    outcome = simulation.run()
    print(
        f"seed {seed}, scenario {outcome.scenario}: {outcome.operations} answered requests, "
        f"{outcome.commit} entries, "
        f"{outcome.events} events in {outcome.virtual_seconds:.1f} s of virtual time"
    )
    print(outcome.violation or "no violation")
    return 1 if outcome.violation else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulated raft clusters.")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds (default: 100; with --mutants 200)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first of them")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: one on each processor")
    parser.add_argument("--seed", type=int, metavar="N", help="run this seed alone")
    parser.add_argument("--scenario", choices=SCENARIOS, help="default: the seed decides")
    parser.add_argument("--trace", action="store_true", help="print all that happens (with --seed)")
    parser.add_argument("--mutant", choices=MUTANTS, metavar="NAME", help="break the core (with --seed)")
    parser.add_argument("--mutants", action="store_true", help="look for a seed that catches each mutant")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
