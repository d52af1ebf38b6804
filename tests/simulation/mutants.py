"""
Cores with one rule broken, each with a seed whose simulation notices.

A simulation that finds nothing is worth something only if it would have found something. Each mutant breaks its
rule through a documented seam of the core, and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import msgspec

from callfs.raft.boundary import HardState, RandomSource, Saved, Settings
from callfs.raft.core import Core
from callfs.raft.election import Election
from callfs.raft.messages import Sender, VoteRequest
from callfs.raft.reads import Asked, Reads
from callfs.raft.replication import Replication
from tests.simulation.scenario import SCENARIOS
from tests.simulation.simulation import Outcome, Simulation
from tests.simulation.world import CoreFactory


class RashElection(Election):
    """Campaigns without a rehearsal."""

    def rehearses(self) -> bool:
        """Never."""
        return False


class RashCore(Core):
    """PreVote is off (thesis 9.6)."""

    election_type = RashElection


class HastyReplication(Replication):
    """Counts the leader's own log as soon as it is in memory."""

    def own_match(self) -> int:
        """All of it, durable or not."""
        return self._replica.log.last_index


class HastyCore(Core):
    """A leader counts itself before its write is durable (thesis 10.2.1)."""

    replication_type = HastyReplication


class CountingReplication(Replication):
    """Commits whatever a majority has."""

    def may_commit(self, index: int) -> bool:
        """Entries of earlier terms too."""
        return True


class CountingCore(Core):
    """Entries of earlier terms are committed by counting (thesis 3.6.2)."""

    replication_type = CountingReplication


class CarelessReads(Reads):
    """Reads this node's copy as it is."""

    def ask(self, token: int) -> None:
        """Serve it at once."""
        self._safe.append((0, [Asked(token, 0)]))


class CarelessCore(Core):
    """Reads are served without ReadIndex (thesis 6.4)."""

    reads_type = CarelessReads


class ComplaisantElection(Election):
    """Votes for candidates with shorter logs than its own."""

    def grants(self, sender: Sender, request: VoteRequest) -> bool:
        """Whoever asks first."""
        return request.preliminary or self._replica.vote in (None, sender.node_id)


class ComplaisantCore(Core):
    """A vote goes to a log that isn't up to date (thesis 3.6.1)."""

    election_type = ComplaisantElection


class StubbornReplication(Replication):
    """Leads whoever hears it."""

    def hears_majority(self) -> bool:
        """So it thinks."""
        return True


class StubbornCore(Core):
    """CheckQuorum is off (thesis 6.2)."""

    replication_type = StubbornReplication


class ForgetfulCore(Core):
    """A vote doesn't survive a restart (thesis 3.4, 3.8)."""

    def __init__(
        self, *, node_id: str, disk_id: str, saved: Saved, settings: Settings, random: RandomSource
    ) -> None:
        kept = HardState(saved.hard_state.term, None, saved.hard_state.commit)
        saved = msgspec.structs.replace(saved, hard_state=kept)
        super().__init__(node_id=node_id, disk_id=disk_id, saved=saved, settings=settings, random=random)


@dataclass(frozen=True, slots=True)
class Mutant:
    """
    A broken core.

    :param rules: what of the simulation may notice, any of them.
    :param scenario: where to look for it.
    :param seeds: some that catch it. One is enough: any change of the core shifts what a seed stands for, and with
        several it is seldom that new ones are needed.
    """

    core: CoreFactory
    rules: tuple[str, ...]
    scenario: str
    seeds: tuple[int, ...]

    def run(self, seed: int) -> Outcome:
        """Simulate it."""
        return Simulation(seed, self.scenario, self.core).run()

    def is_caught(self, outcome: Outcome) -> bool:
        """Whether the simulation found what is broken."""
        return outcome.violation.startswith(self.rules)


MUTANTS: Mapping[str, Mutant] = {
    "no PreVote": Mutant(RashCore, ("a good leader stays",), "returning", (1, 2, 3)),
    "counts an unsynced leader": Mutant(HastyCore, ("durable before committed",), "three", (2, 6, 9, 10)),
    "commits old terms by counting": Mutant(
        CountingCore, ("commit by counting in the own term",), "five", (4, 7, 21, 28, 30, 34)
    ),
    "reads without ReadIndex": Mutant(CarelessCore, ("linearizable reads", "linearizability"), "three", (1, 2, 3)),
    "forgets votes": Mutant(
        ForgetfulCore, ("one vote a term", "election safety"), "elections", (4, 1, 2, 6, 11, 12)
    ),
    "votes for short logs": Mutant(ComplaisantCore, ("leader completeness",), "partitions", (1, 5, 6, 12, 15)),
    "no CheckQuorum": Mutant(StubbornCore, ("an isolated leader resigns",), "partitions", (7, 8, 11, 5)),
}


def first_catch(name: str, seeds: Sequence[int]) -> Outcome | None:
    """What the first seed that catches a mutant came to; ``None`` if none does."""
    mutant = MUTANTS[name]
    outcomes = (mutant.run(seed) for seed in seeds)
    return next((outcome for outcome in outcomes if mutant.is_caught(outcome)), None)


def search(first: int, count: int) -> bool:
    """
    Look for a seed that catches each mutant, and print it.

    :param first: the first seed to try.
    :param count: how many to try before giving up.
    :returns: whether all were caught.
    """
    assert all(mutant.scenario in SCENARIOS for mutant in MUTANTS.values())
    caught = [_tell(name, outcome, spent) for name, outcome, spent in _searches(first, count)]
    print(f"{sum(caught)} of {len(caught)} mutants caught")
    return all(caught)


def _searches(first: int, count: int) -> Iterator[tuple[str, Outcome | None, float]]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        began = time.monotonic()
        searches = {name: pool.submit(first_catch, name, range(first, first + count)) for name in MUTANTS}
        for name, found in searches.items():
            yield name, found.result(), time.monotonic() - began


def _tell(name: str, outcome: Outcome | None, spent: float) -> bool:
    if outcome is None:
        print(f"{name}: not caught, {spent:.1f} s", flush=True)
        return False
    violation = outcome.violation.splitlines()[0]
    print(
        f"{name}: seed {outcome.seed}, {spent:.1f} s\n    {violation}\n    {outcome.replay} --mutant '{name}'",
        flush=True,
    )
    return True
