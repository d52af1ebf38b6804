"""The tables: every message has a meaning for every role, in every relation of terms."""

from __future__ import annotations

from typing import get_args

import pytest

from callfs.raft.boundary import Role, first_write
from callfs.raft.law import LAW, Action
from callfs.raft.messages import (
    Append,
    AppendRejection,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    Removed,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.raft.cores import Node, candidate_wins, membership


def node_as(role: Role) -> Node:
    """One of three, in that role, in term 5 (or with a rehearsal for it)."""
    node = Node("a", first_write(membership("a", "b", "c")))
    node.hear("b", Heartbeat(5 if role in (Role.FOLLOWER, Role.PRE_CANDIDATE) else 4, 0, 0))
    if role is Role.LEADER:
        candidate_wins(node, "b")
    elif role is not Role.FOLLOWER:
        node.core.campaign()
        node.run()
        if role is Role.CANDIDATE:
            node.hear("b", VoteResponse(5, True, True))
    assert (node.core.role, node.core.term) == (role, 5)
    return node


def every_message(term: int) -> list[Message]:
    """One of each kind."""
    return [
        Append(term, 1, 1, 1, ()),
        AppendResponse(term, 1),
        AppendRejection(term, 1, 0, 1),
        Heartbeat(term, 1, 1),
        HeartbeatResponse(term, 1),
        VoteRequest(term, 9, term, False, False),
        VoteRequest(term, 9, term, True, False),
        VoteRequest(term, 9, term, False, True),
        VoteResponse(term, True, False),
        VoteResponse(term, True, True),
        VoteResponse(term, False, True),
        ReadIndexRequest(term, 1),
        ReadIndexResponse(term, 1, 1),
        TimeoutNow(term),
        Removed(term, 1),
    ]


def test_the_table_is_complete() -> None:
    """Each message has an action for each role; only the word of a removal is outside of terms."""
    assert LAW.keys() == set(get_args(Message)) - {Removed}
    assert all(actions.keys() == set(Role) for actions in LAW.values())


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("message", every_message(5), ids=lambda message: repr(message)[:60])
def test_what_is_ignored_changes_nothing(role: Role, message: Message) -> None:
    """A message of this term that means nothing to a role leaves role, term and log alone, and isn't answered."""
    if isinstance(message, Removed) or LAW[type(message)][role] is not Action.IGNORE:
        return
    node = node_as(role)
    before = node.core.status()
    assert node.hear("c", message) == []
    after = node.core.status()
    assert (after.role, after.term, after.leader) == (before.role, before.term, before.leader)
    assert (after.last_index, after.commit) == (before.last_index, before.commit)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("message", every_message(3), ids=lambda message: repr(message)[:60])
def test_an_older_term_moves_nobody(role: Role, message: Message) -> None:
    """A message of an older term changes nothing; a leader or candidate of it is told the newer one (3.3)."""
    node = node_as(role)
    before = node.core.status()
    answers = [answer for to, answer in node.hear("c", message) if to == "c"]
    after = node.core.status()
    assert (after.role, after.term, after.commit) == (before.role, before.term, before.commit)
    match message:
        case Append() | Heartbeat():
            assert answers == [AppendResponse(5, 0)]
        case VoteRequest():
            assert answers == [VoteResponse(5, False, message.preliminary)]
        case _:
            assert answers == []


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("message", every_message(7), ids=lambda message: repr(message)[:60])
def test_a_newer_term_makes_a_follower(role: Role, message: Message) -> None:
    """
    A message of a newer term makes anybody a follower in it (3.3).

    Except rehearsals and their granting (9.6); and requests for votes while a leader is there (4.2.3, 6.2), unless
    that leader wished it (3.10).
    """
    node = node_as(role)
    node.hear("c", message)
    match message:
        case Removed() | VoteRequest(preliminary=True) | VoteResponse(preliminary=True, granted=True):
            stays = True
        case VoteRequest(forced=False):
            stays = role in (Role.FOLLOWER, Role.LEADER)
        case _:
            stays = False
    if stays:
        assert node.core.term == 5
        assert node.core.role is role
    elif isinstance(message, TimeoutNow):
        assert (node.core.role, node.core.term) == (Role.CANDIDATE, 8)
    else:
        assert (node.core.role, node.core.term) == (Role.FOLLOWER, 7)
        assert node.core.leader == ("c" if isinstance(message, Append | Heartbeat) else None)
