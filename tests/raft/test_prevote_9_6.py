"""PreVote (thesis 9.6): a node that can't win disturbs nobody."""

from __future__ import annotations

from callfs.raft.boundary import Role
from callfs.raft.core import Core
from callfs.raft.election import Election
from callfs.raft.messages import Heartbeat, VoteRequest, VoteResponse
from tests.raft.cores import SETTINGS, THREE, Network, Node, sender


def test_a_rehearsal_changes_no_term() -> None:
    """A candidate increments its term only after it has learned that a majority would vote for it."""
    node = Node("a", THREE)
    node.core.campaign()
    assert node.run() == [("b", VoteRequest(2, 1, 1, True, False)), ("c", VoteRequest(2, 1, 1, True, False))]
    assert (node.core.role, node.core.term) == (Role.PRE_CANDIDATE, 1)
    node.tick(20 * SETTINGS.election_ticks)
    assert node.core.term == 1


def test_answering_a_rehearsal_changes_nothing() -> None:
    """Neither the term nor the vote; so any number of candidates hear yes."""
    node = Node("a", THREE)
    request = VoteRequest(7, 1, 1, True, False)
    assert node.hear("b", request) == [("b", VoteResponse(7, True, True))]
    assert node.hear("c", request) == [("c", VoteResponse(7, True, True))]
    assert (node.core.term, node.disk.hard_state.vote) == (1, None)


def test_who_hears_a_leader_grants_no_rehearsal() -> None:
    """Only after a baseline election timeout without a leader."""
    node = Node("a", THREE)
    node.hear("b", Heartbeat(2, 1, 0))
    assert node.hear("c", VoteRequest(3, 9, 2, True, False)) == []
    node.tick(SETTINGS.election_ticks - 1)
    assert node.hear("c", VoteRequest(3, 9, 2, True, False)) == []


def test_an_answer_to_an_older_rehearsal_does_not_count() -> None:
    """A yes for another term than the one that is rehearsed says nothing."""
    node = Node("a", THREE)
    node.core.campaign()
    node.run()
    node.hear("b", VoteResponse(9, True, True))
    assert (node.core.role, node.core.term) == (Role.PRE_CANDIDATE, 1)


def test_a_vote_is_no_answer_to_a_rehearsal() -> None:
    """Nor a rehearsal's yes a vote."""
    node = Node("a", THREE)
    node.core.campaign()
    node.run()
    node.hear("b", VoteResponse(1, True, False))
    assert node.core.role is Role.PRE_CANDIDATE
    node.hear("b", VoteResponse(2, True, True))
    assert node.core.role is Role.CANDIDATE
    node.hear("c", VoteResponse(2, False, True))
    node.hear("b", VoteResponse(2, False, True))
    assert node.core.role is Role.CANDIDATE


def back_from_a_partition(core_type: type[Core]) -> Network:
    """A cluster whose node c was cut off for long and is heard again."""
    network = Network("a", "b", "c")
    network.nodes["c"] = Node("c", THREE, core_type=core_type)
    network.elect("a")
    network.isolate("c")
    network.tick(10 * SETTINGS.election_ticks)
    network.heal()
    network.tick(5 * SETTINGS.election_ticks)
    return network


def test_a_node_back_from_a_partition_deposes_nobody() -> None:
    """The leader leads on, in its term."""
    network = back_from_a_partition(Core)
    assert [(node.core.leader, node.core.term) for node in network.nodes.values()] == [("a", 2)] * 3


def test_without_rehearsals_it_would() -> None:
    """The rule is what keeps the leader: with it broken, the term moves on."""

    class Hasty(Election):
        def rehearses(self) -> bool:
            return False

    class Broken(Core):
        election_type = Hasty

    assert back_from_a_partition(Broken).leader.core.term > 2


def test_a_node_with_a_newer_term_is_not_stuck() -> None:
    """A leader that a node with a newer term can't hear is told that term, so that both come together again."""
    network = Network("a", "b", "c")
    network.elect("a")
    network["c"].core.step(sender("b"), VoteRequest(9, 9, 9, False, True))
    network.tick(8 * SETTINGS.election_ticks)
    assert {node.core.leader for node in network.nodes.values()} == {network.leader.node_id}
    assert network.leader.core.term >= 9
