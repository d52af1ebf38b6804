"""Leader election (thesis 3.4, 3.6.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.raft.boundary import Role, first_write
from callfs.raft.messages import Append, EntryKind, Heartbeat, VoteRequest, VoteResponse
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins, command, entries, membership


def follower_with(*terms: int) -> Node:
    """A follower in the last of these terms, which its log has entries of after the first; no leader is heard."""
    node = Node("a", THREE)
    node.hear("b", Append(terms[-1], 1, 1, 1, entries(*terms)))
    node.tick(2 * SETTINGS.election_ticks)
    node.hear("b", VoteResponse(terms[-1], False, True))
    node.hear("c", VoteResponse(terms[-1], False, True))
    assert node.core.role is Role.FOLLOWER
    return node


def test_a_node_begins_as_a_follower() -> None:
    """When servers start up, they begin as followers."""
    assert Node("a", THREE).core.role is Role.FOLLOWER


def test_a_heartbeat_keeps_a_follower() -> None:
    """A server remains in follower state as long as it receives valid messages from a leader."""
    node = Node("a", THREE)
    for _ in range(10):
        node.hear("b", Heartbeat(2, 1, 1))
        node.tick(SETTINGS.election_ticks - 1)
    assert (node.core.role, node.core.leader) == (Role.FOLLOWER, "b")


@given(seed=st.integers(0, 10_000))
def test_timeouts_are_random_within_bounds(seed: int) -> None:
    """A silent leader is missed after one election timeout at the least and two at the most."""
    node = Node("a", THREE, seed=seed)
    node.tick(SETTINGS.election_ticks - 1)
    assert node.core.role is Role.FOLLOWER
    node.tick(SETTINGS.election_ticks)
    assert node.core.role is Role.PRE_CANDIDATE


def test_timeouts_differ() -> None:
    """Nodes are given different timeouts, so that split votes are rare."""
    waited = set()
    for seed in range(40):
        node = Node("a", THREE, seed=seed)
        ticks = 0
        while node.core.role is Role.FOLLOWER:
            node.tick()
            ticks += 1
        waited.add(ticks)
    assert len(waited) > SETTINGS.election_ticks // 2


def test_a_candidate_that_wins_leads() -> None:
    """With a majority's votes it becomes leader, and puts an entry of its own term into the log (6.4)."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    assert (node.core.leader, node.core.term) == ("a", 2)
    assert node.disk.entries[2].kind is EntryKind.NOOP


def test_a_candidate_that_loses_follows() -> None:
    """With a majority's refusals it is a follower again."""
    node = Node("a", THREE)
    node.core.campaign()
    node.run()
    node.hear("b", VoteResponse(2, True, True))
    assert node.core.role is Role.CANDIDATE
    node.hear("b", VoteResponse(2, False, False))
    node.hear("c", VoteResponse(2, False, False))
    assert (node.core.role, node.core.term) == (Role.FOLLOWER, 2)


def test_a_candidate_without_answers_tries_again() -> None:
    """After another timeout it starts a new election."""
    node = Node("a", THREE)
    node.core.campaign()
    node.run()
    node.hear("b", VoteResponse(2, True, True))
    node.tick(2 * SETTINGS.election_ticks)
    node.hear("b", VoteResponse(3, True, True))
    assert (node.core.role, node.core.term) == (Role.CANDIDATE, 3)


def test_a_candidate_yields_to_a_leader() -> None:
    """A leader of the same term is recognised as legitimate."""
    node = Node("a", THREE)
    node.core.campaign()
    node.run()
    node.hear("b", VoteResponse(2, True, True))
    node.hear("c", Append(2, 1, 1, 1, ()))
    assert (node.core.role, node.core.leader) == (Role.FOLLOWER, "c")


def test_one_vote_for_a_term() -> None:
    """Each server votes for at most one candidate in a term, first come first served, and repeats it if asked."""
    node = follower_with(2)
    request = VoteRequest(5, 2, 2, False, False)
    assert node.hear("b", request) == [("b", VoteResponse(5, True, False))]
    assert node.hear("c", request) == [("c", VoteResponse(5, False, False))]
    assert node.hear("b", request) == [("b", VoteResponse(5, True, False))]


