"""Linearizable reads without the log (ReadIndex, thesis 6.4)."""

from __future__ import annotations

from callfs.raft.boundary import SafeRead, first_write
from callfs.raft.core import Core
from callfs.raft.membership import RemoveMember
from callfs.raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    ReadIndexRequest,
    ReadIndexResponse,
)
from callfs.raft.reads import Reads
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins, leader, membership, sender


def follower() -> Node:
    """Of leader b in term 2."""
    node = Node("a", THREE)
    node.hear("b", Heartbeat(2, 1, 0))
    return node


def rounds(node: Node) -> list[int]:
    """The rounds of heartbeats to b that go out."""
    return [sent.round for to, sent in node.run() if to == "b" and isinstance(sent, Heartbeat)]


def questions(node: Node) -> list[ReadIndexRequest]:
    """What the node asks its leader."""
    return [sent for _, sent in node.run() if isinstance(sent, ReadIndexRequest)]


def test_a_leader_serves_after_a_majority_confirms_it() -> None:
    """It may have been deposed without knowing: one round of heartbeats says that it wasn't."""
    node = leader()
    node.core.read(7)
    (number,) = rounds(node)
    assert node.reads == []
    node.hear("b", HeartbeatResponse(2, number))
    assert node.reads == [SafeRead(7, 2)]


def test_an_answer_from_before_the_read_confirms_nothing() -> None:
    """Only a round that began after the read was asked."""
    node = leader()
    (before,) = [sent.round for to, sent in node.tick(SETTINGS.heartbeat_ticks) if to == "b"]
    node.core.read(7)
    node.run()
    node.hear("b", HeartbeatResponse(2, before))
    assert node.reads == []


def test_reads_share_a_round() -> None:
    """All that wait are served by one; what is asked meanwhile waits for the next."""
    node = leader()
    for token in range(3):
        node.core.read(token)
    (first,) = rounds(node)
    node.core.read(3)
    assert rounds(node) == []
    assert [sent.round for to, sent in node.hear("b", HeartbeatResponse(2, first)) if to == "b"] == [first + 1]
    assert [read.token for read in node.reads] == [0, 1, 2]
    node.hear("c", HeartbeatResponse(2, first + 1))
    assert [read.token for read in node.reads] == [0, 1, 2, 3]


def test_a_lost_round_goes_out_again_with_the_heartbeats() -> None:
    """Reads don't hang on one message."""
    node = leader()
    node.core.read(7)
    (number,) = rounds(node)
    (again,) = [sent for to, sent in node.tick(SETTINGS.heartbeat_ticks) if to == "b"]
    assert again == Heartbeat(2, 2, number)


def test_a_new_leader_waits_for_its_first_commit() -> None:
    """Until an entry of its term is committed it doesn't know what is."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    node.core.read(7)
    assert rounds(node) == []
    node.hear("b", HeartbeatResponse(2, 1))
    assert node.reads == []
    sent = node.hear("b", AppendResponse(2, 2))
    (number,) = [one.round for to, one in sent if to == "b" and isinstance(one, Heartbeat) and one.round]
    node.hear("b", HeartbeatResponse(2, number))
    assert node.reads == [SafeRead(7, 2)]


def test_the_same_for_a_followers_question() -> None:
    """It is kept until then, and answered."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    node.hear("b", ReadIndexRequest(2, 99))
    (number,) = [
        sent.round
        for to, sent in node.hear("c", AppendResponse(2, 2))
        if to == "c" and isinstance(sent, Heartbeat) and sent.round
    ]
    assert ("b", ReadIndexResponse(2, 99, 2)) in node.hear("c", HeartbeatResponse(2, number))


def test_a_lone_voter_confirms_itself() -> None:
    """Nobody else could have deposed it."""
    node = Node("a", first_write(membership("a")))
    node.core.campaign()
    node.run()
    node.core.read(7)
    node.run()
    assert node.reads == [SafeRead(7, 2)]


def test_a_round_that_only_a_removed_node_could_answer() -> None:
    """Who becomes the only voter while a round is under way has confirmed it; later reads don't wait behind it."""
    node = Node("a", first_write(membership("a", "b")))
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    node.core.read(7)
    node.run()
    node.core.propose_membership(RemoveMember("b"))
    node.run()
    node.core.read(8)
    node.tick()
    assert [read.token for read in node.reads] == [7, 8]


