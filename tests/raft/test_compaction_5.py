"""Cutting the log, and sending the state instead (thesis 5)."""

from __future__ import annotations

import msgspec
import pytest

from callfs.raft.boundary import SnapshotMeta, first_write
from callfs.raft.membership import AddLearner
from callfs.raft.messages import Append, AppendRejection, AppendResponse, Heartbeat, HeartbeatResponse
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins, entries, member, membership

ALL = membership("a", "b", "c")


def long_leader() -> Node:
    """Of three, whose log is committed and applied to 12; b has it, c nothing of it."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    for _ in range(10):
        node.core.propose(b"x")
    node.run()
    node.hear("b", AppendResponse(2, 12))
    assert node.applied == 12
    return node


def test_a_cut_spares_some_entries() -> None:
    """For followers that are a little behind."""
    node = long_leader()
    node.core.compact(node.applied)
    node.run()
    assert node.disk.point == SnapshotMeta(12 - SETTINGS.keep_entries, 2, ALL)
    assert sorted(node.disk.entries) == [11, 12]


def test_a_cut_goes_no_further_than_the_checkpoint() -> None:
    """Entries after it are needed once more after a crash."""
    node = long_leader()
    node.core.compact(5)
    node.run()
    assert node.disk.point.index == 5


def test_a_cut_goes_no_further_than_what_is_applied() -> None:
    """Whatever the driver says."""
    node = Node("a", THREE, settings=msgspec.structs.replace(SETTINGS, keep_entries=0))
    node.hear("b", Append(2, 1, 1, 1, entries(2, 2)))
    node.core.compact(99)
    node.run()
    assert node.disk.point.index == 1


def test_a_log_that_is_too_large_spares_nothing() -> None:
    """Memory goes before slow followers."""
    small = msgspec.structs.replace(SETTINGS, max_log_bytes=400, keep_entries=100)
    node = Node("a", first_write(membership("a")), settings=small)
    node.core.campaign()
    node.run()
    for _ in range(5):
        node.core.propose(b"x" * 100)
    node.run()
    node.core.compact(node.applied)
    node.run()
    assert node.core.status().log_bytes == 0


def test_a_restart_after_a_cut() -> None:
    """The log goes on where it was cut, and terms are known there."""
    node = long_leader()
    node.core.compact(node.applied)
    node.run()
    node.start()
    status = node.core.status()
    assert (status.first_index, status.last_index, status.applied) == (11, 12, 12)
    assert node.core.membership == ALL


def test_a_follower_behind_the_cut_gets_the_state() -> None:
    """Once, and nothing else until that has ended."""
    node = long_leader()
    node.core.compact(node.applied)
    node.hear("c", HeartbeatResponse(2, 1))
    assert node.snapshots == ["c"]
    node.core.propose(b"x")
    node.hear("c", AppendRejection(2, 1, 0, 1))
    assert not [
        sent for to, sent in node.hear("c", HeartbeatResponse(2, 1)) if isinstance(sent, Append) and to == "c"
    ]
    assert node.snapshots == ["c"]
    assert [peer.state for peer in node.core.status().peers] == ["replicate", "snapshot"]


def test_after_the_state_come_the_entries_after_it() -> None:
    """From where the copy ends."""
    node = long_leader()
    node.core.compact(node.applied)
    node.hear("c", AppendRejection(2, 1, 0, 1))
    node.core.snapshot_sent("c", 12)
    node.core.propose(b"x")
    (append,) = [sent for to, sent in node.run() if to == "c" and isinstance(sent, Append)]
    assert append.previous_index == 12


def test_a_failed_copy_is_tried_again_when_the_node_is_heard() -> None:
    """Not in a loop against a node that is away."""
    node = long_leader()
    node.core.compact(node.applied)
    node.hear("c", AppendRejection(2, 1, 0, 1))
    node.core.snapshot_failed("c")
    node.run()
    assert node.snapshots == ["c"]
    node.hear("c", HeartbeatResponse(2, 1))
    assert node.snapshots == ["c", "c"]


def test_nothing_is_sent_to_a_node_that_is_away() -> None:
    """A copy is costly; when the last one is behind the cut already, another waits until the node answers."""
    node = long_leader()
    node.core.compact(node.applied)
    node.hear("c", HeartbeatResponse(2, 1))
    for _ in range(SETTINGS.election_ticks):
        node.hear("b", HeartbeatResponse(2, 1))
        node.tick()
    node.core.snapshot_sent("c", 5)
    node.run()
    assert node.snapshots == ["c"]
    node.hear("c", HeartbeatResponse(2, 1))
    assert node.snapshots == ["c", "c"]


def test_a_follower_that_has_what_it_needs_after_all() -> None:
    """It says so, and gets entries again, whatever becomes of the copy."""
    node = long_leader()
    node.core.compact(node.applied)
    node.hear("c", HeartbeatResponse(2, 1))
    (append,) = [
        sent for to, sent in node.hear("c", AppendResponse(2, 11)) if to == "c" and isinstance(sent, Append)
    ]
    assert append.previous_index == 11
    node.core.snapshot_failed("c")
    assert [peer.state for peer in node.core.status().peers] == ["replicate", "replicate"]


def test_a_report_about_a_stranger_is_nothing() -> None:
    """The node may have been removed meanwhile, or the leadership lost."""
    node = long_leader()
    node.core.snapshot_sent("x", 5)
    node.core.snapshot_failed("x")
    assert node.run() == []


def test_entries_under_way_that_were_cut() -> None:
    """
    If a whole window was lost, and cut since, the follower isn't asked about it for ever: it says where its log
    ends, and gets the state.
    """
    node = Node("a", THREE, settings=msgspec.structs.replace(SETTINGS, max_inflight=2, keep_entries=0))
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    node.hear("c", AppendResponse(2, 2))
    for index in range(3, 9):
        node.core.propose(b"x")
        node.run()
        node.hear("b", AppendResponse(2, index))
    node.core.compact(node.applied)
    sent = [message for _ in range(2) for message in node.hear("c", HeartbeatResponse(2, 1))]
    assert sent == [("c", Append(2, 8, 2, 8, ()))]
    node.hear("c", AppendRejection(2, 8, 0, 3))
    assert node.snapshots == ["c"]


def test_what_to_say_of_a_copy() -> None:
    """Its last entry's term, and the membership there."""
    node = long_leader()
    assert node.core.snapshot_meta(12) == SnapshotMeta(12, 2, ALL)
    with pytest.raises(ValueError, match="99"):
        node.core.snapshot_meta(99)


