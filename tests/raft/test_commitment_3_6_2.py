"""What is committed (thesis 3.6.2, 10.2.1)."""

from __future__ import annotations

from callfs.raft.boundary import Role, Write, first_write
from callfs.raft.core import Core
from callfs.raft.messages import Append, AppendResponse
from callfs.raft.replication import Replication
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins, entries, membership

FIVE = first_write(membership("a", "b", "c", "d", "e"))


class CountingOldTerms(Replication):
    """Breaks the rule of 3.6.2."""

    def may_commit(self, index: int) -> bool:
        return True


class CountingUnsynced(Replication):
    """Breaks the rule of 10.2.1."""

    def own_match(self) -> int:
        return self._replica.log.last_index


class OldTermsCore(Core):
    """A core that commits entries of old terms by counting."""

    replication_type = CountingOldTerms


class UnsyncedCore(Core):
    """A core that counts what its own disk doesn't have."""

    replication_type = CountingUnsynced


def leader_with_an_old_entry(core_type: type[Core] = Core) -> Node:
    """Figure 3.7 (c): a leads term 4 with an entry of term 2 at index 2 that b and c have."""
    node = Node("a", FIVE, core_type=core_type)
    node.hear("b", Append(3, 1, 1, 1, entries(2)))
    node.tick(2 * SETTINGS.election_ticks)
    candidate_wins(node, "b", "c")
    assert node.core.term == 4
    for peer in ("b", "c"):
        node.hear(peer, AppendResponse(4, 2))
    return node


def test_old_terms_are_not_committed_by_counting() -> None:
    """A majority that has an entry of an older term doesn't commit it: it may yet be replaced (figure 3.7 d)."""
    assert leader_with_an_old_entry().core.commit_index == 1


def test_they_are_committed_with_one_of_the_own_term() -> None:
    """Once an entry of the leader's term is committed all before it are (figure 3.7 e)."""
    node = leader_with_an_old_entry()
    for peer in ("b", "c"):
        node.hear(peer, AppendResponse(4, 3))
    assert node.core.commit_index == 3


def test_the_seam_breaks_exactly_that() -> None:
    """A core with the rule broken from outside commits too early."""
    assert leader_with_an_old_entry(OldTermsCore).core.commit_index == 2


def leader_with_a_slow_disk(core_type: type[Core] = Core) -> Node:
    """Of three; its last entry (3) isn't durable here, and b has it."""
    node = Node("a", THREE, core_type=core_type)
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    node.holds_writes = True
    node.core.propose(b"x")
    node.run()
    node.hear("b", AppendResponse(2, 3))
    return node


def test_a_leader_counts_itself_once_durable() -> None:
    """One follower and a leader that could forget the entry are no majority."""
    node = leader_with_a_slow_disk()
    assert node.core.commit_index == 2
    node.write()
    assert node.core.commit_index == 3


def test_the_other_seam_breaks_exactly_that() -> None:
    """A core that counts its own unwritten entries commits too early."""
    assert leader_with_a_slow_disk(UnsyncedCore).core.commit_index == 3


def test_a_majority_without_the_leader_is_one() -> None:
    """It may even commit entries before they are written to its own disk (10.2.1)."""
    node = leader_with_a_slow_disk()
    node.hear("c", AppendResponse(2, 3))
    assert node.core.commit_index == 3


def test_but_nothing_is_applied_before_it_is_durable_here() -> None:
    """So that no state is ahead of its own node's log after a crash."""
    node = leader_with_a_slow_disk()
    node.hear("c", AppendResponse(2, 3))
    assert node.applied == 2
    node.write()
    node.run()
    assert node.applied == 3


def test_a_replaced_entry_is_not_durable_though_its_write_is() -> None:
    """
    A write that was under way when its entries were replaced says nothing of those that came instead; and nobody is
    told of those that went, though they were durable for a moment.
    """
    node = Node("b", THREE)
    node.holds_writes = True
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2)))
    node.hear("c", Append(3, 1, 1, 1, entries(3)))
    first, second = node.writes
    assert [entry.term for entry in second.entries] == [3]
    node.writes.clear()
    node.disk.carry_out(first)
    node.core.persisted(first.number)
    assert node.core.status().durable == 1
    assert node.run() == []
    node.disk.carry_out(second)
    node.core.persisted(second.number)
    assert node.core.status().durable == 2
    assert node.run() == [("c", AppendResponse(3, 2))]


def test_writes_are_reported_in_one_go() -> None:
    """Several writes of one transaction are durable together."""
    node = leader_with_a_slow_disk()
    node.core.propose(b"y")
    node.run()
    newest: Write = node.writes[-1]
    node.core.persisted(newest.number)
    assert node.core.status().durable == 4


def test_an_acknowledged_entry_survives_the_leader() -> None:
    """What was committed is in the log of every later leader (3.6.3)."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.isolate("c")
    network.propose(b"1", b"2")
    network.heal()
    network.isolate("a")
    network.tick(10 * SETTINGS.election_ticks)
    assert network.leader.node_id == "b"
    network.settle()
    assert network["c"].commands() == [b"1", b"2"]


def test_an_unacknowledged_entry_may_be_replaced() -> None:
    """A leader cut off commits nothing; back again it takes the others' log, and nobody applied its entries."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.isolate("a")
    network["a"].core.propose(b"lost")
    network.tick(10 * SETTINGS.election_ticks)
    network.propose(b"kept")
    network.heal()
    network.tick(10 * SETTINGS.election_ticks)
    assert [node.commands() for node in network.nodes.values()] == [[b"kept"]] * 3
    assert network["a"].core.role is Role.FOLLOWER
