"""What a node starts from, and what it says at first."""

from __future__ import annotations

from random import Random

import pytest

from callfs.raft.boundary import HardState, Role, Saved, SnapshotMeta, Standing, first_write, with_state
from callfs.raft.core import Core
from callfs.raft.membership import NOBODY, Membership
from callfs.raft.messages import Append, AppendResponse, Entry, EntryKind
from tests.raft.cores import SETTINGS, THREE, Node, command, entries, membership, sender

POINT = SnapshotMeta(4, 2, membership("a", "b"))


def core(saved: Saved) -> Core:
    """Node a from that."""
    return Core(node_id="a", disk_id="disk-a", saved=saved, settings=SETTINGS, random=Random(1))


def test_a_fresh_node_says_who_it_is() -> None:
    """Its standing and membership come first, whatever they are."""
    ready = core(Saved()).ready()
    assert ready is not None
    assert (ready.standing, ready.membership) == (Standing(Role.FOLLOWER, 0, None, False), NOBODY)
    assert ready.write is None


def test_a_node_without_news_says_nothing() -> None:
    """Each thing is handed out once."""
    node = core(Saved())
    node.ready()
    assert node.ready() is None


def test_the_first_entry_is_the_cluster() -> None:
    """It is committed, and is applied like any other."""
    node = Node("a", THREE)
    node.run()
    assert [(entry.index, entry.kind) for entry in node.state] == [(1, EntryKind.MEMBERSHIP)]
    assert node.core.membership == membership("a", "b", "c")


@pytest.mark.parametrize("nothing", [NOBODY, membership(learners=["a"])])
def test_a_cluster_of_nobody_is_none(nothing: Membership) -> None:
    """It could never do anything."""
    with pytest.raises(ValueError, match="voter"):
        first_write(nothing)


def test_what_is_missing_in_the_state_is_applied_again() -> None:
    """After a crash the state machine may be behind the log, and gets just what it lacks."""
    saved = Saved(hard_state=HardState(3, None, 8), point=POINT, entries=entries(2, 3, 3, 3, after=4), applied=6)
    ready = core(saved).ready()
    assert ready is not None
    assert [entry.index for entry in ready.committed] == [7, 8]


def test_the_state_may_know_more_of_commitment() -> None:
    """The stored commit index may be old; what is applied was committed."""
    saved = Saved(hard_state=HardState(3, None, 4), point=POINT, entries=entries(2, 3, after=4), applied=6)
    assert core(saved).commit_index == 6


@pytest.mark.parametrize(
    "saved",
    [
        Saved(hard_state=HardState(3, None, 4), point=POINT, entries=entries(3, after=5), applied=4),
        Saved(hard_state=HardState(3, None, 4), point=POINT, entries=entries(1, after=4), applied=4),
        Saved(hard_state=HardState(3, None, 4), point=POINT, entries=(command(5, 3), command(7, 3)), applied=4),
        Saved(hard_state=HardState(1, None, 4), point=POINT, applied=4),
        Saved(hard_state=HardState(3, None, 9), point=POINT, applied=4),
        Saved(hard_state=HardState(3, None, 4), point=POINT, applied=3),
        Saved(hard_state=HardState(3, None, 4), point=POINT, applied=5),
        Saved(hard_state=HardState(3, None, 0), entries=(Entry(1, 1, EntryKind.MEMBERSHIP, b"x"),)),
    ],
)
def test_a_contradiction_refuses_to_start(saved: Saved) -> None:
    """Gaps, terms that fall, and indexes outside of the log: data is missing, and nobody should vote with that."""
    with pytest.raises(ValueError, match="log"):
        core(saved)


def test_a_state_within_the_log() -> None:
    """Nothing changes but the applied index."""
    saved = Saved(hard_state=HardState(3, None, 5), point=POINT, entries=entries(2, 3, after=4), applied=4)
    assert with_state(saved, SnapshotMeta(5, 2, POINT.membership)).applied == 5
    assert with_state(saved, POINT) == saved


@pytest.mark.parametrize("state", [SnapshotMeta(50, 3, POINT.membership), SnapshotMeta(6, 9, POINT.membership)])
def test_a_state_ahead_of_the_log(state: SnapshotMeta) -> None:
    """It was installed right before a crash: the log gives way to it, and the storage is told so first."""
    saved = Saved(hard_state=HardState(3, "b", 5), point=POINT, entries=entries(2, 3, after=4), applied=4)
    node = core(with_state(saved, state))
    ready = node.ready()
    assert ready is not None
    assert ready.write is not None
    assert (ready.write.discard_log, ready.write.point, ready.write.entries) == (True, state, ())
    assert ready.write.hard_state == HardState(*((3, "b") if state.term == 3 else (9, None)), state.index)
    node.step(sender("b"), Append(9, state.index, state.term, state.index, ()))
    assert node.ready() is not None
    node.persisted(1)
    node.persisted(2)
    ready = node.ready()
    assert ready is not None
    assert [outgoing.message for outgoing in ready.messages] == [AppendResponse(9, state.index)]


def test_a_state_before_the_log_refuses_to_start() -> None:
    """Entries between are gone."""
    with pytest.raises(ValueError, match="3"):
        with_state(Saved(hard_state=HardState(3, None, 4), point=POINT), SnapshotMeta(3, 2, POINT.membership))
