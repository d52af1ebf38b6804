"""Log replication (thesis 3.5, 3.3, 10.2)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callfs.raft.boundary import Position, Settings, first_write
from callfs.raft.messages import (
    Append,
    AppendRejection,
    AppendResponse,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    Message,
)
from tests.raft.cores import SETTINGS, THREE, Network, Node, candidate_wins, command, entries, membership, sender


def leader(given_settings: Settings = SETTINGS) -> Node:
    """Of three, in term 2, whose no-op (index 2) b and c have."""
    node = Node("a", THREE, settings=given_settings)
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    node.hear("c", AppendResponse(2, 2))
    return node


def appends(sent: list[tuple[str, Message]], to: str) -> list[Append]:
    """The appends to one node."""
    return [message for node_id, message in sent if node_id == to and isinstance(message, Append)]


def test_proposals_of_one_turn_go_out_together() -> None:
    """The leader appends to its log and sends one batch to each follower; it doesn't wait for its disk (10.2.1)."""
    node = leader()
    node.holds_writes = True
    assert [node.core.propose(data) for data in (b"1", b"2")] == [Position(2, 3), Position(2, 4)]
    batch = Append(2, 2, 2, 2, (command(3, 2, b"1"), command(4, 2, b"2")))
    assert node.run() == [("b", batch), ("c", batch)]
    assert [write.entries for write in node.writes] == [batch.entries]


def test_followers_that_lack_the_same_get_the_same() -> None:
    """One value for all of them, so that it is encoded once; not for one that lacks more."""
    node = Node("a", first_write(membership("a", "b", "c", "d")))
    candidate_wins(node, "b", "c")
    for follower in ("b", "c"):
        node.hear(follower, AppendResponse(2, 2))
    node.hear("d", AppendRejection(2, 1, 0, 1))
    node.hear("d", AppendResponse(2, 1))
    node.core.propose(b"x")
    sent = node.run()
    (to_b,), (to_c,) = appends(sent, "b"), appends(sent, "c")
    assert to_b is to_c
    assert to_b.entries == (command(3, 2),)


def test_a_commit_index_goes_with_what_the_results_bring_about() -> None:
    """What is proposed while entries are applied tells how far the log is committed; otherwise a heartbeat does."""
    node = leader()
    node.core.propose(b"1")
    node.run()
    node.core.step(sender("b"), AppendResponse(2, 3))
    ready = node.core.ready()
    assert ready is not None
    assert ([entry.index for entry in ready.committed], ready.messages) == ([3], ())
    node.core.propose(b"2")
    assert node.run() == [(to, Append(2, 3, 2, 3, (command(4, 2, b"2"),))) for to in ("b", "c")]
    node.core.step(sender("b"), AppendResponse(2, 4))
    ready = node.core.ready()
    assert ready is not None
    assert ready.messages == ()
    assert node.run() == [(to, Heartbeat(2, 4, 0)) for to in ("b", "c")]


def test_appends_are_pipelined() -> None:
    """The next batch goes out before the last is answered (10.2.2)."""
    node = leader()
    for index in (3, 4, 5):
        node.core.propose(b"x")
        assert [append.previous_index for append in appends(node.run(), "b")] == [index - 1]


def test_the_window_is_bounded() -> None:
    """So many appends are under way at most; an answer makes room for what has gathered meanwhile."""
    node = leader(msgspec.structs.replace(SETTINGS, max_inflight=2))
    sent = []
    for _ in range(5):
        node.core.propose(b"x")
        sent += appends(node.run(), "b")
    assert len(sent) == 2
    (append,) = appends(node.hear("b", AppendResponse(2, 3)), "b")
    assert [entry.index for entry in append.entries] == [5, 6, 7]


def test_the_window_is_bounded_in_bytes() -> None:
    """Large entries close it sooner."""
    node = leader(msgspec.structs.replace(SETTINGS, max_inflight_bytes=1000))
    sent = []
    for _ in range(5):
        node.core.propose(b"x" * 600)
        sent += appends(node.run(), "b")
    assert len(sent) == 2


def test_a_batch_is_bounded_in_bytes() -> None:
    """What doesn't fit goes with the next append; a single entry always fits."""
    node = leader(msgspec.structs.replace(SETTINGS, max_batch_bytes=100))
    for size in (10, 10, 10, 500, 10):
        node.core.propose(b"x" * size)
    assert [len(append.entries) for append in appends(node.run(), "b")] == [2, 1, 1, 1]


def test_a_follower_answers_once_durable() -> None:
    """Its answer is a promise: what is in memory only isn't acknowledged."""
    node = Node("b", THREE)
    node.holds_writes = True
    assert node.hear("a", Append(2, 1, 1, 1, entries(2, 2))) == []
    node.write()
    assert node.run() == [("a", AppendResponse(2, 3))]


def test_a_repeated_append_is_answered_once_durable() -> None:
    """The same for entries that it has already, but not on disk."""
    node = Node("b", THREE)
    node.holds_writes = True
    append = Append(2, 1, 1, 1, entries(2, 2))
    node.hear("a", append)
    assert node.hear("a", append) == []
    node.write()
    assert node.run() == [("a", AppendResponse(2, 3)), ("a", AppendResponse(2, 3))]


