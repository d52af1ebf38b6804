"""A seeded storm over a few cores: what can happen happens at random, and the safety rules are checked."""

from __future__ import annotations

from random import Random

import msgspec

from callfs.raft.boundary import Role, Settings, first_write
from callfs.raft.core import Core
from callfs.raft.membership import AddLearner, RemoveMember
from callfs.raft.messages import Entry, Message, Sender
from tests.raft.cores import Node, member, membership

STORM = Settings(
    election_ticks=6,
    heartbeat_ticks=2,
    max_inflight=4,
    max_batch_bytes=200,
    max_apply_bytes=150,
    keep_entries=3,
    promotion_lag=3,
)


class Storm:
    """
    :param seed: chooses everything.
    :param core_type: a core, or one with a rule broken.
    """

    def __init__(self, seed: int, *, core_type: type[Core] = Core) -> None:
        self.random = Random(seed)
        write = first_write(membership("a", "b", "c"))
        self.nodes = {
            node_id: Node(
                node_id, write if node_id in "abc" else None, settings=STORM, seed=seed, core_type=core_type
            )
            for node_id in "abcde"
        }
        self.wire: list[tuple[str, str, bytes]] = []
        self.trace: list[bytes] = []
        self.truth: dict[int, Entry] = {}
        self.leaders: dict[int, str] = {}
        self.cut: set[str] = set()
        self.loses = 0.03
        self.count = 0
        self.read_floor: dict[int, int] = {}
        self.served = 0

    def run(self, steps: int) -> None:
        """So many random things."""
        for _ in range(steps):
            self.step()

    def calm(self) -> None:
        """No more faults, until all agree."""
        self.cut.clear()
        self.loses = 0.0
        for node in self.nodes.values():
            node.core.set_writable(True)
        for _ in range(300):
            for node in self.nodes.values():
                node.core.tick()
                self._finish(node)
            for _ in range(len(self.wire)):
                self._deliver(0)
            for node in self.nodes.values():
                self._finish(node)
            self._stream()
        self._check()

    def step(self) -> None:
        """One random thing."""
        random = self.random
        node = self.nodes[random.choice("abcde")]
        match random.randrange(60):
            case 0 | 1 | 2:
                node.core.tick()
            case 6 | 7 | 8:
                for one in self.nodes.values():
                    one.core.tick()
            case 9 | 10 | 11 | 12:
                self._propose()
            case 13:
                if random.random() < 0.15:
                    self._crash(node)
            case 14:
                if random.random() < 0.15:
                    self.cut = set(random.sample("abcde", random.randrange(3)))
            case 15:
                node.core.compact(node.applied)
            case 16:
                self._change()
            case 17:
                if random.random() < 0.2:
                    node.core.transfer_leadership(None)
            case 18 | 19:
                self._read(node)
            case 20:
                if random.random() < 0.3:
                    node.core.set_writable(random.random() < 0.9)
            case 21 | 22 | 23 | 24 | 25 | 28 | 29 | 30 | 31 | 32:
                for one in self.nodes.values():
                    if random.random() < 0.5:
                        self._step_disk(one)
            case 26 | 27:
                self._stream()
            case _:
                for _ in range(min(len(self.wire), 12)):
                    self._deliver(random.randrange(min(len(self.wire), 4)))
        for one in self.nodes.values():
            self._collect(one)
        self._check()

    def _propose(self) -> None:
        for node in self.nodes.values():
            if node.core.role is Role.LEADER:
                for _ in range(self.random.randrange(1, 4)):
                    self.count += 1
                    node.core.propose(f"{self.count}".encode() * self.random.randrange(1, 20))

    def _change(self) -> None:
        node_id = self.random.choice("abcde")
        for node in self.nodes.values():
            if node.core.role is Role.LEADER:
                if self.random.random() < 0.5:
                    node.core.propose_membership(AddLearner(member(node_id)))
                elif len(node.core.membership.voters) > 2:
                    node.core.propose_membership(RemoveMember(node_id))

    def _crash(self, node: Node) -> None:
        for _ in range(self.random.randrange(len(node.writes) + 1)):
            node.disk.carry_out(node.writes.popleft())
        node.start()

    def _read(self, node: Node) -> None:
        self.count += 1
        self.read_floor[self.count] = max(one.core.commit_index for one in self.nodes.values())
        node.core.read(self.count)

    def _step_disk(self, node: Node) -> None:
        if node.writes:
            write = node.writes.popleft()
            node.disk.carry_out(write)
            node.core.persisted(write.number)
        for _ in range(self.random.randrange(4)):
            if node.unapplied:
                self._apply_one(node)

    def _apply_one(self, node: Node) -> None:
        entry = node.unapplied.popleft()
        assert entry.index == node.applied + 1
        assert entry.index in node.disk.entries
        node.state.append(entry)
        node.applied = entry.index
        node.core.applied(entry.index)

    def _finish(self, node: Node) -> None:
        self._collect(node)
        while node.writes or node.unapplied:
            node.write()
            while node.unapplied:
                self._apply_one(node)
            self._collect(node)

    def _stream(self) -> None:
        for leader in self.nodes.values():
            for to in leader.snapshots:
                node = self.nodes[to]
                if leader.core.role is not Role.LEADER or self.cut & {to, leader.node_id} or node.unapplied:
                    leader.core.snapshot_failed(to)
                    continue
                meta = leader.core.snapshot_meta(leader.applied)
                if node.core.begin_installation(meta):
                    node.state, node.applied = list(leader.state), meta.index
                    node.core.snapshot_installed(meta)
                leader.core.snapshot_sent(to, meta.index)
            leader.snapshots.clear()

    def _collect(self, node: Node) -> None:
        while (ready := node.core.ready()) is not None:
            self.trace.append(msgspec.msgpack.encode((node.node_id, msgspec.to_builtins(ready))))
            node._take(ready)
        for to, message in node.sent:
            copies = 2 if self.random.random() < 0.05 else 1
            self.wire.extend([(node.node_id, to, msgspec.msgpack.encode(message))] * copies)
        node.sent.clear()
        for read in node.reads:
            assert node.applied >= self.read_floor[read.token], "a stale read"
            self.served += 1
        node.reads.clear()

    def _deliver(self, position: int) -> None:
        node_id, to, wire = self.wire.pop(position)
        if to in self.nodes and not self.cut & {node_id, to} and self.random.random() >= self.loses:
            source = self.nodes[node_id]
            self.nodes[to].core.step(Sender(node_id, source.disk_id), msgspec.msgpack.decode(wire, type=Message))

    def _check(self) -> None:
        for node in self.nodes.values():
            if node.core.role is Role.LEADER:
                assert self.leaders.setdefault(node.core.term, node.node_id) == node.node_id, (
                    "two leaders in a term"
                )
            assert node.core.status().refused_conflicts == 0
            for entry in node.state[-10:]:
                assert self.truth.setdefault(entry.index, entry) == entry, "states differ"
