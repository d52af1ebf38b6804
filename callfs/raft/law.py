"""Which message means what to whom: the rules of the protocol as tables."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from callfs.raft.boundary import Role
from callfs.raft.messages import (
    Append,
    AppendRejection,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)


class Action(enum.Enum):
    """What a message in this node's term makes it do."""

    IGNORE = enum.auto()
    TAKE_ENTRIES = enum.auto()
    HEAR_LEADER = enum.auto()
    NOTE_MATCH = enum.auto()
    GO_BACK = enum.auto()
    NOTE_ROUND = enum.auto()
    VOTE = enum.auto()
    COUNT_VOTE = enum.auto()
    NOTE_READER = enum.auto()
    RELEASE_READS = enum.auto()
    CAMPAIGN = enum.auto()


class Newer(enum.Enum):
    """What a message of a newer term makes a node do first."""

    FOLLOW_SENDER = enum.auto()
    """The sender leads that term."""
    FOLLOW_NOBODY = enum.auto()
    """There is such a term; who leads it will be heard."""
    UNLESS_LED = enum.auto()
    """The same, unless the own leader was heard just now (CheckQuorum, thesis 4.2.3, 6.2)."""
    STAY_UNLESS_LED = enum.auto()
    """The same for a rehearsal, which changes nobody's term (PreVote, thesis 9.6)."""
    STAY = enum.auto()
    """The answer to one speaks of a term that may never be."""


class Older(enum.Enum):
    """What a message of an older term is answered with."""

    NOTHING = enum.auto()
    TERM = enum.auto()
    """The term, so that a leader that is none any more steps down; else a node with a newer term stays stuck."""
    REFUSAL = enum.auto()
    """No vote, and the term."""


def _all(action: Action) -> Mapping[Role, Action]:
    return dict.fromkeys(Role, action)


def _only(*roles: Role, does: Action) -> Mapping[Role, Action]:
    return {role: does if role in roles else Action.IGNORE for role in Role}


_BELOW = (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE)

LAW: Mapping[type[Message], Mapping[Role, Action]] = {
    Append: _only(*_BELOW, does=Action.TAKE_ENTRIES),
    Heartbeat: _only(*_BELOW, does=Action.HEAR_LEADER),
    AppendResponse: _only(Role.LEADER, does=Action.NOTE_MATCH),
    AppendRejection: _only(Role.LEADER, does=Action.GO_BACK),
    HeartbeatResponse: _only(Role.LEADER, does=Action.NOTE_ROUND),
    VoteRequest: _all(Action.VOTE),
    VoteResponse: _only(Role.PRE_CANDIDATE, Role.CANDIDATE, does=Action.COUNT_VOTE),
    ReadIndexRequest: _only(Role.LEADER, does=Action.NOTE_READER),
    ReadIndexResponse: _only(Role.FOLLOWER, does=Action.RELEASE_READS),
    TimeoutNow: _only(Role.FOLLOWER, does=Action.CAMPAIGN),
}


def newer_term(message: Message) -> Newer:
    """What comes first when a message's term is above this node's."""
    match message:
        case VoteResponse(preliminary=True, granted=True):
            return Newer.STAY
        case VoteRequest(preliminary=True):
            return Newer.STAY_UNLESS_LED
        case VoteRequest(forced=False):
            return Newer.UNLESS_LED
        case Append() | Heartbeat():
            return Newer.FOLLOW_SENDER
        case _:
            return Newer.FOLLOW_NOBODY


def older_term(message: Message) -> Older:
    """What answers a message whose term is below this node's."""
    match message:
        case Append() | Heartbeat():
            return Older.TERM
        case VoteRequest():
            return Older.REFUSAL
        case _:
            return Older.NOTHING
