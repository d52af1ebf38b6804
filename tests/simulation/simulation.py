"""One simulation from its seed: a cluster under faults, clients, the end when all is well again, a judgement."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from callfs.raft.boundary import Settings, first_write
from callfs.raft.core import Core
from tests.simulation.clients import LONE_PATHS, MOVING_PATHS, BusyClient, Record
from tests.simulation.cluster import Cluster, founding_membership
from tests.simulation.faults import Faults
from tests.simulation.history import Kind, Request
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.linearizability import Judgement, check
from tests.simulation.network import Network
from tests.simulation.scenario import SCENARIOS
from tests.simulation.schedule import MILLISECONDS, SECONDS, Schedule
from tests.simulation.world import CoreFactory, World

PATIENCE = 10 * SECONDS
"""How long a mended cluster may take until all is done."""

LEADERLESS = 5 * SECONDS
"""How long it may be without a leader: the rest of a pause or a stall, and a few election timeouts."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a simulation came to.

    :param violation: what didn't hold; empty if all did.
    :param operations: requests of clients that were answered.
    :param events: how much happened.
    :param virtual_seconds: how long it was in virtual time.
    """

    seed: int
    scenario: str
    violation: str
    operations: int
    events: int
    commit: int
    virtual_seconds: float

    @property
    def replay(self) -> str:
        """The line that runs it again."""
        return f"python -m tests.simulation --seed {self.seed} --scenario {self.scenario} --trace"


class Simulation:
    """
    A run of one seed.

    :param scenario: a name of :data:`tests.simulation.scenario.SCENARIOS`.
    :param core: what makes the nodes' cores.
    :param trace: called with each line of a trace; ``None`` for no trace.
    """

    def __init__(
        self, seed: int, scenario: str, core: CoreFactory = Core, trace: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.name = scenario
        self.scenario = SCENARIOS[scenario]
        self.schedule = Schedule()
        self._trace = trace
        name = f"{seed} {scenario}"
        self._rng = random.Random(name)
        network = Network(self.schedule, random.Random(f"network {name}"), self._deliver)
        size = self.scenario.size
        founding = first_write(founding_membership(size)).entries[0]
        self.invariants = Invariants(founding, [f"n{number}/d{number}" for number in range(1, size + 1)])
        world = World(
            schedule=self.schedule,
            rng=random.Random(f"world {name}"),
            network=network,
            invariants=self.invariants,
            settings=_settings(self._rng, self.scenario.election_ticks),
            core=core,
            threshold=self.scenario.threshold,
            note=self._note,
        )
        self.cluster = Cluster(world, size, self.scenario.spares, name)
        self.record = Record(self.schedule)
        faults_rng = random.Random(f"faults {name}")
        self.faults = Faults(
            self.schedule, faults_rng, self.cluster, self.scenario, lambda line: self._note("--", line)
        )
        self.clients = [
            BusyClient(
                f"c{number}",
                self.schedule,
                random.Random(f"client {number} of {name}"),
                self.cluster,
                self.record,
                self.scenario.pace,
            )
            for number in range(1, self.scenario.clients + 1)
        ]

    def run(self) -> Outcome:
        """Run it to its end; what goes wrong is part of the outcome, so that one seed doesn't hide the others."""
        violation = ""
        try:
            self._run()
        except Violation as found:
            violation = str(found)
            self._note("!!", violation)
        except Exception:
            violation = f"error\n{traceback.format_exc()}"
        return Outcome(
            self.seed,
            self.name,
            violation,
            sum(client.finished for client in self.clients),
            self.schedule.events,
            self.invariants.commit,
            self.schedule.now / SECONDS,
        )

    def _run(self) -> None:
        self.cluster.begin()
        for client in self.clients:
            client.start(self._rng.randrange(1, 3))
        self.faults.begin()
        if self.scenario.steady:
            self._go_on(SECONDS)
            self.invariants.steady = True
        self._go_on(self.scenario.duration)
        self.faults.stop()
        self._note("--", "all is mended")
        self._wait("there is a leader", lambda: self.cluster.leader() is not None, LEADERLESS)
        self._go_on(self.schedule.now + SECONDS)
        for client in self.clients:
            client.stopped = True
        self._wait("the clients have their answers", lambda: not any(client.busy for client in self.clients))
        self._wait("the cluster converges", self.cluster.settled)
        self._look_at_all()
        self._compare()
        self._judge()

    def _go_on(self, until: int) -> None:
        step = self.schedule.step
        while step(until):
            pass

    def _wait(self, promise: str, kept: Callable[[], bool], patience: int = PATIENCE) -> None:
        deadline = self.schedule.now + patience
        while not kept():
            self._go_on(self.schedule.now + 50 * MILLISECONDS)
            if self.schedule.now > deadline:
                raise Violation(
                    "liveness", f"not within {patience // SECONDS} s: {promise}\n{self.cluster.describe()}"
                )

    def _look_at_all(self) -> None:
        """Read every file on every member."""
        waiting: set[int] = set()

        def ask(node: str, request: Request, number: int) -> None:
            def answered(answer: str | None) -> None:
                if number in waiting:
                    waiting.remove(number)
                    self.record.end(number, answer)

            if node not in self.cluster.members():
                waiting.discard(number)
            elif number in waiting:
                self.cluster.read(node, request, answered)
                self.schedule.after(500 * MILLISECONDS, ask, node, request, number)

        for node in self.cluster.members():
            for path in LONE_PATHS + MOVING_PATHS:
                request = Request(Kind.READ, path)
                number = self.record.begin(request, "end")
                waiting.add(number)
                ask(node, request, number)
        self._wait("every member can be read from", lambda: not waiting)

    def _compare(self) -> None:
        states = self.cluster.states()
        names = list(states)
        for name in names[1:]:
            if states[name] != states[names[0]]:
                raise Violation(
                    "state-machine safety", f"{names[0]} is {states[names[0]]}, {name} is {states[name]}"
                )

    def _judge(self) -> None:
        history = self.record.history()
        verdict = check(history)
        if verdict.judgement is not Judgement.LINEARIZABLE:
            raise Violation("linearizability", str(verdict))

    def _deliver(self, sender: str, receiver: str, message: object) -> None:
        if self._trace is not None:
            self._note(receiver, f"hears {sender}: {message[1]}")  # type: ignore[index]
        self.cluster.deliver(sender, receiver, message)  # type: ignore[arg-type]

    def _note(self, who: str, line: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.schedule.now / SECONDS:10.6f} {who:>3} {line}")


def _settings(rng: random.Random, election_ticks: int) -> Settings:
    """Settings with which limits are met."""
    return Settings(
        election_ticks=election_ticks,
        heartbeat_ticks=rng.randrange(1, election_ticks // 3 + 1),
        max_inflight=rng.choice((1, 4, 256)),
        max_batch_bytes=rng.choice((16, 80, 2**20)),
        max_apply_bytes=rng.choice((8, 2**20)),
        max_uncommitted_bytes=rng.choice((200, 2**20, 2**20)),
        keep_entries=rng.choice((0, 5, 50)),
        promotion_lag=rng.choice((0, 3, 64)),
    )