def test_appends_of_one_turn_are_answered_once() -> None:
    """By the one answer that says most."""
    node = Node("b", THREE)
    for previous in (1, 2, 3):
        term = 1 if previous == 1 else 2
        node.core.step(sender("a"), Append(2, previous, term, 1, entries(2, after=previous)))
    assert node.run() == [("a", AppendResponse(2, 4))]


def test_a_gap_is_refused() -> None:
    """If there is no entry at the previous index, the follower refuses, and says where its log ends."""
    node = Node("b", THREE)
    assert node.hear("a", Append(2, 9, 2, 1, entries(2, after=9))) == [("a", AppendRejection(2, 9, 0, 2))]
    assert node.core.last_index == 1


def test_a_conflict_is_refused_with_a_hint() -> None:
    """The term in conflict, and the first index that the follower stores for it (3.3)."""
    node = Node("b", THREE)
    node.hear("a", Append(3, 1, 1, 1, entries(2, 3, 3, 3)))
    assert node.hear("c", Append(4, 5, 4, 1, ())) == [("c", AppendRejection(4, 5, 3, 3))]


def test_conflicting_entries_give_way() -> None:
    """An entry with the same index and another term goes, with all that follow it."""
    node = Node("b", THREE)
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2, 2)))
    node.hear("c", Append(3, 2, 2, 1, entries(3, after=2)))
    assert node.log() == [(1, 1), (2, 2), (3, 3)]


def test_an_old_append_takes_nothing_back() -> None:
    """A delayed append with a part of what is there doesn't shorten the log."""
    node = Node("b", THREE)
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2, 2)))
    assert node.hear("a", Append(2, 1, 1, 1, entries(2))) == [("a", AppendResponse(2, 2))]
    assert node.core.last_index == 4


@pytest.mark.parametrize(
    "forged",
    [
        Append(3, 1, 1, 3, entries(3, 3, 3)),
        Append(3, 2, 2, 3, entries(3, after=2)),
        Append(3, 2, 3, 3, ()),
        Append(3, 3, 3, 3, ()),
    ],
)
def test_what_is_committed_is_never_replaced(forged: Append) -> None:
    """An append that contradicts it is neither taken nor acknowledged, but counted: someone has lost data."""
    node = Node("b", THREE)
    node.hear("a", Append(2, 1, 1, 3, entries(2, 2)))
    before = node.log()
    assert node.hear("c", forged) == []
    assert node.log() == before
    assert node.core.status().refused_conflicts == 1


def test_a_contradiction_where_the_log_was_cut() -> None:
    """The same where only the term of the last entry is known."""
    node = Node("b", THREE, settings=msgspec.structs.replace(SETTINGS, keep_entries=0))
    node.hear("a", Append(2, 1, 1, 3, entries(2, 2)))
    node.core.compact(3)
    assert node.hear("c", Append(3, 3, 3, 3, entries(3, after=3))) == []
    assert node.core.status().refused_conflicts == 1


def test_an_append_from_before_the_commit_index_is_answered_with_it() -> None:
    """What is committed is in every later leader's log, so the leader may go on after it (3.6.3)."""
    node = Node("b", THREE)
    node.hear("a", Append(2, 1, 1, 3, entries(2, 2)))
    assert node.hear("c", Append(3, 1, 1, 3, entries(2, 2, 3))) == [("c", AppendResponse(3, 3))]


@pytest.mark.parametrize(
    "wrong",
    [
        (command(3, 2),),
        (command(2, 2), command(4, 2)),
        (command(2, 2), command(3, 1)),
        (command(2, 9),),
        (command(2, 0),),
        (Entry(2, 2, EntryKind.MEMBERSHIP, b"nonsense"),),
    ],
)
def test_nonsense_is_ignored(wrong: tuple[Entry, ...]) -> None:
    """Entries with gaps, impossible terms or unreadable memberships change nothing and aren't acknowledged."""
    node = Node("b", THREE)
    assert node.hear("a", Append(2, 1, 1, 1, wrong)) == []
    assert node.core.last_index == 1


def test_the_commit_index_holds_for_the_leaders_entries_only() -> None:
    """A follower with a longer log of its own commits only what it knows to be the leader's."""
    node = Node("b", THREE)
    node.hear("a", Append(2, 1, 1, 1, entries(2, 2, 2)))
    node.hear("c", Heartbeat(3, 4, 0))
    assert node.core.commit_index == 1
    node.hear("c", Append(3, 2, 2, 4, ()))
    assert node.core.commit_index == 2


def test_a_probe_goes_out_one_at_a_time() -> None:
    """Until it is known where the logs agree, one append waits for its answer."""
    node = Node("a", THREE)
    candidate_wins(node, "b")
    sent = []
    for _ in range(3):
        node.core.propose(b"x")
        sent += appends(node.run(), "c")
    assert sent == []
    assert len(appends(node.hear("c", HeartbeatResponse(2, 1)), "c")) == 1