def installing(node: Node, meta: SnapshotMeta) -> bool:
    """The driver's part of an installation, with an empty state."""
    if not node.core.begin_installation(meta):
        return False
    node.state, node.applied = [], meta.index
    node.core.snapshot_installed(meta)
    return True


def test_a_state_takes_the_place_of_the_log() -> None:
    """The log that was there is of no use; the leader is told once that is durable."""
    node = Node("c", THREE)
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2)))
    node.holds_writes = True
    four = membership("a", "b", "c", "d")
    assert installing(node, SnapshotMeta(50, 2, four))
    assert node.run() == []
    node.write()
    assert node.run() == [("a", AppendResponse(2, 50))]
    assert (node.disk.entries, node.disk.point) == ({}, SnapshotMeta(50, 2, four))
    assert (node.core.commit_index, node.core.applied_index, node.memberships[-1]) == (50, 50, four)
    node.holds_writes = False
    assert node.hear("a", Append(2, 50, 2, 51, entries(2, after=50)))[0] == ("a", AppendResponse(2, 51))


def test_entries_beyond_the_state_stay() -> None:
    """They may have been counted: a log that agrees with the state is cut, not dropped (thesis 5.1)."""
    node = Node("c", THREE)
    assert node.core.begin_installation(SnapshotMeta(3, 2, ALL))
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2, 2)))
    node.state, node.applied = [], 3
    node.core.snapshot_installed(SnapshotMeta(3, 2, ALL))
    node.run()
    assert (node.disk.point.index, sorted(node.disk.entries)) == (3, [4])
    assert node.core.status().durable == 4


def test_a_state_that_is_behind_is_not_wanted() -> None:
    """The leader hears what is here already."""
    node = Node("c", THREE)
    node.hear("a", Append(2, 1, 1, 3, entries(2, 2)))
    assert node.core.wants_snapshot(SnapshotMeta(2, 2, ALL)) is False
    assert node.run() == [("a", AppendResponse(2, 3))]


def test_a_state_that_the_log_contains_is_not_needed() -> None:
    """It only says that all of it is committed."""
    node = Node("c", THREE)
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2)))
    assert node.core.begin_installation(SnapshotMeta(3, 2, ALL)) is False
    node.run()
    assert node.applied == 3


def test_nothing_is_applied_while_a_state_is_exchanged() -> None:
    """It would be applied to the old one."""
    node = Node("c", THREE)
    node.run()
    assert node.core.begin_installation(SnapshotMeta(50, 2, ALL))
    assert node.core.begin_installation(SnapshotMeta(60, 2, ALL)) is False
    node.hear("a", Append(2, 1, 1, 3, entries(2, 2)))
    assert node.applied == 1
    node.core.installation_failed()
    node.run()
    assert node.applied == 3


def test_an_installation_that_was_not_begun_is_nothing() -> None:
    """A state that is behind what is applied doesn't take anything back."""
    node = Node("c", THREE)
    node.hear("a", Append(2, 1, 1, 3, entries(2, 2)))
    node.core.snapshot_installed(SnapshotMeta(2, 2, ALL))
    node.run()
    assert (node.core.applied_index, node.disk.point.index) == (3, 0)


def test_a_leader_installs_nothing() -> None:
    """It has everything that is committed."""
    assert long_leader().core.begin_installation(SnapshotMeta(50, 2, ALL)) is False


def test_a_state_of_a_newer_term_moves_the_term() -> None:
    """The log can't be newer than the term."""
    node = Node("c", THREE)
    assert installing(node, SnapshotMeta(50, 7, ALL))
    node.run()
    assert node.core.term == 7


def test_a_new_node_joins_a_cluster_that_has_cut_its_log() -> None:
    """It gets a copy, then entries, then its vote."""
    network = Network("a", fresh=["b"])
    network.elect("a")
    network.propose(*[b"x"] * 20)
    network.leader.core.compact(network.leader.applied)
    network.leader.core.propose_membership(AddLearner(member("b")))
    for _ in range(6):
        network.tick(SETTINGS.heartbeat_ticks)
        network.stream_snapshots()
    assert network["b"].commands() == network["a"].commands()
    assert network["a"].core.membership.voters == ("a", "b")
    assert network["b"].disk.point.index > 1


def test_a_heartbeat_from_the_future_commits_nothing_here() -> None:
    """A node that was wiped is told of commits that it doesn't have."""
    node = Node("c")
    node.hear("a", Heartbeat(2, 50, 1))
    assert node.core.commit_index == 0