def test_a_vote_survives_a_restart() -> None:
    """Who has voted and forgets it in a crash could vote twice: the vote is on disk before it is given."""
    node = follower_with(2)
    node.hear("b", VoteRequest(5, 2, 2, False, False))
    node.start()
    assert node.core.term == 5
    assert node.hear("c", VoteRequest(5, 9, 4, False, False)) == [("c", VoteResponse(5, False, False))]


@pytest.mark.parametrize("preliminary", [False, True])
@pytest.mark.parametrize(
    ("own", "last_index", "last_term", "granted"),
    [
        ((2, 2), 3, 2, True),
        ((2, 2), 4, 2, True),
        ((2, 2), 2, 3, True),
        ((2, 2), 1, 4, True),
        ((2, 2), 2, 2, False),
        ((2, 3), 9, 2, False),
        ((2, 3), 2, 3, False),
    ],
)
def test_only_an_up_to_date_log_gets_a_vote(
    own: tuple[int, ...], last_index: int, last_term: int, granted: bool, preliminary: bool
) -> None:
    """The voter denies its vote if its own log is more up-to-date: a later term, or longer (3.6.1)."""
    node = follower_with(*own)
    answers = node.hear("c", VoteRequest(9, last_index, last_term, preliminary, False))
    assert [answer.granted for _, answer in answers if isinstance(answer, VoteResponse)] == [granted]


def test_votes_wait_for_the_disk() -> None:
    """No vote goes out before the term and the vote are durable."""
    node = follower_with(2)
    node.holds_writes = True
    assert node.hear("b", VoteRequest(5, 2, 2, False, False)) == []
    node.write()
    assert node.run() == [("b", VoteResponse(5, True, False))]


def test_a_candidate_asks_once_its_own_vote_is_durable() -> None:
    """Requests for votes promise that the candidate stands once in its term: they wait for the disk, too."""
    node = Node("a", THREE)
    node.holds_writes = True
    node.core.campaign()
    node.run()
    assert node.hear("b", VoteResponse(2, True, True)) == []
    node.write()
    assert {to for to, message in node.run() if message == VoteRequest(2, 1, 1, False, False)} == {"b", "c"}


def test_a_candidate_counts_its_own_vote_once_durable() -> None:
    """A cluster of one isn't led before the disk has the vote."""
    node = Node("a", first_write(membership("a")))
    node.holds_writes = True
    node.core.campaign()
    node.run()
    assert node.core.role is Role.CANDIDATE
    node.write()
    assert node.core.role is Role.LEADER


def test_a_fresh_node_votes_but_never_campaigns() -> None:
    """A node without a membership may be needed for a majority (4.2.2), but isn't told to lead anything."""
    node = Node("a")
    assert node.tick(20 * SETTINGS.election_ticks) == []
    assert (node.core.role, node.core.term) == (Role.FOLLOWER, 0)
    assert node.hear("b", VoteRequest(2, 1, 1, False, False)) == [("b", VoteResponse(2, True, False))]
    node.core.campaign()
    assert node.core.role is Role.FOLLOWER


def test_a_learner_never_campaigns() -> None:
    """It has no vote of its own."""
    node = Node("a", first_write(membership("b", "c", learners=["a"])))
    node.tick(20 * SETTINGS.election_ticks)
    assert node.core.role is Role.FOLLOWER


def test_three_nodes_find_a_leader() -> None:
    """Left alone, a cluster elects one leader whom all know."""
    network = Network("a", "b", "c")
    network.tick(10 * SETTINGS.election_ticks)
    assert {node.core.leader for node in network.nodes.values()} == {network.leader.node_id}
    assert sum(node.core.role is Role.LEADER for node in network.nodes.values()) == 1


def test_a_lost_leader_is_replaced() -> None:
    """When the leader is gone the others elect another, which has all that was committed."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.propose(b"1")
    network.isolate("a")
    network.tick(10 * SETTINGS.election_ticks)
    assert network.leader.node_id in "bc"
    network.propose(b"2")
    assert network.leader.commands() == [b"1", b"2"]


def test_a_leader_ignores_entries_of_its_own_term() -> None:
    """Nobody else leads its term, so nothing in it can be right."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    assert node.hear("b", Append(2, 2, 2, 2, (command(3, 2),))) == []
    assert node.core.last_index == 2
