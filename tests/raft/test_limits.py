"""What is bounded, and what a full disk means."""

from __future__ import annotations

import msgspec

from callfs.raft.boundary import Position, Refusal, Role, Taken, first_write
from callfs.raft.messages import Append, AppendResponse, HeartbeatResponse, TimeoutNow, VoteRequest, VoteResponse
from tests.raft.cores import SETTINGS, THREE, Network, Node, entries, leader, membership


def test_a_follower_takes_no_proposals() -> None:
    """Only a leader does."""
    assert Node("b", THREE).core.propose(b"x") is Refusal.NOT_LEADER


def test_uncommitted_proposals_are_bounded() -> None:
    """A leader that can't commit refuses; one that can again takes them."""
    node = leader(max_uncommitted_bytes=300)
    assert isinstance(node.core.propose(b"x" * 200), Position)
    assert node.core.propose(b"x" * 200) is Refusal.BUSY
    node.run()
    node.hear("b", AppendResponse(2, 3))
    assert isinstance(node.core.propose(b"x" * 200), Position)


def test_one_large_proposal_is_taken() -> None:
    """When nothing else is under way; a limit isn't a maximum for one."""
    assert isinstance(leader(max_uncommitted_bytes=300).core.propose(b"x" * 1000), Position)


def test_several_proposals_are_taken_up_to_the_first_that_is_refused() -> None:
    """Those are in the log one after the other, and it is said why the next one isn't."""
    node = leader(max_uncommitted_bytes=400, max_entry_bytes=300)
    index = node.core.last_index + 1
    assert node.core.propose_all([b"1", b"2", b"x" * 301, b"3"]) == Taken(2, index, 2, Refusal.TOO_LARGE)
    assert node.core.propose_all([b"3" * 200, b"4" * 200]) == Taken(2, index + 2, 1, Refusal.BUSY)
    assert node.core.last_index == index + 2
    node.run()
    node.hear("b", AppendResponse(2, index + 2))
    assert node.commands() == [b"1", b"2", b"3" * 200]


def test_proposals_together_have_the_limits_that_they_have_one_by_one() -> None:
    """Whatever is under way, and however large the log is."""
    for limits in ({"max_uncommitted_bytes": 300}, {"max_log_bytes": 200}, {"max_entry_bytes": 60}):
        together, alone = leader(**limits), leader(**limits)
        commands = [b"x" * size for size in (10, 20, 30, 40, 50, 60, 70, 80, 90, 10)]
        taken = together.core.propose_all(commands)
        one_by_one = [alone.core.propose(command) for command in commands[: taken.count + 1]]
        assert all(isinstance(each, Position) for each in one_by_one[:-1])
        assert one_by_one[-1] is taken.refusal
        assert 0 < taken.count < len(commands)
        assert together.core.last_index == alone.core.last_index


def test_a_follower_takes_none_of_several_proposals() -> None:
    """Nothing gets into its log."""
    core = Node("b", THREE).core
    taken = core.propose_all([b"x", b"y"])
    assert (taken.count, taken.refusal, core.last_index) == (0, Refusal.NOT_LEADER, 1)


def test_what_no_message_can_carry_is_refused() -> None:
    """Else it would stand in the way of everything after it for ever."""
    node = leader(max_entry_bytes=1000)
    assert isinstance(node.core.propose(b"x" * 1000), Position)
    assert node.core.propose(b"x" * 1001) is Refusal.TOO_LARGE


def test_a_leaders_log_is_bounded() -> None:
    """Twice the limit without a cut: no more proposals until there was one."""
    node = leader(max_log_bytes=500)
    while isinstance(node.core.propose(b"x" * 100), Position):
        node.run()
        node.hear("b", AppendResponse(2, node.core.last_index))
    assert node.core.propose(b"") is Refusal.BUSY
    assert 1000 < node.core.status().log_bytes < 1200
    node.core.compact(node.applied)
    assert isinstance(node.core.propose(b"x"), Position)


def test_a_followers_log_is_bounded() -> None:
    """It takes no entries until a cut; the leader finds out where it is and goes on from there."""
    network = Network("a", "b", "c")
    network.nodes["b"] = Node("b", THREE, settings=msgspec.structs.replace(SETTINGS, max_log_bytes=500))
    network.elect("a")
    for _ in range(30):
        network.propose(b"x" * 100)
    network.tick(10 * SETTINGS.heartbeat_ticks)
    assert 1000 < network["b"].core.status().log_bytes < 1200
    assert network.leader.commands() == [b"x" * 100] * 30
    for _ in range(4):
        network["b"].core.compact(network["b"].applied)
        network.tick(10 * SETTINGS.heartbeat_ticks)
    assert network["b"].commands() == [b"x" * 100] * 30


