"""What goes in and out of the core: what it starts from, its settings, and what it wants done."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from callfs.raft.membership import NOBODY, Membership
from callfs.raft.messages import Count, Entry, EntryKind, Outgoing
from callfs.raft.refusal import Refusal as Refusal


class RandomSource(Protocol):
    """
    Where chance comes from; :class:`random.Random` is one.

    It must not repeat itself after a restart: numbers that are drawn tell old answers from new ones.
    """

    def randrange(self, start: int, stop: int) -> int:
        """A whole number from ``start`` to before ``stop``."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a core behaves; the same on all nodes, but nothing breaks when it isn't.

    :param election_ticks: a follower that hears nothing campaigns after this many ticks up to twice as many.
    :param heartbeat_ticks: between two heartbeats; at most a third of ``election_ticks``.
    :param max_inflight: appends under way to one follower.
    :param max_inflight_bytes: data in them, together.
    :param max_batch_bytes: data in one append; at least one entry goes, however large.
    :param max_apply_bytes: data handed out for applying in one go.
    :param max_entry_bytes: data of one command; it has to fit into a message of the transport with room to spare.
    :param max_uncommitted_bytes: proposals beyond it are refused as busy.
    :param max_log_bytes: data in memory since the last cut. Over it a cut spares nothing for slow followers, and
        over twice that no more entries are taken until one has been made.
    :param keep_entries: spared for slow followers when the log is cut.
    :param promotion_lag: a learner that lacks at most so many entries becomes a voter.
    """

    election_ticks: int = 10
    heartbeat_ticks: int = 1
    max_inflight: int = 256
    max_inflight_bytes: int = 16 * 2**20
    max_batch_bytes: int = 2**20
    max_apply_bytes: int = 4 * 2**20
    max_entry_bytes: int = 8 * 2**20
    max_uncommitted_bytes: int = 64 * 2**20
    max_log_bytes: int = 128 * 2**20
    keep_entries: int = 4096
    promotion_lag: int = 64


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """
    What a node must never forget (thesis figure 3.1), and how far it knew the log committed.

    :param vote: whom it voted for in ``term``; ``None`` for nobody.
    :param commit: may be older than what was known: it is written along with other things only.
    """

    term: Count
    vote: str | None
    commit: Count


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True):
    """
    The log up to ``index`` is contained in a state.

    :param index: the last entry that is.
    :param term: of that entry.
    :param membership: in force there.
    """

    index: Count
    term: Count
    membership: Membership


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a node starts from: what was durable, nothing else.

    :param point: where the log was cut; entries up to it are gone.
    :param entries: those after it, without a gap.
    :param applied: the state machine's applied index; at least the point's, at most the last entry's (see
        :func:`with_state`).
    :param log_is_stale: what the storage has of a log isn't ``entries`` and is to be discarded for ``point``.
    """

    hard_state: HardState = HardState(0, None, 0)
    point: SnapshotMeta = SnapshotMeta(0, 0, NOBODY)
    entries: tuple[Entry, ...] = ()
    applied: int = 0
    log_is_stale: bool = False


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is to become durable, all or nothing, in the order of ``number``.

    To be carried out in this order: ``discard_log``, ``point``, ``entries``, ``hard_state``. Several in a row may
    go into one transaction. :meth:`callfs.raft.core.Core.persisted` reports it.

    :param number: counts up from 1.
    :param discard_log: all stored entries go.
    :param point: record it, and drop the stored entries up to its index.
    :param entries: without a gap; stored entries from the first one's index on go before.
    :param hard_state: replaces the stored one; ``None`` leaves it.
    """

    number: int
    discard_log: bool = False
    point: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None


class Role(enum.Enum):
    """What a node is at the moment (thesis 3.3, 9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Position(msgspec.Struct, frozen=True, gc=False):
    """
    Where a proposal is in the log.

    It is committed when an entry of that term is handed out at that index, and lost when one of another term is.
    """

    term: int
    index: int


class Taken(msgspec.Struct, frozen=True):
    """
    What became of several proposals: the first ``count`` are in the log, one after the other.

    :param index: of the first; of no meaning when ``count`` is 0.
    :param refusal: why the next one isn't; ``None`` when all are.
    """

    term: int
    index: int
    count: int
    refusal: Refusal | None


class Standing(msgspec.Struct, frozen=True):
    """
    What observers want to know at once.

    :param leader: the leader of ``term`` as far as known.
    :param removed: a leader said that this node is no member any more; it doesn't campaign.
    """

    role: Role
    term: int
    leader: str | None
    removed: bool


class SafeRead(msgspec.Struct, frozen=True):
    """
    A read may be served from this node's state now.

    :param token: as it was given to :meth:`callfs.raft.core.Core.read`.
    :param index: what had to be applied, and is.
    """

    token: int
    index: int


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is to be done. Each thing is handed out once.

    :param write: to be made durable, after all writes before it.
    :param messages: may go out at once, before the write is done: those that promise something durable come only
        after :meth:`callfs.raft.core.Core.persisted`.
    :param committed: to be applied in order, no-ops and memberships too (they move the applied index); all are
        durable here.
    :param reads: may be served now.
    :param failed_reads: tokens of reads that got no answer; asking again is fine.
    :param snapshots: nodes that need a copy of the state; the driver streams one and reports with ``snapshot_sent``
        or ``snapshot_failed``. Of no more use once this node doesn't lead.
    :param standing: if it has changed.
    :param membership: if it has changed: the one to connect by, maybe uncommitted.
    """

    write: Write | None = None
    messages: tuple[Outgoing, ...] = ()
    committed: tuple[Entry, ...] = ()
    reads: tuple[SafeRead, ...] = ()
    failed_reads: tuple[int, ...] = ()
    snapshots: tuple[str, ...] = ()
    standing: Standing | None = None
    membership: Membership | None = None


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far a follower is, as its leader sees it.

    :param state: ``probe``, ``replicate`` or ``snapshot``.
    :param match: durable there up to this index.
    :param silent_ticks: since it was last heard.
    :param other_disk: it answers from another disk than it joined with, or one that was set back, so it doesn't
        count.
    """

    node_id: str
    voter: bool
    state: str
    match: int
    next_index: int
    inflight: int
    silent_ticks: int
    other_disk: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """
    Everything that metrics and ``cluster status`` show.

    :param durable: this node's log is durable up to it.
    :param leader_silent_ticks: since the leader was last heard; 0 on the leader.
    :param refused_conflicts: appends that contradicted what is committed here: above 0 some node has lost or
        forged data.
    :param peers: on the leader, in the order of ids; empty elsewhere.
    """

    node_id: str
    role: Role
    term: int
    leader: str | None
    removed: bool
    writable: bool
    commit: int
    applied: int
    durable: int
    last_index: int
    first_index: int
    log_bytes: int
    leader_silent_ticks: int
    transferring_to: str | None
    refused_conflicts: int
    membership: Membership
    peers: tuple[PeerStatus, ...]


def first_write(membership: Membership) -> Write:
    """
    What makes a fresh disk the start of a cluster: its first entry is the membership.

    Written to each of several nodes, it makes them the same cluster. Others get the entry with the log.

    :param membership: with the cluster's id and at least one voter.
    :raises ValueError: it has none.
    """
    if not membership.cluster_id or not membership.voters:
        raise ValueError("a cluster begins with an id and a voter")
    entry = Entry(1, 1, EntryKind.MEMBERSHIP, msgspec.msgpack.encode(membership))
    return Write(number=0, entries=(entry,), hard_state=HardState(1, None, 1))


def with_state(saved: Saved, state: SnapshotMeta) -> Saved:
    """
    What a node starts from when its state machine's file says what it contains.

    A state that was installed shortly before a crash may be ahead of the log; then the log that is left is worth
    nothing and the state takes its place. The storage must be told so before it takes other writes: the core hands
    out that write first.

    :param state: what the file contains; the membership in force there.
    :raises ValueError: the state is older than where the log was cut: entries between are missing.
    """
    if state.index < saved.point.index:
        raise ValueError(f"the state has {state.index}, but the log begins after {saved.point.index}")
    if state.index == saved.point.index or _has_entry(saved.entries, state.index, state.term):
        return msgspec.structs.replace(saved, applied=state.index)
    known = saved.hard_state
    newer = state.term > known.term
    return Saved(
        hard_state=HardState(state.term, None, state.index)
        if newer
        else HardState(known.term, known.vote, state.index),
        point=state,
        applied=state.index,
        log_is_stale=True,
    )


def _has_entry(entries: tuple[Entry, ...], index: int, term: int) -> bool:
    if not entries or not entries[0].index <= index <= entries[-1].index:
        return False
    return entries[index - entries[0].index].term == term
