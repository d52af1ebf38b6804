"""Why a core takes a proposal or a wish not."""

from __future__ import annotations

import enum


class Refusal(enum.Enum):
    """Why a proposal wasn't taken; nothing of it is in the log."""

    NOT_LEADER = "not_leader"
    """This node doesn't lead; :attr:`callfs.raft.core.Core.leader` may know who does."""
    TRANSFERRING = "transferring"
    """Leadership is being handed over."""
    BUSY = "busy"
    """Too much is uncommitted, or in memory."""
    TOO_LARGE = "too_large"
    """More than one message can carry."""
    UNWRITABLE = "unwritable"
    """This node's disk takes nothing more."""
    NOT_YET = "not_yet"
    """No entry of the leader's own term is committed (the correction of 2015 to thesis 4.1)."""
    CHANGE_PENDING = "change_pending"
    """The last change of membership isn't committed."""
    UNCHANGED = "unchanged"
    """The membership is that already."""
    UNKNOWN_MEMBER = "unknown_member"
    """There is no such member."""
    OTHER_DISK = "other_disk"
    """A member of that id joined with another disk: it has to be removed first."""
    ADDRESS_TAKEN = "address_taken"
    """Another member has that raft address."""
    LAST_VOTER = "last_voter"
    """Without it nobody could vote."""
    WITHOUT_MAJORITY = "without_majority"
    """Of those who would vote then, too few were heard of late to commit anything, this change included."""
    NOT_A_VOTER = "not_a_voter"
    """A learner can't lead or be asked to."""
    UNREACHABLE = "unreachable"
    """It hasn't answered within an election timeout, or answers from another disk."""
