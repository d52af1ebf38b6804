"""CheckQuorum (thesis 6.2, 4.2.3): who no majority answers doesn't lead, and a leader that is heard stays."""

from __future__ import annotations

from callfs.raft.boundary import Refusal, Role, first_write
from callfs.raft.messages import HeartbeatResponse, VoteRequest
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins, membership


def leader() -> Node:
    """Of three, in term 2."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    return node


def test_a_leader_without_a_majority_steps_down_within_an_election_timeout() -> None:
    """Else clients would wait for a leader that can commit nothing."""
    node = leader()
    node.tick(SETTINGS.election_ticks - 1)
    assert node.core.role is Role.LEADER
    node.tick()
    assert (node.core.role, node.core.leader, node.core.term) == (Role.FOLLOWER, None, 2)
    assert node.core.propose(b"x") is Refusal.NOT_LEADER


def test_its_waiting_reads_fail() -> None:
    """Whoever waits is told, and may ask another."""
    node = leader()
    node.core.read(7)
    node.tick(SETTINGS.election_ticks)
    assert node.failed_reads == [7]


def test_a_majority_that_answers_keeps_it() -> None:
    """Itself and one of two is enough."""
    node = leader()
    for _ in range(10):
        node.tick(SETTINGS.election_ticks - 1)
        node.hear("c", HeartbeatResponse(2, 1))
    assert node.core.role is Role.LEADER


def test_an_answer_in_an_older_term_is_none() -> None:
    """What was said before it led says nothing of now."""
    node = leader()
    for _ in range(SETTINGS.election_ticks):
        node.hear("b", HeartbeatResponse(1, 1))
        node.tick()
    assert node.core.role is Role.FOLLOWER


def test_a_lone_voter_leads_on() -> None:
    """It is its own majority."""
    node = Node("a", first_write(membership("a")))
    node.core.campaign()
    node.tick(20 * SETTINGS.election_ticks)
    assert node.core.role is Role.LEADER


def test_a_leader_ignores_requests_for_votes() -> None:
    """While it is heard, a newer term doesn't depose it (4.2.3)."""
    node = leader()
    assert node.hear("c", VoteRequest(9, 9, 9, False, False)) == []
    assert (node.core.role, node.core.term) == (Role.LEADER, 2)


def test_one_way_deafness_deposes_nobody() -> None:
    """A node that hears nobody, but is heard, can't take the leadership; nor raise the term."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.cut = {("a", "c"), ("b", "c")}
    network.tick(10 * SETTINGS.election_ticks)
    assert (network["a"].core.role, network["a"].core.term) == (Role.LEADER, 2)


def test_a_leader_that_nobody_hears_steps_down() -> None:
    """A leader that hears, but isn't heard, gets no answers; the others find another."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.cut = {("a", "b"), ("a", "c")}
    network.tick(10 * SETTINGS.election_ticks)
    assert network["a"].core.role is not Role.LEADER
    assert network.leader.node_id in "bc"
