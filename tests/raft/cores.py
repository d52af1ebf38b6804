"""Cores with a disk and a state machine in memory, and a network between them that a test steers by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

import msgspec

from callfs.raft.boundary import (
    HardState,
    Position,
    Ready,
    Role,
    SafeRead,
    Saved,
    Settings,
    SnapshotMeta,
    Standing,
    Write,
    first_write,
    with_state,
)
from callfs.raft.core import Core
from callfs.raft.membership import NOBODY, Member, Membership, decoded
from callfs.raft.messages import AppendResponse, Entry, EntryKind, Message, Sender, VoteResponse

SETTINGS = Settings(election_ticks=10, heartbeat_ticks=2, keep_entries=2)


def disk_of(node_id: str) -> str:
    """The disk that a node has unless a test says otherwise."""
    return f"disk-{node_id}"


def sender(node_id: str) -> Sender:
    """That node, on its own disk."""
    return Sender(node_id, disk_of(node_id))


def member(node_id: str, *, voter: bool = True) -> Member:
    """A member at an address of its own."""
    return Member(node_id, disk_of(node_id), f"{node_id}:7000", f"https://{node_id}", voter)


def membership(*voters: str, learners: Iterable[str] = ()) -> Membership:
    """A cluster of these."""
    members = [member(voter) for voter in voters] + [member(learner, voter=False) for learner in learners]
    return Membership("cluster", tuple(sorted(members, key=lambda one: one.node_id)))


THREE = first_write(membership("a", "b", "c"))
"""What the nodes of a cluster of three begin with."""


def command(index: int, term: int, data: bytes = b"x") -> Entry:
    """An entry with a command."""
    return Entry(index, term, EntryKind.COMMAND, data)


def entries(*terms: int, after: int = 1) -> tuple[Entry, ...]:
    """Commands of these terms, in a row."""
    return tuple(command(after + 1 + offset, term) for offset, term in enumerate(terms))


class Disk:
    """What a node would find after a crash."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, None, 0)
        self.point = SnapshotMeta(0, 0, NOBODY)
        self.entries: dict[int, Entry] = {}
        self.number = 0

    def carry_out(self, write: Write) -> None:
        """As the order of :class:`Write` says."""
        self.number = write.number
        if write.discard_log:
            self.entries.clear()
        if write.point is not None:
            self.point = write.point
            self._keep(lambda index: index > self.point.index)
        if write.entries:
            first = write.entries[0].index
            self._keep(lambda index: index < first)
            self.entries.update((entry.index, entry) for entry in write.entries)
        if write.hard_state is not None:
            self.hard_state = write.hard_state

    def saved(self, applied: int) -> Saved:
        """What a core starts from."""
        return Saved(
            hard_state=self.hard_state,
            point=self.point,
            entries=tuple(self.entries[index] for index in sorted(self.entries)),
            applied=applied,
        )

    def _keep(self, wanted: Callable[[int], bool]) -> None:
        self.entries = {index: entry for index, entry in self.entries.items() if wanted(index)}


class Node:
    """
    A core with all that it wants done, done at once unless a test holds it up.

    :param write: what its disk begins with; ``None`` for a fresh one.
    """

    def __init__(
        self,
        node_id: str,
        write: Write | None = None,
        *,
        settings: Settings = SETTINGS,
        seed: int = 1,
        core_type: type[Core] = Core,
    ) -> None:
        self.node_id = node_id
        self.disk_id = disk_of(node_id)
        self.disk = Disk()
        self.random = Random(f"{node_id} {seed}")
        self.settings = settings
        self.core_type = core_type
        if write is not None:
            self.disk.carry_out(write)
        self.state: list[Entry] = []
        self.applied = 0
        self.holds_writes = False
        self.holds_applying = False
        self.start()

    def start(self) -> None:
        """Begin with what is durable, after a crash too."""
        self.core = self.core_type(
            node_id=self.node_id,
            disk_id=self.disk_id,
            saved=self.saved(),
            settings=self.settings,
            random=self.random,
        )
        self.writes: deque[Write] = deque()
        self.unapplied: deque[Entry] = deque()
        self.sent: list[tuple[str, Message]] = []
        self.reads: list[SafeRead] = []
        self.failed_reads: list[int] = []
        self.snapshots: list[str] = []
        self.standings: list[Standing] = []
        self.memberships: list[Membership] = []

    def saved(self) -> Saved:
        """What is durable: the log as far as it was written, and the state, which may be ahead of it."""
        saved = self.disk.saved(self.disk.point.index)
        if not self.state:
            return saved
        known = [entry for entry in self.state if entry.kind is EntryKind.MEMBERSHIP]
        last = self.state[-1]
        return with_state(saved, SnapshotMeta(last.index, last.term, decoded(known[-1].data)))

    def run(self) -> list[tuple[str, Message]]:
        """Do everything there is to do; what went out meanwhile."""
        while (ready := self.core.ready()) is not None:
            self._take(ready)
            if not self.holds_writes:
                self.write()
            if not self.holds_applying:
                self.apply()
        sent, self.sent = self.sent, []
        return sent

    def hear(self, node_id: str, message: Message) -> list[tuple[str, Message]]:
        """A message from a node on its own disk; what goes out by it."""
        self.core.step(sender(node_id), message)
        return self.run()

    def tick(self, count: int = 1) -> list[tuple[str, Message]]:
        """Time passes; what goes out by it."""
        sent = []
        for _ in range(count):
            self.core.tick()
            sent.extend(self.run())
        return sent

    def write(self) -> None:
        """Make everything durable that waits for it."""
        while self.writes:
            write = self.writes.popleft()
            self.disk.carry_out(write)
            self.core.persisted(write.number)

    def apply(self) -> None:
        """Apply everything that waits for it."""
        while self.unapplied:
            entry = self.unapplied.popleft()
            assert entry.index == self.applied + 1
            self.state.append(entry)
            self.applied = entry.index
            self.core.applied(entry.index)

    def log(self) -> list[tuple[int, int]]:
        """Index and term of what is durable."""
        return [(entry.index, entry.term) for _, entry in sorted(self.disk.entries.items())]

    def commands(self) -> list[bytes]:
        """What was applied."""
        return [entry.data for entry in self.state if entry.kind is EntryKind.COMMAND]

    def _take(self, ready: Ready) -> None:
        self.sent.extend((outgoing.to, outgoing.message) for outgoing in ready.messages)
        if ready.write is not None:
            self.writes.append(ready.write)
        self.unapplied.extend(ready.committed)
        self.reads.extend(ready.reads)
        self.failed_reads.extend(ready.failed_reads)
        self.snapshots.extend(ready.snapshots)
        if ready.standing is not None:
            self.standings.append(ready.standing)
        if ready.membership is not None:
            self.memberships.append(ready.membership)


