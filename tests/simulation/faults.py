"""What goes wrong, and when: faults chosen by weight at random instants, each with its own end."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tests.simulation.network import CALM, Network
from tests.simulation.scenario import Scenario
from tests.simulation.schedule import MILLISECONDS, SECONDS, Schedule


class Cluster(Protocol):
    """What can be done to a cluster."""

    network: Network

    def names(self) -> Sequence[str]:
        """All nodes, up or down, members or not."""

    def running(self) -> Sequence[str]:
        """The nodes that are up."""

    def leader(self) -> str | None:
        """The node that leads the newest term that is led."""

    def crash(self, node: str, power: bool) -> None:
        """Stop a node at once; with a power failure also what the operating system held is lost."""

    def start(self, node: str) -> None:
        """Start a node that is down."""

    def pause(self, node: str, duration: int) -> None:
        """Let a node neither hear, tick nor write for a while."""

    def stall(self, node: str, duration: int) -> None:
        """Let nothing become durable on a node for a while."""

    def fill(self, node: str, full: bool) -> None:
        """Fill a node's disk, or make room again."""

    def fail_sync(self, node: str, failing: bool) -> None:
        """Let the next fsync of a node fail, or not."""

    def cut_log(self, node: str) -> None:
        """Have a node cut its log now."""

    def transfer(self, node: str) -> None:
        """Ask for the leadership to be handed to a node."""

    def join(self, node: str) -> None:
        """Ask for a node to be made a member."""

    def remove(self, node: str) -> None:
        """Ask for a node to be removed."""

    def announce(self, node: str) -> None:
        """Let a member announce a newer version."""

    def change_hastily(self, nodes: Sequence[str]) -> None:
        """Ask the leader for several changes of membership at once."""

    def expect_resignation(self, node: str) -> None:
        """A leader is alone now, and may not go on for long."""

    def replace(self, node: str) -> None:
        """Wipe a node's disk, start it, and ask for it to be removed and joined again."""

    def members(self) -> Sequence[str]:
        """The members in force, as far as the cluster has committed."""

    def can_lose(self, node: str) -> bool:
        """Whether a majority of healthy disks is left when this one is wiped."""