def test_a_follower_without_room_does_not_ask_for_more_at_once() -> None:
    """It is silent about what it can't take: an answer would bring it all again as fast as the network can."""
    node = Node("b", THREE, settings=msgspec.structs.replace(SETTINGS, max_log_bytes=500))
    taken = entries(*[2] * 40)
    node.hear("a", Append(2, 1, 1, 1, taken))
    assert node.core.status().log_bytes > 1000
    last = node.core.last_index
    assert node.hear("a", Append(2, last, 2, last, entries(2, after=last))) == []
    assert node.core.commit_index == last
    assert node.hear("a", Append(2, last, 2, last, ())) == [("a", AppendResponse(2, last))]
    node.core.compact(node.applied)
    node.run()
    assert node.hear("a", Append(2, last, 2, last, entries(2, after=last))) == [("a", AppendResponse(2, last + 1))]


def test_applying_is_handed_out_in_parts() -> None:
    """No more than so many bytes at a time, and no more before those are applied."""
    node = Node("b", THREE, settings=msgspec.structs.replace(SETTINGS, max_apply_bytes=300))
    node.holds_applying = True
    node.hear("a", Append(2, 1, 1, 30, entries(*[2] * 29)))
    handed = len(node.unapplied)
    assert 0 < handed < 30
    node.run()
    assert len(node.unapplied) == handed
    node.holds_applying = False
    node.apply()
    node.run()
    assert node.applied == 30


def test_a_full_disk_hands_the_leadership_over() -> None:
    """Whoever can write should lead; until then reads go on here, and writes are refused."""
    node = leader()
    node.core.set_writable(False)
    assert node.core.propose(b"x") is Refusal.UNWRITABLE
    node.hear("b", HeartbeatResponse(2, 1))
    assert ("b", TimeoutNow(2)) in node.tick()
    assert node.core.role is Role.LEADER


def test_a_cluster_goes_on_with_one_full_disk() -> None:
    """Another leads, and the full one serves reads."""
    network = Network("a", "b", "c")
    network.elect("a")
    network["a"].core.set_writable(False)
    network.tick(SETTINGS.election_ticks)
    assert network.leader.node_id in "bc"
    network["a"].core.read(7)
    network.settle()
    assert [read.token for read in network["a"].reads] == [7]
    network.propose(b"1")
    assert network["a"].commands() == [b"1"]


def test_one_that_does_not_take_over_is_not_asked_for_ever() -> None:
    """Its disk may be full too; then another is asked."""
    network = Network("a", "b", "c")
    network.elect("a")
    for node_id in ("a", "c"):
        network[node_id].core.set_writable(False)
    network.tick(4 * SETTINGS.election_ticks)
    assert network.leader.node_id == "b"


def test_when_all_disks_are_full_reads_go_on() -> None:
    """The leader leads on, for there is nobody better."""
    network = Network("a", "b", "c")
    network.elect("a")
    for node in network.nodes.values():
        node.core.set_writable(False)
    network.tick(10 * SETTINGS.election_ticks)
    for token, node in enumerate(network.nodes.values()):
        node.core.read(token)
    network.settle()
    assert [[read.token for read in node.reads] for node in network.nodes.values()] == [[0], [1], [2]]


def test_a_lone_voter_with_a_full_disk_serves_reads() -> None:
    """Nobody else could."""
    node = Node("a", first_write(membership("a")))
    node.core.campaign()
    node.run()
    node.core.set_writable(False)
    node.tick(5 * SETTINGS.election_ticks)
    node.core.read(7)
    node.run()
    assert [read.token for read in node.reads] == [7]


def test_a_full_disk_promises_nothing() -> None:
    """What a leader sends waits for room, and so does a vote; it doesn't campaign."""
    node = Node("b", THREE)
    node.core.set_writable(False)
    node.holds_writes = True
    assert node.hear("a", Append(2, 1, 1, 1, entries(2))) == []
    node.tick(5 * SETTINGS.election_ticks)
    assert node.core.role is Role.FOLLOWER
    assert node.hear("c", VoteRequest(5, 9, 5, False, False)) == []
    node.write()
    assert node.run() == [("a", AppendResponse(2, 2)), ("c", VoteResponse(5, True, False))]


def test_a_candidate_whose_disk_fills_gives_up() -> None:
    """It couldn't write its entries."""
    node = Node("b", THREE)
    node.core.campaign()
    node.run()
    node.core.set_writable(False)
    assert node.core.role is Role.FOLLOWER
