"""Membership changes of one server at a time (thesis 4.1, corrected in 2015), learners and removal (4.2)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.raft.boundary import Position, Refusal, Role, Standing, first_write
from callfs.raft.membership import (
    NOBODY,
    AddLearner,
    Disown,
    History,
    Member,
    Membership,
    MembershipChange,
    Promote,
    RemoveMember,
    UpdateMember,
    changed,
    decoded,
    encoded,
)
from callfs.raft.messages import (
    Append,
    AppendResponse,
    Entry,
    EntryKind,
    Heartbeat,
    Removed,
    TimeoutNow,
    VoteRequest,
)
from tests.raft.cores import (
    SETTINGS,
    THREE,
    Network,
    Node,
    candidate_wins,
    entries,
    leader,
    member,
    membership,
    sender,
)

AB = membership("a", "b", learners=["c"])


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        (membership("a"), AddLearner(member("b")), membership("a", learners=["b"])),
        (AB, AddLearner(member("b", voter=False)), Refusal.UNCHANGED),
        (AB, AddLearner(member("c")), Refusal.UNCHANGED),
        (AB, AddLearner(Member("b", "another", "b:7000", "", True)), Refusal.OTHER_DISK),
        (AB, AddLearner(Member("d", "disk-d", "a:7000", "", True)), Refusal.ADDRESS_TAKEN),
        (AB, UpdateMember("b", "another", version=2), Refusal.OTHER_DISK),
        (AB, UpdateMember("x", "disk-x", version=2), Refusal.UNKNOWN_MEMBER),
        (AB, UpdateMember("b", "disk-b", api_endpoint="https://b"), Refusal.UNCHANGED),
        (AB, Promote("c"), membership("a", "b", "c")),
        (AB, Promote("b"), Refusal.UNCHANGED),
        (AB, Promote("x"), Refusal.UNKNOWN_MEMBER),
        (AB, Disown("x"), Refusal.UNKNOWN_MEMBER),
        (AB, RemoveMember("b"), membership("a", learners=["c"])),
        (AB, RemoveMember("c"), membership("a", "b")),
        (AB, RemoveMember("x"), Refusal.UNKNOWN_MEMBER),
        (membership("a", learners=["b"]), RemoveMember("a"), Refusal.LAST_VOTER),
    ],
)
def test_what_a_change_makes(before: Membership, change: MembershipChange, after: Membership | Refusal) -> None:
    """Each change of one server, and each reason to refuse it."""
    assert changed(before, change) == after


def test_an_update_changes_what_it_names() -> None:
    """Addresses and the version, the rest stays."""
    update = UpdateMember("b", "disk-b", raft_address="new:1", api_endpoint="https://new", version=3)
    outcome = changed(AB, update)
    assert isinstance(outcome, Membership)
    assert outcome.get("b") == Member("b", "disk-b", "new:1", "https://new", True, 3)
    assert outcome.get("a") == AB.get("a")


def test_members_can_take_each_others_place() -> None:
    """Addresses that were dealt out anew: each announces its own, also one that is still another's."""
    first = changed(AB, UpdateMember("b", "disk-b", raft_address="a:7000"))
    assert isinstance(first, Membership)
    second = changed(first, UpdateMember("a", "disk-a", raft_address="b:7000"))
    assert isinstance(second, Membership)
    assert [second.get(name).raft_address for name in ("a", "b")] == ["b:7000", "a:7000"]  # type: ignore[union-attr]


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c", "d"])), max_size=20))
def test_any_two_majorities_in_a_row_overlap(steps: list[tuple[int, str]]) -> None:
    """Each change adds or removes one voter at most, which is why one server at a time is safe (figure 4.3)."""
    current = membership("a")
    for kind, node_id in steps:
        change: MembershipChange
        match kind:
            case 0:
                change = AddLearner(member(node_id))
            case 1:
                change = Promote(node_id)
            case 2:
                change = RemoveMember(node_id)
            case _:
                change = UpdateMember(node_id, f"disk-{node_id}", version=2)
        outcome = changed(current, change)
        if isinstance(outcome, Membership):
            assert len(set(current.voters) ^ set(outcome.voters)) <= 1
            assert outcome.voters
            current = outcome
    assert decoded(encoded(current)) == current


