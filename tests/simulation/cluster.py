"""A simulated cluster: its nodes, the operator who changes its membership, what clients and faults see of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from callfs.raft.boundary import first_write
from callfs.raft.membership import AddLearner, Member, Membership, MembershipChange, RemoveMember, UpdateMember
from callfs.raft.messages import Sender
from tests.simulation.clients import Answered
from tests.simulation.history import Request
from tests.simulation.invariants import Violation
from tests.simulation.machine import Command
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.schedule import MILLISECONDS, SECONDS
from tests.simulation.stored import Contents
from tests.simulation.world import World

FASTEST, SLOWEST = 0.85, 1.2
"""How long a node's ticks may be, compared with what they should be."""

PATIENCE = 6 * SECONDS
"""How long the operator tries to make one change."""


def founding_membership(size: int) -> Membership:
    """The membership that a cluster of so many nodes starts with."""
    return Membership("cluster", tuple(member(f"n{number}", f"d{number}") for number in range(1, size + 1)))


def member(name: str, disk_id: str) -> Member:
    """A voter of that name."""
    return Member(name, disk_id, f"{name}:9000", f"http://{name}:8000", True)


class Cluster:
    """
    All nodes, members or not.

    :param size: how many nodes found the cluster.
    :param spares: how many more there are, with empty disks.
    """

    def __init__(self, world: World, size: int, spares: int, seed: str) -> None:
        self.world = world
        self.network: Network = world.network
        self._nodes: dict[str, Node] = {}
        self._disks = size + spares
        self._wanted: MembershipChange | None = None
        self._last_change = 0
        self._rejoining: str | None = None
        founding = first_write(founding_membership(size))
        for number in range(1, size + spares + 1):
            contents = Contents(f"d{number}")
            if number <= size:
                contents.store(founding)
            pace = world.rng.uniform(FASTEST, SLOWEST)
            chance = random.Random(f"node {number} of {seed}")
            self._nodes[f"n{number}"] = Node(f"n{number}", world, contents, pace, chance)

    def begin(self) -> None:
        """Start all nodes."""
        for node in self._nodes.values():
            node.start()

    def deliver(self, sender: str, receiver: str, message: tuple[Sender, object]) -> None:
        """Give a node what has arrived for it."""
        self._nodes[receiver].receive(*message)

    # for the clients

    def nodes(self) -> Sequence[str]:
        """The nodes that a client may ask: members mostly, but also those that can't help."""
        return [*self.members(), *self.members(), *self._nodes]

    def propose(self, node: str, command: Command, answered: Answered) -> None:
        """Ask a node to have a command applied."""
        self._nodes[node].propose(command, answered)

    def read(self, node: str, request: Request, answered: Answered) -> None:
        """Ask a node for a linearizable read."""
        self._nodes[node].read(request, answered)

    # for the faults

    def names(self) -> Sequence[str]:
        """All nodes, up or down, members or not."""
        return list(self._nodes)

    def running(self) -> Sequence[str]:
        """The nodes that are up."""
        return [name for name, node in self._nodes.items() if node.up]

    def leader(self) -> str | None:
        """The node that leads the newest term that is led."""
        leaders = [(node.core.term, name) for name, node in self._nodes.items() if node.core and node.leads]
        return max(leaders)[1] if leaders else None

    def crash(self, node: str, power: bool) -> None:
        """Stop a node at once."""
        self._nodes[node].crash(power)

    def start(self, node: str) -> None:
        """Start a node that is down."""
        self._nodes[node].start()

    def pause(self, node: str, duration: int) -> None:
        """Let a node neither hear, tick nor act for a while."""
        self._nodes[node].pause(duration)

    def stall(self, node: str, duration: int) -> None:
        """Let nothing become durable on a node for a while."""
        self._nodes[node].disk.stall(duration)

    def fill(self, node: str, full: bool) -> None:
        """Fill a node's disk, or make room again."""
        self._nodes[node].disk.fill(full)

    def fail_sync(self, node: str, failing: bool) -> None:
        """Let the next fsync of a node fail, or not."""
        self._nodes[node].disk.failing = failing

    def cut_log(self, node: str) -> None:
        """Have a node cut its log now."""
        self._nodes[node].cut_log()

    def transfer(self, node: str) -> None:
        """Ask for the leadership to be handed to a node."""
        leader = self.leader()
        if leader is not None:
            self._nodes[leader].transfer(node)

    def join(self, node: str) -> None:
        """Ask for a node to be made a member."""
        if self._wanted is None and self._nodes[node].up:
            self._want(AddLearner(member(node, self._nodes[node].contents.disk_id)), PATIENCE)

    def remove(self, node: str) -> None:
        """Ask for a node to be removed; not while another one isn't whole."""
        if self._wanted is None and self._rejoining is None:
            self._want(RemoveMember(node), PATIENCE)

    def announce(self, node: str) -> None:
        """Let a member announce a newer version."""
        known = self.membership().get(node)
        if self._wanted is None and self._rejoining is None and known is not None:
            self._want(UpdateMember(node, known.disk_id, version=known.version + 1), PATIENCE)

    def change_hastily(self, nodes: Sequence[str]) -> None:
        """Ask the leader for several changes of membership at once: those who belong shall leave, others join."""
        leader, membership = self.leader(), self.membership()
        if leader is None or self._wanted is not None or self._rejoining is not None:
            return
        self._last_change = self.world.schedule.now
        for name in nodes:
            if membership.get(name) is None:
                self._nodes[leader].change(AddLearner(member(name, self._nodes[name].contents.disk_id)))
            else:
                self._nodes[leader].change(RemoveMember(name))

    def expect_resignation(self, node: str) -> None:
        """See to it that a leader that is cut off now doesn't lead any more after two election timeouts (6.2)."""
        ticks = 2 * self.world.settings.election_ticks + 2
        limit = int(ticks * self.world.tick * SLOWEST)
        self.world.schedule.after(
            limit, self._must_have_resigned, node, self.network.healed, self.world.schedule.now
        )

    def replace(self, node: str) -> None:
        """Wipe a node's disk, start it, and ask until it is removed and joined again."""
        self._disks += 1
        self._rejoining = node
        self._nodes[node].wipe(f"d{self._disks}")
        self.world.note(node, f"comes back with disk d{self._disks}")
        self._nodes[node].start()
        self._rejoin()

    def members(self) -> Sequence[str]:
        """The members in force, as far as the cluster has committed."""
        return [member.node_id for member in self.membership().members]

    def can_lose(self, node: str) -> bool:
        """
        Whether the cluster goes on without this disk: all members know one membership, which nobody is changing.

        To wipe a voter while a change is half known may leave a majority of no configuration.
        """
        if self._wanted is not None or self._rejoining is not None:
            return False
        if self.world.schedule.now < self._last_change + SECONDS:
            return False
        membership = self.membership()
        known = {self._nodes[member.node_id].membership() for member in membership.members}
        return known == {membership} and node in membership.voters and len(membership.voters) > 2

    def membership(self) -> Membership:
        """The last membership that a state machine knows."""
        return max((node.machine.meta for node in self._nodes.values()), key=lambda meta: meta.index).membership

    # for the end

    def settled(self) -> bool:
        """Whether there is a leader, every member has applied what is committed, and no change is due."""
        leader = self.leader()
        if leader is None or self._rejoining is not None or self._wanted is not None:
            return False
        core = self._nodes[leader].core

        members = core.membership.members
        commit = self.world.invariants.commit
        return core.commit_index == core.last_index == commit and all(
            member.voter and self._nodes[member.node_id].machine.index == commit for member in members
        )

    def states(self) -> dict[str, object]:
        """The state of every member."""
        return {name: self._nodes[name].machine.state() for name in self.members()}

    def describe(self) -> str:
        """A line for each node."""
        lines = []
        for name, node in self._nodes.items():
            where = node.core.status() if node.up else "down"
            lines.append(f"{name} applied {node.machine.index}: {where}")
        return "\n".join(lines)

    def _must_have_resigned(self, name: str, healed: int, since: int) -> None:
        node = self._nodes[name]
        if healed == self.network.healed and node.has_run_since(since) and node.leads:
            voters = set(node.core.membership.voters) - {name}
            if voters:
                raise Violation("an isolated leader resigns", f"{name} still leads term {node.core.term}")

    # the operator

    def _want(self, change: MembershipChange, patience: int) -> None:
        self._wanted = change
        self._ask(change, self.world.schedule.now + patience)

    def _ask(self, change: MembershipChange, deadline: int) -> None:
        """Ask nodes for a change until it has happened, or the operator gives up."""
        if self._has(change) or self.world.schedule.now > deadline:
            self._wanted = None
            return
        self._last_change = self.world.schedule.now
        running = self.running()
        if running:
            self._nodes[self.world.rng.choice(running)].change(change)
        self.world.schedule.after(300 * MILLISECONDS, self._ask, change, deadline)

    def _has(self, change: MembershipChange) -> bool:
        membership = self.membership()
        match change:
            case AddLearner(wanted):
                found = membership.get(wanted.node_id)
                return found is not None and found.disk_id == wanted.disk_id
            case UpdateMember(node_id, _, _, _, version):
                found = membership.get(node_id)
                return found is None or found.version == version
            case RemoveMember(node_id):
                return membership.get(node_id) is None
            case _:
                raise AssertionError(change)

    def _rejoin(self) -> None:
        """Bring the node with the new disk one step nearer to being a voter again."""
        name = self._rejoining
        if name is None:
            return
        node = self._nodes[name]
        found = self.membership().get(name)
        if found is not None and found.disk_id == node.contents.disk_id and found.voter:
            self._rejoining = None
            return
        if self._wanted is None and found is not None and found.disk_id != node.contents.disk_id:
            self._want(RemoveMember(name), PATIENCE)
        elif self._wanted is None and found is None:
            self._want(AddLearner(member(name, node.contents.disk_id)), PATIENCE)
        self.world.schedule.after(100 * MILLISECONDS, self._rejoin)
