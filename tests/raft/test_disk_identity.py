"""A voter that comes back with another disk has forgotten its votes: it neither votes nor counts."""

from __future__ import annotations

import copy

from callfs.raft.boundary import Position, Refusal, Role
from callfs.raft.membership import AddLearner, Member, RemoveMember, UpdateMember
from callfs.raft.messages import (
    AppendResponse,
    HeartbeatResponse,
    Sender,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins

WIPED = Sender("b", "another")


def leader() -> Node:
    """Of three, in term 2, elected by c."""
    node = Node("a", THREE)
    candidate_wins(node, "c")
    return node


def wiped_network() -> Network:
    """Three nodes of which c has lost its disk; a leads."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.propose(b"1")
    network.nodes["c"] = Node("c")
    network["c"].disk_id = "another"
    network["c"].start()
    return network


def test_its_vote_does_not_count() -> None:
    """Neither in a rehearsal nor in an election."""
    node = Node("a", THREE)
    node.core.campaign()
    node.run()
    node.core.step(WIPED, VoteResponse(2, True, True))
    assert node.core.role is Role.PRE_CANDIDATE
    node.hear("c", VoteResponse(2, True, True))
    node.core.step(WIPED, VoteResponse(2, True, False))
    assert node.core.role is Role.CANDIDATE


def test_its_acknowledgement_does_not_count() -> None:
    """The leader says so in its status."""
    node = leader()
    node.core.step(WIPED, AppendResponse(2, 2))
    assert node.core.commit_index == 1
    assert [peer.other_disk for peer in node.core.status().peers] == [True, False]


def test_its_answers_keep_no_leader() -> None:
    """Nor confirm its reads."""
    node = leader()
    node.hear("c", AppendResponse(2, 2))
    node.core.read(7)
    node.run()
    for _ in range(SETTINGS.election_ticks):
        node.core.step(WIPED, HeartbeatResponse(2, 2))
        node.tick()
    assert node.core.role is Role.FOLLOWER
    assert node.reads == []


def test_it_does_not_inherit() -> None:
    """Leadership isn't handed to it."""
    node = leader()
    node.core.step(WIPED, HeartbeatResponse(2, 1))
    assert node.core.transfer_leadership("b") is Refusal.UNREACHABLE


def test_it_refuses_by_itself_once_it_knows() -> None:
    """A node that finds another disk under its name in the membership neither votes nor campaigns."""
    node = Node("b", THREE)
    node.disk_id = "another"
    node.start()
    assert node.tick(20 * SETTINGS.election_ticks) == []
    node.hear("a", TimeoutNow(1))
    assert node.core.role is Role.FOLLOWER
    assert node.hear("a", VoteRequest(5, 9, 5, False, False)) == [("a", VoteResponse(5, False, False))]


def test_two_nodes_and_a_wiped_one_elect_nobody_without_each_other() -> None:
    """The wiped one can't make a majority with one that lacks what was committed."""
    network = wiped_network()
    network.isolate("a")
    network.tick(20 * SETTINGS.election_ticks)
    assert network["b"].core.role is not Role.LEADER
    assert network["c"].core.role is Role.FOLLOWER


def test_it_comes_back_by_leaving_and_joining() -> None:
    """Joining alone is refused; after a removal it is a learner, then a voter, with its new disk."""
    network = wiped_network()
    network.tick(4 * SETTINGS.heartbeat_ticks)
    newcomer = Member("c", "another", "c:7000", "https://c", True)
    assert network.leader.core.propose_membership(AddLearner(newcomer)) is Refusal.OTHER_DISK
    assert isinstance(network.leader.core.propose_membership(RemoveMember("c")), Position)
    network.tick(4 * SETTINGS.heartbeat_ticks)
    assert isinstance(network.leader.core.propose_membership(AddLearner(newcomer)), Position)
    network.tick(6 * SETTINGS.heartbeat_ticks)
    assert network.leader.core.membership.get("c") == newcomer
    assert network["c"].commands() == [b"1"]
    network.isolate("b")
    network.propose(b"2")
    assert network["c"].commands() == [b"1", b"2"]


def test_a_word_from_the_old_disk_is_forgiven() -> None:
    """A late message from it doesn't shut the new one out."""
    node = leader()
    node.core.step(WIPED, HeartbeatResponse(2, 1))
    node.hear("b", AppendResponse(2, 2))
    assert node.core.commit_index == 2
    assert [peer.other_disk for peer in node.core.status().peers] == [False, False]


def test_a_disk_that_was_set_back_is_noticed() -> None:
    """It is the same disk by its id, and lacks what it acknowledged: the leader takes nothing of it any more."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.propose(b"1")
    backup = copy.deepcopy(network["c"].disk), list(network["c"].state), network["c"].applied
    for number in range(5):
        network.propose(b"%d" % number)
    assert [peer.other_disk for peer in network.leader.core.status().peers] == [False, False]
    restored = network["c"]
    restored.disk, restored.state, restored.applied = backup
    restored.start()
    for _ in range(2):
        network.tick(10 * SETTINGS.heartbeat_ticks)
        assert [peer.other_disk for peer in network.leader.core.status().peers] == [False, True]
        network.propose(b"further")
    assert restored.core.last_index < network.leader.core.commit_index


def test_a_disk_that_was_set_back_stays_refused() -> None:
    """Also by a later leader, who knows nothing of what it acknowledged: until it was removed and joined again."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.propose(b"1")
    backup = copy.deepcopy(network["c"].disk), list(network["c"].state), network["c"].applied
    for number in range(5):
        network.propose(b"%d" % number)
    restored = network["c"]
    restored.disk, restored.state, restored.applied = backup
    restored.start()
    network.tick(20 * SETTINGS.heartbeat_ticks)
    assert network.leader.core.transfer_leadership("b") is None
    network.tick(4 * SETTINGS.heartbeat_ticks)
    assert network.leader is network["b"]
    network.propose(b"under another")
    network.tick(4 * SETTINGS.heartbeat_ticks)
    assert [(peer.node_id, peer.other_disk) for peer in network.leader.core.status().peers] == [
        ("a", False),
        ("c", True),
    ]
    assert restored.core.last_index < network.leader.core.commit_index
    known = Member("c", restored.disk_id, "c:7000", "https://c", True)
    assert network.leader.core.propose_membership(AddLearner(known)) is Refusal.OTHER_DISK
    address = UpdateMember("c", restored.disk_id, raft_address="c:7001")
    assert network.leader.core.propose_membership(address) is Refusal.OTHER_DISK
    network.isolate("a")
    network.tick(20 * SETTINGS.election_ticks)
    assert network["b"].core.role is not Role.LEADER
    assert restored.core.role is not Role.LEADER
    network.heal()
    network.tick(4 * SETTINGS.election_ticks)
    assert isinstance(network.leader.core.propose_membership(RemoveMember("c")), Position)
    network.tick(4 * SETTINGS.heartbeat_ticks)
    network.nodes["c"] = Node("c")
    network["c"].disk_id = "new"
    network["c"].start()
    newcomer = Member("c", "new", "c:7000", "https://c", True)
    assert isinstance(network.leader.core.propose_membership(AddLearner(newcomer)), Position)
    network.tick(6 * SETTINGS.heartbeat_ticks)
    assert network.leader.core.membership.get("c") == newcomer
    assert network["c"].commands() == network.leader.commands()