def test_the_hint_skips_a_whole_term() -> None:
    """One round trip for each term in conflict, not for each entry (3.3)."""
    follower = Node("b", THREE)
    follower.hear("c", Append(2, 1, 1, 1, entries(*[2] * 50)))
    node = Node("a", THREE)
    node.hear("c", Append(3, 1, 1, 1, entries(*[3] * 60)))
    node.tick(2 * SETTINGS.election_ticks)
    candidate_wins(node, "c")
    (retry,) = appends(node.hear("b", AppendRejection(4, 61, 0, 52)), "b")
    assert retry.previous_index == 51
    (rejection,) = [answer for _, answer in follower.hear("a", retry)]
    assert rejection == AppendRejection(4, 51, 2, 2)
    (retry,) = appends(node.hear("b", rejection), "b")
    assert retry.previous_index == 1
    assert [answer for _, answer in follower.hear("a", retry)] == [AppendResponse(4, 62)]


def test_the_hint_uses_a_common_term() -> None:
    """Where the leader has the follower's term too, it goes back to the end of that term only."""
    node = Node("a", THREE)
    node.hear("c", Append(3, 1, 1, 1, entries(2, 2, 3, 3, 3)))
    node.tick(2 * SETTINGS.election_ticks)
    candidate_wins(node, "c")
    (retry,) = appends(node.hear("b", AppendRejection(4, 6, 2, 2)), "b")
    assert retry.previous_index == 3


def test_a_late_rejection_is_nothing() -> None:
    """What it says isn't there has been acknowledged since."""
    node = leader()
    assert appends(node.hear("b", AppendRejection(2, 2, 0, 1)), "b") == []


def test_a_match_beyond_the_log_is_nothing() -> None:
    """Nobody has more of a leader's log than the leader."""
    node = leader()
    node.hear("b", AppendResponse(2, 99))
    assert node.core.commit_index == 2


def test_lost_appends_are_noticed() -> None:
    """Though nothing new is proposed, unanswered appends are asked about, and what is missing is sent again."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.cut = {("a", "b")}
    network.propose(b"1")
    network.heal()
    network.tick(4 * SETTINGS.heartbeat_ticks)
    assert network["b"].commands() == [b"1"]


def test_followers_learn_of_a_commit_at_once() -> None:
    """They needn't wait for the next entry or heartbeat."""
    network = Network("a", "b", "c")
    network.elect("a")
    network.propose(b"1")
    assert [node.commands() for node in network.nodes.values()] == [[b"1"]] * 3


@settings(max_examples=60, deadline=None)
@given(
    common=st.lists(st.integers(0, 1), max_size=6),
    own=st.lists(st.integers(0, 2), max_size=12),
    other=st.lists(st.integers(0, 2), max_size=12),
)
def test_any_diverged_log_becomes_the_leaders(common: list[int], own: list[int], other: list[int]) -> None:
    """Whatever a follower has in excess or lacks (figure 3.6), it ends with the leader's log."""

    def rising(steps: list[int], start: int, stride: int) -> list[int]:
        terms = []
        for step in steps:
            start += step * stride
            terms.append(start)
        return terms

    shared = rising(common, 2, 3)
    base = shared[-1] if shared else 2
    mine = shared + [term * 2 for term in rising(own, base, 1)]
    theirs = shared + [term * 2 + 1 for term in rising(other, base, 1)]
    newest = max([2, *mine, *theirs])
    network = Network("a", "b", "c")
    for node_id, terms in (("a", mine), ("c", mine), ("b", theirs)):
        network[node_id].hear("x", Append(newest, 1, 1, 1, entries(*terms)))
    network.isolate("b")
    network.tick(2 * SETTINGS.election_ticks)
    network["a"].core.campaign()
    network.settle()
    network.heal()
    network.tick(4 * SETTINGS.election_ticks)
    logs = [node.log() for node in network.nodes.values()]
    assert logs[0] == logs[1] == logs[2]
    refused = [message for _, _, message in network.seen if isinstance(message, AppendRejection)]
    assert len(refused) <= 4 * (len(set(theirs)) + 2)


def test_a_follower_started_anew_is_reminded() -> None:
    """
    A follower that was restarted in mid-term doesn't know that its log is its leader's, and takes over no commit
    index from a heartbeat; the leader, which knows, says so again, and the follower commits without any new entry.
    """
    node = leader()
    (reminder,) = appends(node.hear("b", HeartbeatResponse(2, 1, 0)), "b")
    assert reminder == Append(2, 2, 2, 2, ())
    assert appends(node.hear("b", HeartbeatResponse(2, 2, 2)), "b") == []
    restarted = Node("b", THREE)
    restarted.hear("a", Append(2, 1, 1, 1, entries(2)))
    restarted.start()
    (answer,) = [each for _, each in restarted.hear("a", Heartbeat(2, 2, 1))]
    assert (answer, restarted.core.commit_index) == (HeartbeatResponse(2, 1, 0), 1)
    restarted.hear("a", reminder)
    assert restarted.core.commit_index == 2
