"""What a simulation is made of: how many nodes, how busy the clients, which faults and how often."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.simulation.network import CALM, Weather
from tests.simulation.schedule import MILLISECONDS, SECONDS

ROUGH = (
    CALM,
    Weather(dropping=0.05, doubling=0.02),
    Weather(longest=20_000, straggling=0.05, dropping=0.01, doubling=0.05),
    Weather(longest=40_000, straggling=0.1, dropping=0.2, doubling=0.1),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    A kind of simulation; the seed decides everything that it leaves open.

    :param size: the nodes of the first configuration.
    :param spares: further nodes that can be joined.
    :param duration: how long faults happen, in microseconds; then the cluster heals.
    :param clients: how many clients work.
    :param pace: the mean pause of a client between two requests, in microseconds.
    :param faults: the weight of each fault, by its name in :data:`tests.simulation.faults.FAULTS`.
    :param pause: the mean time between two faults, in microseconds.
    :param weathers: how the network may be; it changes with the fault ``weather``.
    :param threshold: the entries after which a node cuts its log.
    :param election_ticks: the core's setting; few let more nodes campaign at a time.
    :param steady: no fault is a reason for another leader than the first one.
    """

    size: int
    faults: Mapping[str, int] = field(default_factory=dict)
    spares: int = 0
    duration: int = 8 * SECONDS
    clients: int = 3
    pace: int = 60 * MILLISECONDS
    pause: int = 500 * MILLISECONDS
    weathers: tuple[Weather, ...] = ROUGH
    threshold: int = 100
    election_ticks: int = 10
    steady: bool = False


FAILING = {"crash": 6, "crash_leader": 4, "crash_all": 1, "pause": 2, "blink": 1}
DIVIDING = {"split": 4, "cut_leader": 4, "cut_node": 3, "one_way": 4, "ring": 1, "weather": 4}
STORING = {"stall": 4, "fill": 1, "fail_sync": 1}
CHANGING = {"join": 16, "remove": 10, "wipe": 10, "announce": 3, "hasty_changes": 5}
LEADING = {"transfer": 4}
CUTTING = {"snapshot": 5}
EVERYTHING = FAILING | DIVIDING | STORING | LEADING | CUTTING

SCENARIOS: Mapping[str, Scenario] = {
    "three": Scenario(3, EVERYTHING),
    "five": Scenario(5, EVERYTHING),
    "partitions": Scenario(3, DIVIDING | LEADING),
    "crashes": Scenario(3, FAILING | STORING | LEADING, pause=350 * MILLISECONDS),
    "elections": Scenario(
        5,
        {"crash_leader": 4, "cut_leader": 3, "blink": 12, "transfer": 2, "weather": 4},
        pause=120 * MILLISECONDS,
        weathers=(Weather(longest=60_000), Weather(longest=120_000, doubling=0.1), CALM),
        election_ticks=4,
    ),
    "snapshots": Scenario(3, EVERYTHING | {"snapshot": 20}, threshold=12),
    "membership": Scenario(3, EVERYTHING | CHANGING, spares=3, duration=10 * SECONDS, threshold=40),
    "membership-five": Scenario(5, EVERYTHING | CHANGING, spares=2, duration=10 * SECONDS, threshold=40),
    "returning": Scenario(
        3,
        {"cut_follower": 5, "deafen_follower": 3, "crash_follower": 2, "pause_follower": 2},
        pace=1500 * MILLISECONDS,
        pause=SECONDS,
        steady=True,
    ),
    "single": Scenario(1, FAILING | STORING | CUTTING | {"join": 6, "remove": 3, "cut_node": 4}, spares=2),
}
WEIGHTS = {
    "three": 4,
    "five": 3,
    "partitions": 2,
    "crashes": 2,
    "elections": 2,
    "snapshots": 3,
    "membership": 4,
    "membership-five": 2,
    "returning": 1,
    "single": 1,
}


def scenario_of(seed: int) -> str:
    """The scenario that a seed runs when none is asked for."""
    return random.Random(f"scenario {seed}").choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