def test_the_history_goes_back_and_forward() -> None:
    """The newest in the log is in force; a truncation brings the one before back, a cut keeps what is in force."""
    history = History(0, NOBODY)
    kinds = [membership("a"), membership("a", "b"), membership("a", "b", "c")]
    history.append(Entry(5 * n, 1, EntryKind.MEMBERSHIP, encoded(one)) for n, one in enumerate(kinds, 1))
    assert (history.index, history.current) == (15, kinds[2])
    assert [history.at(index) for index in (4, 5, 12, 15)] == [NOBODY, kinds[0], kinds[1], kinds[2]]
    history.truncate(15)
    assert (history.index, history.current) == (10, kinds[1])
    history.cut(12)
    history.truncate(13)
    assert history.current == kinds[1]
    with pytest.raises(msgspec.DecodeError):
        history.append([Entry(13, 1, EntryKind.MEMBERSHIP, b"nonsense")])


def test_a_change_is_in_force_at_once() -> None:
    """A server uses the latest configuration in its log, committed or not (4.1); the driver is told."""
    node = leader()
    assert node.core.propose_membership(AddLearner(member("d"))) == Position(2, 3)
    sent = {to for to, message in node.run() if isinstance(message, Append)}
    assert "d" in sent
    assert node.memberships[-1] == membership("a", "b", "c", learners=["d"])


def test_a_change_that_is_replaced_is_taken_back() -> None:
    """When the entry gives way, so does the membership."""
    node = Node("b", THREE)
    four = Entry(2, 2, EntryKind.MEMBERSHIP, encoded(membership("a", "b", "c", "d")))
    node.hear("a", Append(2, 1, 1, 1, (four,)))
    assert node.core.membership.get("d") is not None
    node.hear("c", Append(3, 1, 1, 1, entries(3)))
    assert node.memberships[-1] == membership("a", "b", "c")


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """The correction of 2015: else two leaders could change the same membership to two that don't overlap."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    assert node.core.propose_membership(AddLearner(member("d"))) is Refusal.NOT_YET
    node.hear("b", AppendResponse(2, 2))
    assert isinstance(node.core.propose_membership(AddLearner(member("d"))), Position)


def test_one_change_at_a_time() -> None:
    """The next one waits until the last is committed."""
    node = leader()
    node.core.propose_membership(AddLearner(member("d")))
    node.run()
    assert node.core.propose_membership(AddLearner(member("e"))) is Refusal.CHANGE_PENDING
    node.hear("b", AppendResponse(2, 3))
    assert isinstance(node.core.propose_membership(AddLearner(member("e"))), Position)


def test_a_removal_is_told_once_it_is_committed() -> None:
    """Not when only an entry before it is: until then it may be taken back."""
    node = leader()
    node.core.propose(b"x")
    node.core.propose_membership(RemoveMember("c"))
    node.run()
    assert ("c", Removed(2, 4)) not in node.hear("b", AppendResponse(2, 3))
    assert ("c", Removed(2, 4)) in node.hear("b", AppendResponse(2, 4))


def test_nobody_is_removed_whom_the_rest_needs() -> None:
    """With one of three dead the other two need each other; the dead one can go, and then either of them."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.isolate("c")
    network.tick(SETTINGS.election_ticks + SETTINGS.heartbeat_ticks)
    for needed in ("b", "a"):
        refusal = network.leader.core.propose_membership(RemoveMember(needed))
        assert refusal is Refusal.WITHOUT_MAJORITY
    network.propose(b"still there")
    for node_id in ("c", "b"):
        assert isinstance(network.leader.core.propose_membership(RemoveMember(node_id)), Position)
        network.tick(2 * SETTINGS.heartbeat_ticks)
    assert network.leader.core.membership == membership("a")
    assert network["a"].commands() == [b"still there"]