class Faults:
    """
    Lets things go wrong until it is told to stop.

    :param note: called with a line for people for each fault.
    """

    def __init__(
        self,
        schedule: Schedule,
        rng: random.Random,
        cluster: Cluster,
        scenario: Scenario,
        note: Callable[[str], None],
    ) -> None:
        self.cluster = cluster
        self.rng = rng
        self._schedule = schedule
        self._scenario = scenario
        self._note = note
        self._names = list(scenario.faults)
        self._weights = list(scenario.faults.values())
        self._over = False
        self._struck: str | None = None
        self._struck_until = 0

    def begin(self) -> None:
        """Let the first fault come."""
        if self._names:
            self._schedule.after(self._interval(), self._next)

    def stop(self) -> None:
        """No more faults, and an end to those there are: whole links, calm weather, nodes up, room on disks."""
        self._over = True
        self.cluster.network.heal()
        self.cluster.network.weather = CALM
        for node in self.cluster.names():
            self.cluster.fill(node, False)
            self.cluster.fail_sync(node, False)
        for node in self.cluster.names():
            self.cluster.start(node)

    def later(self, longest: int, act: Callable[..., None], *arguments: object) -> None:
        """Plan the end of a fault, at a random instant within so many microseconds."""
        self._schedule.after(self.rng.randrange(longest // 20, longest), self._unless_over, act, arguments)

    def someone(self, nodes: Sequence[str]) -> str | None:
        """One of the nodes, if there are any."""
        return self.rng.choice(nodes) if nodes else None

    def _unless_over(self, act: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if not self._over:
            act(*arguments)

    def _interval(self) -> int:
        return int(self.rng.expovariate(1 / self._scenario.pause))

    def _next(self) -> None:
        if self._over:
            return
        name = self.rng.choices(self._names, self._weights)[0]
        target = FAULTS[name](self)
        if target is not None:
            self._note(f"fault {name} {target}")
        self._schedule.after(self._interval(), self._next)

    # the faults: each says whom it struck, or None if it couldn't

    def crash(self) -> str | None:
        """A node stops and comes back."""
        return self._crash(self.someone(self.cluster.running()))

    def crash_leader(self) -> str | None:
        """The leader stops and comes back."""
        return self._crash(self.cluster.leader())

    def crash_all(self) -> str | None:
        """The power fails everywhere."""
        for node in self.cluster.running():
            self.cluster.crash(node, True)
            self.later(SECONDS, self.cluster.start, node)
        return "everywhere"

    def blink(self) -> str | None:
        """Some nodes are killed and start again at once, in the middle of whatever they were at."""
        struck = [node for node in self.cluster.running() if self.rng.random() < 0.5]
        for node in struck:
            self.cluster.crash(node, False)
            self.later(40 * MILLISECONDS, self.cluster.start, node)
        return " ".join(struck) or None

    def pause(self) -> str | None:
        """A node's process is stopped, and goes on as if nothing had been."""
        node = self.someone(self.cluster.running())
        if node is not None:
            self.cluster.pause(node, self.rng.randrange(50, 2000) * MILLISECONDS)
        return node

    def split(self) -> str | None:
        """The nodes fall into two parts that don't hear each other."""
        names = list(self.cluster.names())
        self.rng.shuffle(names)
        if len(names) < 2:
            return None
        place = self.rng.randrange(1, len(names))
        return self._cut(names[:place], names[place:], True)

    def cut_leader(self) -> str | None:
        """The leader is alone, and has to resign."""
        leader = self.cluster.leader()
        if leader is not None:
            self._cut_off(leader, True)
            self.cluster.expect_resignation(leader)
        return leader

    def cut_node(self) -> str | None:
        """A node is alone."""
        return self._cut_off(self.someone(self.cluster.names()), True)

    def one_way(self) -> str | None:
        """A node still hears, but isn't heard; or the other way round."""
        node = self.cluster.leader() if self.rng.random() < 0.5 else self.someone(self.cluster.names())
        if node is None:
            return None
        others = [other for other in self.cluster.names() if other != node]
        if self.rng.random() < 0.5:
            return self._cut([node], others, False)
        return self._cut(others, [node], False)

    def ring(self) -> str | None:
        """Each node reaches its neighbours alone."""
        names = list(self.cluster.names())
        self.rng.shuffle(names)
        for place, one in enumerate(names):
            near = {one, names[place - 1], names[(place + 1) % len(names)]}
            self.cluster.network.cut((one, other) for other in names if other not in near)
        self.later(3 * SECONDS, self.cluster.network.heal)
        return " ".join(names)

    def weather(self) -> str | None:
        """The network gets worse, or better."""
        self.cluster.network.weather = self.rng.choice(self._scenario.weathers)
        return str(self.cluster.network.weather)

    def stall(self) -> str | None:
        """A disk takes its time."""
        node = self.someone(self.cluster.running())
        if node is not None:
            self.cluster.stall(node, self.rng.randrange(20, 1500) * MILLISECONDS)
        return node

    def fill(self) -> str | None:
        """A disk is full for a while."""
        node = self.someone(self.cluster.running())
        if node is not None:
            self.cluster.fill(node, True)
            self.later(2 * SECONDS, self.cluster.fill, node, False)
        return node

    def fail_sync(self) -> str | None:
        """An fsync fails: the node must stop, and is started again."""
        node = self.someone(self.cluster.running())
        if node is not None:
            self.cluster.fail_sync(node, True)
            self.later(2 * SECONDS, self.cluster.start, node)
        return node

    def transfer(self) -> str | None:
        """Leadership is handed over."""
        node = self.someone(self.cluster.members())
        if node is not None:
            self.cluster.transfer(node)
        return node

    def snapshot(self) -> str | None:
        """A node cuts its log."""
        node = self.someone(self.cluster.running())
        if node is not None:
            self.cluster.cut_log(node)
        return node

    def join(self) -> str | None:
        """A node joins; one that belongs to the cluster already changes nothing by it."""
        node = self.someone(self.cluster.names())
        if node is not None:
            self.cluster.join(node)
        return node

    def remove(self) -> str | None:
        """A node is removed, unless few are left."""
        members = self.cluster.members()
        node = self.someone(members) if len(members) > 1 else None
        if node is not None:
            self.cluster.remove(node)
        return node

    def hasty_changes(self) -> str | None:
        """Several changes of membership are wished for at once, of which one may begin; perhaps a cut follows."""
        nodes = [name for name in self.cluster.names() if self.rng.random() < 0.5]
        self.cluster.change_hastily(nodes)
        if self.rng.random() < 0.5:
            self._cut_off(self.cluster.leader(), True)
        return " ".join(nodes) or None

    def announce(self) -> str | None:
        """A member announces that it runs a newer version."""
        node = self.someone(self.cluster.members())
        if node is not None:
            self.cluster.announce(node)
        return node

    def wipe(self) -> str | None:
        """A node comes back with an empty disk."""
        node = self.someone([name for name in self.cluster.members() if self.cluster.can_lose(name)])
        if node is not None:
            self.cluster.replace(node)
        return node

    # faults that a leader survives

    def cut_follower(self) -> str | None:
        """A follower is alone, and comes back."""
        return self._cut_off(self._follower(), True)

    def deafen_follower(self) -> str | None:
        """A follower hears nobody, but is heard."""
        node = self._follower()
        others = [other for other in self.cluster.names() if other != node]
        return None if node is None else self._cut(others, [node], False)

    def crash_follower(self) -> str | None:
        """A follower stops and comes back."""
        return self._crash(self._follower())

    def pause_follower(self) -> str | None:
        """A follower's process is stopped for a while."""
        node = self._follower()
        if node is not None:
            self.cluster.pause(node, self.rng.randrange(50, 2000) * MILLISECONDS)
        return node

    def _follower(self) -> str | None:
        """A follower that may be struck: the same one until all is well again."""
        leader = self.cluster.leader()
        if leader is None or self._schedule.now < SECONDS:
            return None
        if self._struck == leader or self._struck is None or self._schedule.now > self._struck_until:
            self._struck = self.someone([name for name in self.cluster.running() if name != leader])
        self._struck_until = self._schedule.now + 4 * SECONDS
        return self._struck

    def _crash(self, node: str | None) -> str | None:
        if node is not None:
            self.cluster.crash(node, self.rng.random() < 0.5)
            self.later(2 * SECONDS, self.cluster.start, node)
        return node

    def _cut_off(self, node: str | None, both_ways: bool) -> str | None:
        others = [other for other in self.cluster.names() if other != node]
        return None if node is None else self._cut([node], others, both_ways)

    def _cut(self, side: Sequence[str], others: Sequence[str], both_ways: bool) -> str:
        self.cluster.network.cut_off(side, others, both_ways)
        self.later(3 * SECONDS, self.cluster.network.heal)
        return f"{' '.join(side)} {'<>' if both_ways else '>'} {' '.join(others)}"


FAULTS: Mapping[str, Callable[[Faults], str | None]] = {
    "crash": Faults.crash,
    "crash_leader": Faults.crash_leader,
    "crash_all": Faults.crash_all,
    "blink": Faults.blink,
    "pause": Faults.pause,
    "split": Faults.split,
    "cut_leader": Faults.cut_leader,
    "cut_node": Faults.cut_node,
    "one_way": Faults.one_way,
    "ring": Faults.ring,
    "weather": Faults.weather,
    "stall": Faults.stall,
    "fill": Faults.fill,
    "fail_sync": Faults.fail_sync,
    "transfer": Faults.transfer,
    "snapshot": Faults.snapshot,
    "join": Faults.join,
    "remove": Faults.remove,
    "hasty_changes": Faults.hasty_changes,
    "announce": Faults.announce,
    "wipe": Faults.wipe,
    "cut_follower": Faults.cut_follower,
    "deafen_follower": Faults.deafen_follower,
    "crash_follower": Faults.crash_follower,
    "pause_follower": Faults.pause_follower,
}
