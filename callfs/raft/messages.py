"""
What nodes say to each other, and the log entries that they say it about.

All are frozen values with a fixed MessagePack form (arrays with a number for the kind), so that
``msgspec.msgpack.Decoder(Message)`` is the whole parser: what it accepts can be given to
:meth:`callfs.raft.core.Core.step`, which ignores what makes no sense. Terms start at 1, log indexes at 1; 0 stands
for "before the first". Entries, of which there are many, hold nothing that could refer back to them, so the garbage
collector needn't watch them (``gc=False``; the same is done elsewhere).
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A term, index or number: fits into a signed 64 bit column with room to add to it."""


class EntryKind(enum.IntEnum):
    """What a log entry is for."""

    NOOP = 0
    """The first entry of a leader's term; nothing to apply."""
    COMMAND = 1
    """Bytes for the state machine, opaque here."""
    MEMBERSHIP = 2
    """A whole :class:`callfs.raft.membership.Membership`, in force as soon as it is in a log (thesis 4.1)."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    One entry of the log.

    :param term: the term of the leader that made it.
    :param data: the command; a membership as bytes; empty for a no-op.
    """

    index: Count
    term: Count
    kind: EntryKind
    data: bytes


class Append(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """
    AppendEntries (thesis figure 3.1): a leader's entries, or none to ask where the logs agree.

    :param previous_index: the entry right before the first of ``entries``.
    :param commit: the leader's commit index.
    """

    term: Count
    previous_index: Count
    previous_term: Count
    commit: Count
    entries: tuple[Entry, ...]


class AppendResponse(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """
    The sender's log is the leader's up to ``match``, durably.

    With a term above the receiver's it only says that there is a newer term.
    """

    term: Count
    match: Count


class AppendRejection(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """
    The entry before those of an :class:`Append` isn't in the sender's log (thesis 3.3, the last paragraphs).

    :param previous_index: as the append had it.
    :param conflict_term: the term of the sender's own entry there; 0 when its log ends before.
    :param conflict_index: the first index with that term; the index after the log's last when it ends before.
    """

    term: Count
    previous_index: Count
    conflict_term: Count
    conflict_index: Count


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """
    A leader is there.

    :param commit: the leader's commit index; it holds only for entries known to be the leader's.
    :param round: counts up from 1; an answer to it confirms the leadership for all reads that waited when it went
        out. 0 wants no answer: it only tells the commit index.
    """

    term: Count
    commit: Count
    round: Count


class HeartbeatResponse(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """
    The sender follows the leader of this term, and has seen this round.

    :param agreed: how far it knows its log to be the leader's. After a restart in mid-term that is nothing, though
        the leader remembers what it had: it can't take over a commit index then, and has to be told anew.
    """

    term: Count
    round: Count
    agreed: Count | None = None


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """
    RequestVote (thesis 3.4), or its rehearsal (PreVote, thesis 9.6).

    :param term: the candidate's term; in a rehearsal the one that it would have.
    :param preliminary: a rehearsal: nobody's term or vote changes.
    :param forced: sent at the leader's own wish (leadership transfer, thesis 3.10): a lease is no reason to refuse.
    """

    term: Count
    last_index: Count
    last_term: Count
    preliminary: bool
    forced: bool


class VoteResponse(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """
    The answer to a :class:`VoteRequest`.

    :param term: the voter's term; when a rehearsal is granted the request's.
    """

    term: Count
    granted: bool
    preliminary: bool


class ReadIndexRequest(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """
    A follower asks how far it must have applied so that a read is linearizable (thesis 6.4).

    :param context: the asker's number for all reads that wait for the answer; never used again.
    """

    term: Count
    context: Count


class ReadIndexResponse(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Reads that waited when ``context`` was asked are safe once ``index`` is applied."""

    term: Count
    context: Count
    index: Count


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The leader wishes the receiver to take over: it campaigns at once (thesis 3.10)."""

    term: Count


class Removed(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """
    The leader says that the receiver is no member any more.

    :param index: the committed membership entry that has it no longer.
    """

    term: Count
    index: Count


Message: TypeAlias = (
    Append
    | AppendResponse
    | AppendRejection
    | Heartbeat
    | HeartbeatResponse
    | VoteRequest
    | VoteResponse
    | ReadIndexRequest
    | ReadIndexResponse
    | TimeoutNow
    | Removed
)


class Sender(msgspec.Struct, frozen=True):
    """
    Who said something, as the transport has authenticated it.

    :param disk_id: the random identity of the node's disk; a member's answers count only from the disk that it
        joined with.
    """

    node_id: str
    disk_id: str


class Outgoing(msgspec.Struct, frozen=True):
    """A message for a node; it may be lost, doubled, late, or overtaken."""

    to: str
    message: Message