def test_only_a_leader_changes_the_membership() -> None:
    """Others say so."""
    assert Node("a", THREE).core.propose_membership(RemoveMember("b")) is Refusal.NOT_LEADER


def test_joining_twice_changes_nothing() -> None:
    """No entry is made for it."""
    node = leader()
    assert node.core.propose_membership(AddLearner(member("b"))) is Refusal.UNCHANGED
    assert node.core.last_index == 2


def test_a_learner_becomes_a_voter_once_it_is_near() -> None:
    """Not while it lacks much (4.2.1): a voter that can't acknowledge makes majorities worse."""
    node = leader()
    node.core.propose_membership(AddLearner(member("d")))
    for _ in range(SETTINGS.promotion_lag + 10):
        node.core.propose(b"x")
    node.run()
    last = node.core.last_index
    node.hear("b", AppendResponse(2, last))
    node.hear("d", AppendResponse(2, 5))
    assert "d" not in node.core.membership.voters
    node.hear("d", AppendResponse(2, last - SETTINGS.promotion_lag))
    assert "d" in node.core.membership.voters


def test_a_learner_does_not_count() -> None:
    """Neither for commits nor for keeping a leader."""
    node = Node("a", first_write(membership("a", "b", "c", learners=["d"])))
    candidate_wins(node, "b")
    node.hear("d", AppendResponse(2, 2))
    assert node.core.commit_index == 1


def test_a_new_node_joins() -> None:
    """It gets the log, becomes a voter by itself, and knows the cluster."""
    network = Network("a", fresh=["b", "c"])
    network.elect("a")
    network.propose(b"1")
    for node_id in ("b", "c"):
        assert isinstance(network.leader.core.propose_membership(AddLearner(member(node_id))), Position)
        network.tick(4 * SETTINGS.heartbeat_ticks)
    assert [node.core.membership for node in network.nodes.values()] == [membership("a", "b", "c")] * 3
    assert [node.commands() for node in network.nodes.values()] == [[b"1"]] * 3


def test_a_removed_leader_leads_until_that_is_committed() -> None:
    """It doesn't count itself meanwhile, steps down then, and asks the furthest to take over (4.2.2)."""
    node = leader()
    node.core.propose_membership(RemoveMember("a"))
    node.run()
    node.hear("b", AppendResponse(2, 3))
    assert (node.core.role, node.core.commit_index) == (Role.LEADER, 2)
    sent = node.hear("c", AppendResponse(2, 3))
    assert (node.core.role, node.core.commit_index) == (Role.FOLLOWER, 3)
    assert [message for _, message in sent if isinstance(message, TimeoutNow)] == [TimeoutNow(2)]
    assert node.standings[-1] == Standing(Role.FOLLOWER, 2, None, True)


def test_a_removed_node_hears_of_it() -> None:
    """When its removal is committed, and whenever it asks for votes that it can't get."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.isolate("c")
    network.leader.core.propose_membership(RemoveMember("c"))
    network.tick(8 * SETTINGS.election_ticks)
    assert network["c"].core.status().removed is False
    network.heal()
    network.tick(4 * SETTINGS.election_ticks)
    assert network["c"].core.status().removed is True
    assert network["c"].standings[-1].removed is True
    assert network.leader.node_id == "a"


def test_a_removed_node_does_not_campaign() -> None:
    """However long it hears nobody."""
    node = Node("c", THREE)
    node.hear("a", Removed(2, 5))
    assert node.tick(20 * SETTINGS.election_ticks) == []
    assert node.core.role is Role.FOLLOWER


def removing_itself() -> Network:
    """Two nodes, of which the leader has its own removal in its log, and nobody else has it; nobody leads."""
    network = Network("a", "b")
    network.elect("a")
    network.isolate("a")
    network["a"].core.propose_membership(RemoveMember("a"))
    network.tick(3 * SETTINGS.election_ticks)
    assert {node.core.leader for node in network.nodes.values()} == {None}
    return network


def test_a_node_whose_removal_is_not_committed_may_be_needed() -> None:
    """A server that isn't in its own latest configuration still starts elections (4.2.2, figure 4.6)."""
    network = removing_itself()
    network.heal()
    network.tick(6 * SETTINGS.election_ticks)
    assert network.leader.node_id == "b"
    assert network["b"].core.membership == membership("b")
    assert network["a"].standings[-1].removed is True