def candidate_wins(node: Node, *voters: str) -> None:
    """Let a node lead by the votes of these (and its own)."""
    node.core.campaign()
    node.run()
    for preliminary in (True, False):
        for voter in voters:
            term = node.core.term + 1 if preliminary else node.core.term
            if node.core.role is not Role.LEADER:
                node.hear(voter, VoteResponse(term, True, preliminary))
    assert node.core.role is Role.LEADER


def leader(**limits: int) -> Node:
    """
    Of three, in term 2, with its no-op committed.

    :param limits: settings other than usual.
    """
    node = Node("a", THREE, settings=msgspec.structs.replace(SETTINGS, **limits))
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    return node


class Network:
    """Nodes that hear each other, unless cut off."""

    def __init__(
        self,
        *voters: str,
        learners: Iterable[str] = (),
        fresh: Iterable[str] = (),
        settings: Settings = SETTINGS,
    ) -> None:
        write = first_write(membership(*voters, learners=learners))
        self.nodes = {node: Node(node, write, settings=settings) for node in (*voters, *learners)}
        self.nodes |= {node: Node(node, settings=settings) for node in fresh}
        self.cut: set[tuple[str, str]] = set()
        self.dropped: list[tuple[str, str, Message]] = []
        self.seen: list[tuple[str, str, Message]] = []

    def __getitem__(self, node_id: str) -> Node:
        return self.nodes[node_id]

    @property
    def leader(self) -> Node:
        """The one leader of the newest term."""
        leaders = [node for node in self.nodes.values() if node.core.role is Role.LEADER]
        return max(leaders, key=lambda node: node.core.term)

    def isolate(self, *node_ids: str) -> None:
        """From now on these hear nobody and nobody hears them."""
        for node_id in node_ids:
            self.cut |= {(node_id, other) for other in self.nodes} | {(other, node_id) for other in self.nodes}

    def heal(self) -> None:
        """Everybody hears everybody."""
        self.cut.clear()

    def settle(self) -> None:
        """Deliver messages until nobody has anything to say."""
        while sum(self._deliver(node) for node in self.nodes.values()):
            pass

    def tick(self, count: int = 1, *, only: Iterable[str] | None = None) -> None:
        """Time passes for all, or for some."""
        for _ in range(count):
            for node in self.nodes.values() if only is None else [self.nodes[one] for one in only]:
                node.core.tick()
            self.settle()

    def elect(self, node_id: str) -> Node:
        """Let that node campaign and win."""
        self[node_id].core.campaign()
        self.settle()
        assert self[node_id].core.role is Role.LEADER
        self.tick(SETTINGS.heartbeat_ticks)
        return self[node_id]

    def propose(self, *data: bytes) -> list[Position]:
        """The leader takes commands, and everybody applies them."""
        positions = []
        for one in data:
            position = self.leader.core.propose(one)
            assert isinstance(position, Position)
            positions.append(position)
        self.settle()
        return positions

    def stream_snapshots(self) -> None:
        """Copy the leader's state to those that need it."""
        leader = self.leader
        for to in leader.snapshots:
            meta = leader.core.snapshot_meta(leader.applied)
            node = self[to]
            if node.core.begin_installation(meta):
                node.state, node.applied = list(leader.state), meta.index
                node.core.snapshot_installed(meta)
            leader.core.snapshot_sent(to, meta.index)
        leader.snapshots = []
        self.settle()

    def _deliver(self, node: Node) -> bool:
        sent = node.run()
        for to, message in sent:
            wire = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)
            self.seen.append((node.node_id, to, wire))
            if (node.node_id, to) in self.cut or to not in self.nodes:
                self.dropped.append((node.node_id, to, wire))
            else:
                self.nodes[to].core.step(Sender(node.node_id, node.disk_id), wire)
        return bool(sent)
