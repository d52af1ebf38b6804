"""A follower whose disk was set back, when what it had acknowledged was cut from the leader's log meanwhile."""

from __future__ import annotations

import copy

from callfs.raft.messages import AppendRejection, AppendResponse, HeartbeatResponse
from tests.raft.cores import SETTINGS, Network, Node, leader

_WINDOW = 4


def cut(node: Node) -> None:
    """Let a leader cut its log as far as it may."""
    node.core.compact(node.applied)
    node.run()


def long_log(network: Network) -> None:
    """Everybody has more than one cut spares."""
    network.propose(*[b"%d" % number for number in range(4 * SETTINGS.keep_entries)])


def test_it_is_noticed_though_a_copy_of_the_state_would_hide_it() -> None:
    """The leader asks where its log ends before it sends one, and sends none to who lacks what it had."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.propose(b"1")
    restored = network["c"]
    backup = copy.deepcopy(restored.disk), list(restored.state), restored.applied
    long_log(network)
    network.isolate("c")
    long_log(network)
    cut(network["a"])
    restored.disk, restored.state, restored.applied = backup
    restored.start()
    network.heal()
    network.tick(20 * SETTINGS.heartbeat_ticks)
    assert [peer.other_disk for peer in network.leader.core.status().peers] == [False, True]
    assert network["a"].snapshots == []


def test_a_follower_that_is_only_behind_gets_the_state() -> None:
    """It has all that it acknowledged, and says so."""
    network = Network("a", "b", "c")
    network.elect("a")
    long_log(network)
    network.isolate("c")
    long_log(network)
    cut(network["a"])
    network["c"].start()
    network.heal()
    network.tick(4 * SETTINGS.heartbeat_ticks)
    assert network["a"].snapshots == ["c"]
    network.stream_snapshots()
    network.tick(4 * SETTINGS.heartbeat_ticks)
    assert network["c"].commands() == network["a"].commands()
    assert [peer.other_disk for peer in network.leader.core.status().peers] == [False, False]


def behind_the_cut() -> Node:
    """A leader whose follower c has acknowledged 5, and got no more since; 12 is committed, and cut up to 10."""
    node = leader(max_inflight=_WINDOW)
    for _ in range(10):
        node.core.propose(b"x")
        node.run()
        node.hear("b", AppendResponse(2, node.core.last_index))
    node.hear("c", AppendResponse(2, 5))
    node.hear("b", AppendResponse(2, 12))
    assert node.applied == 12
    cut(node)
    return node


def test_late_refusals_shut_nobody_out() -> None:
    """What it said before it had the entries counts for nothing: it is asked, and gets the state."""
    node = behind_the_cut()
    for previous in range(6, 30):
        node.hear("c", AppendRejection(2, previous, 0, 3))
    assert [peer.other_disk for peer in node.core.status().peers] == [False, False]
    assert node.snapshots == []
    round_number = 1
    while not node.snapshots:
        sent = node.tick(SETTINGS.heartbeat_ticks)
        assert round_number < 5
        node.hear("b", HeartbeatResponse(2, round_number))
        sent += node.hear("c", HeartbeatResponse(2, round_number))
        round_number += 1
        for to, message in sent:
            previous_index = getattr(message, "previous_index", 0)
            if to == "c" and previous_index > 5:
                node.hear("c", AppendRejection(2, previous_index, 0, 6))
    assert node.snapshots == ["c"]