def test_it_does_not_count_itself() -> None:
    """Alone it wins nothing."""
    network = removing_itself()
    network.tick(10 * SETTINGS.election_ticks)
    assert network["a"].core.role is not Role.LEADER
    assert network["a"].core.term == 2


def test_a_removed_node_with_its_removal_in_the_log_is_told_too() -> None:
    """It can't know that the entry is committed, and would campaign for ever."""
    node = Node("c", THREE)
    entry = Entry(2, 2, EntryKind.MEMBERSHIP, encoded(membership("a", "b")))
    node.hear("a", Append(2, 1, 1, 1, (entry,)))
    node.hear("a", Removed(2, 1))
    assert node.core.status().removed is False
    node.hear("a", Removed(2, 2))
    assert node.core.status().removed is True
    assert node.tick(10 * SETTINGS.election_ticks) == []


def test_the_word_of_removal_may_be_out_of_date() -> None:
    """A node whose log has a newer membership, or one that a leader feeds, was taken in again."""
    node = Node("c", THREE)
    node.hear("a", Removed(2, 1))
    assert node.core.status().removed is False
    node.hear("a", Removed(2, 5))
    node.hear("b", Heartbeat(3, 1, 0))
    assert node.core.status().removed is False


def test_a_fresh_node_was_never_removed() -> None:
    """It isn't a member yet, which is something else."""
    node = Node("d")
    node.hear("a", Removed(2, 5))
    assert node.core.status().removed is False


def test_a_newcomer_that_is_cut_off_was_never_removed() -> None:
    """Nor one whose log so far has only memberships from before it joined."""
    node = Node("d")
    entry = Entry(1, 1, EntryKind.MEMBERSHIP, encoded(membership("a", "b")))
    node.hear("a", Append(2, 0, 0, 1, (entry,)))
    node.tick(10 * SETTINGS.election_ticks)
    assert node.core.membership == membership("a", "b")
    assert node.core.status().removed is False


def test_a_node_whose_log_says_so_knows_it_after_a_restart() -> None:
    """A leader that removed itself, once it hears nobody."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.leader.core.propose_membership(RemoveMember("a"))
    network.settle()
    assert network["a"].core.status().removed is True
    network.isolate("a")
    network["a"].start()
    network.tick(2 * SETTINGS.election_ticks)
    assert network["a"].standings[-1].removed is True
    assert network.leader.node_id in "bc"


def test_a_leader_does_not_listen_to_strangers() -> None:
    """Neither a newer term nor an answer from a node that is no member moves it."""
    node = leader()
    for message in (AppendResponse(9, 9), VoteRequest(9, 9, 9, False, True)):
        node.core.step(sender("x"), message)
        assert node.run() == [("x", Removed(2, 1))]
    assert (node.core.role, node.core.term) == (Role.LEADER, 2)


def test_from_three_to_one_and_back() -> None:
    """Each step is safe, and no step is lost."""
    network = Network("a", "b", "c")
    network.elect("a")
    for node_id in ("b", "c"):
        network.leader.core.propose_membership(RemoveMember(node_id))
        network.tick(2 * SETTINGS.heartbeat_ticks)
    assert network.leader.core.membership.voters == ("a",)
    network.propose(b"alone")
    for node_id in ("b", "c"):
        network.leader.core.propose_membership(AddLearner(member(node_id)))
        network.tick(4 * SETTINGS.heartbeat_ticks)
    network.propose(b"together")
    assert [node.commands() for node in network.nodes.values()] == [[b"alone", b"together"]] * 3
    assert [node.core.status().removed for node in network.nodes.values()] == [False] * 3