def test_a_read_waits_for_the_state() -> None:
    """The index must be applied on the node that serves."""
    node = leader()
    node.holds_applying = True
    node.core.propose(b"x")
    node.run()
    node.hear("b", AppendResponse(2, 3))
    node.core.read(7)
    (number,) = rounds(node)
    node.hear("b", HeartbeatResponse(2, number))
    assert node.reads == []
    node.apply()
    node.run()
    assert node.reads == [SafeRead(7, 3)]


def test_a_follower_asks_once_for_all() -> None:
    """One question for the reads that wait, one at a time."""
    node = follower()
    for token in range(3):
        node.core.read(token)
    (question,) = questions(node)
    node.core.read(3)
    assert questions(node) == []
    node.hear("b", ReadIndexResponse(2, question.context, 1))
    assert [read.token for read in node.reads] == [0, 1, 2]


def test_a_follower_asks_again() -> None:
    """A question or answer that was lost is repeated after a heartbeat's time, under the same number."""
    node = follower()
    node.core.read(7)
    (question,) = questions(node)
    for _ in range(SETTINGS.heartbeat_ticks):
        node.core.tick()
    assert questions(node) == [question]


def test_an_answer_to_another_question_is_nothing() -> None:
    """A late answer is too old for reads asked since; numbers aren't used again after a restart either."""
    node = follower()
    node.core.read(7)
    (question,) = questions(node)
    node.hear("b", ReadIndexResponse(2, question.context - 1, 1))
    node.hear("c", ReadIndexResponse(2, question.context, 1))
    assert node.reads == []
    node.start()
    node.hear("b", Heartbeat(2, 1, 0))
    node.core.read(8)
    (another,) = questions(node)
    assert another.context != question.context


def test_a_follower_asks_the_next_leader() -> None:
    """What the old one left unanswered."""
    node = follower()
    node.core.read(7)
    (question,) = questions(node)
    node.core.step(sender("c"), Heartbeat(3, 1, 0))
    (again,) = questions(node)
    assert again.term == 3
    node.hear("c", ReadIndexResponse(3, question.context, 1))
    assert node.reads == []
    node.hear("c", ReadIndexResponse(3, again.context, 1))
    assert node.reads == [SafeRead(7, 1)]


def test_a_read_without_a_leader_waits_and_then_fails() -> None:
    """For two election timeouts; nothing piles up."""
    node = Node("a", THREE)
    node.core.read(7)
    node.tick(2 * SETTINGS.election_ticks)
    assert node.failed_reads == []
    node.tick()
    assert node.failed_reads == [7]


def test_an_unanswered_read_fails() -> None:
    """The same when the leader doesn't answer though it is heard."""
    node = follower()
    node.core.read(7)
    for _ in range(2 * SETTINGS.election_ticks + 1):
        node.hear("b", Heartbeat(2, 1, 0))
        node.tick()
    assert node.failed_reads == [7]


def test_a_deposed_leader_serves_no_read() -> None:
    """A leader cut off doesn't know that another has committed since, and finds no majority to confirm it."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.isolate("a")
    network["a"].core.read(7)
    network.tick(10 * SETTINGS.election_ticks)
    network.propose(b"1")
    assert network["a"].reads == []
    assert network["a"].failed_reads == [7]


def test_a_follower_reads_what_was_acknowledged() -> None:
    """On every node, learners too, right after a write was committed."""
    network = Network("a", "b", "c", learners=["d"])
    network.elect("a")
    for number, node_id in enumerate("abcd"):
        (position,) = network.propose(b"x")
        network[node_id].core.read(number)
        network.settle()
        assert network[node_id].reads[-1] == SafeRead(number, position.index)


def test_the_seam_breaks_exactly_that() -> None:
    """A core that serves reads from its own state, without asking, serves stale ones."""

    class Careless(Reads):
        def ask(self, token: int) -> None:
            self.serve(token, 0)

    class Broken(Core):
        reads_type = Careless

    node = Node("a", THREE, core_type=Broken)
    node.core.read(7)
    node.run()
    assert node.reads == [SafeRead(7, 0)]
