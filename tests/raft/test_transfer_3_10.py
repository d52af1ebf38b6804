"""Leadership transfer (thesis 3.10)."""

from __future__ import annotations

from callfs.raft.boundary import Position, Refusal, Role, first_write
from callfs.raft.messages import AppendResponse, HeartbeatResponse, TimeoutNow, VoteRequest
from tests.raft.cores import SETTINGS, Network, Node, candidate_wins, membership

THREE = first_write(membership("a", "b", "c", learners=["d"]))


def leader() -> Node:
    """Of three with a learner, in term 2; b has the whole log."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    return node


def test_one_that_is_up_to_date_is_told_at_once() -> None:
    """It campaigns without waiting, and without a rehearsal: the leader itself wishes it."""
    node = leader()
    assert node.core.transfer_leadership("b") is None
    assert ("b", TimeoutNow(2)) in node.run()
    heir = Node("b", THREE)
    heir.hear("a", TimeoutNow(2))
    assert (heir.core.role, heir.core.term) == (Role.CANDIDATE, 3)


def test_one_that_lacks_entries_gets_them_first() -> None:
    """And the word when it has them."""
    node = leader()
    assert node.core.transfer_leadership("c") is None
    assert not [sent for _, sent in node.run() if isinstance(sent, TimeoutNow)]
    assert ("c", TimeoutNow(2)) in node.hear("c", AppendResponse(2, 2))


def test_a_lost_word_is_repeated() -> None:
    """With the next answer to a heartbeat."""
    node = leader()
    node.core.transfer_leadership("b")
    node.run()
    assert ("b", TimeoutNow(2)) in node.hear("b", HeartbeatResponse(2, 1))


def test_no_proposals_meanwhile() -> None:
    """Else the heir might never be up to date."""
    node = leader()
    node.core.transfer_leadership("c")
    assert node.core.propose(b"x") is Refusal.TRANSFERRING
    assert node.core.status().transferring_to == "c"


def test_it_is_given_up_after_an_election_timeout() -> None:
    """Then the old leader goes on."""
    node = leader()
    node.core.transfer_leadership("c")
    for _ in range(SETTINGS.election_ticks):
        assert node.core.propose(b"x") is Refusal.TRANSFERRING
        node.hear("b", HeartbeatResponse(2, 1))
        node.tick()
    assert isinstance(node.core.propose(b"x"), Position)


def test_a_wished_for_candidate_is_not_held_off_by_the_lease() -> None:
    """Voters that hear the leader vote all the same."""
    network = Network("a", "b", "c")
    network.elect("a")
    assert network.leader.core.transfer_leadership("c") is None
    network.settle()
    assert network.leader.node_id == "c"
    assert any(isinstance(sent, VoteRequest) and sent.forced for _, _, sent in network.seen)


def test_the_furthest_is_chosen() -> None:
    """When nobody is named."""
    node = leader()
    assert node.core.transfer_leadership(None) is None
    assert ("b", TimeoutNow(2)) in node.run()


def test_refusals() -> None:
    """Who doesn't lead, whom nobody knows, who doesn't vote, who isn't heard, and nobody at all."""
    assert Node("b", THREE).core.transfer_leadership("a") is Refusal.NOT_LEADER
    node = leader()
    assert node.core.transfer_leadership("x") is Refusal.UNKNOWN_MEMBER
    assert node.core.transfer_leadership("d") is Refusal.NOT_A_VOTER
    for _ in range(SETTINGS.election_ticks):
        node.hear("b", HeartbeatResponse(2, 1))
        node.tick()
    assert node.core.transfer_leadership("c") is Refusal.UNREACHABLE
    alone = Node("a", first_write(membership("a")))
    alone.core.campaign()
    alone.run()
    assert alone.core.transfer_leadership(None) is Refusal.UNREACHABLE


def test_to_itself_is_done_already() -> None:
    """Nothing is held up by it."""
    node = leader()
    assert node.core.transfer_leadership("a") is None
    assert isinstance(node.core.propose(b"x"), Position)


def test_a_learner_does_not_take_over() -> None:
    """Whoever says so."""
    node = Node("d", THREE)
    node.hear("a", TimeoutNow(1))
    assert node.core.role is Role.FOLLOWER
