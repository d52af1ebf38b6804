"""
The Raft core: a state machine without I/O.

The driver feeds it (messages, ticks, proposals, reads, "that is durable now") and afterwards takes
:meth:`Core.ready` until it is ``None``, doing what it says. Nothing goes out by itself: everything that one turn of
the reactor brings in is answered by one batch of entries, messages and one write.

::

    core.step(sender, message); core.propose(data); core.tick(); ...
    while (ready := core.ready()) is not None:
        send ready.messages           # at once
        store ready.write             # in a thread, in order; then core.persisted(write.number)
        apply ready.committed         # in order; then core.applied(index)
        serve ready.reads             # from the own state, now
"""

from __future__ import annotations

from collections.abc import Sequence

from callfs.raft.admission import Admission
from callfs.raft.boundary import (
    Position,
    RandomSource,
    Ready,
    Refusal,
    Role,
    Saved,
    Settings,
    SnapshotMeta,
    Standing,
    Status,
    Taken,
)
from callfs.raft.election import Election
from callfs.raft.membership import Membership, MembershipChange
from callfs.raft.messages import Entry, Message, Outgoing, Sender
from callfs.raft.reads import Reads
from callfs.raft.replica import Replica
from callfs.raft.replication import Replication
from callfs.raft.roles import Roles


class Core:
    """
    One node's Raft.

    :param node_id: this node.
    :param disk_id: the random identity of this node's disk.
    :param saved: what was durable; the default of :class:`callfs.raft.boundary.Saved` on a fresh disk.
    :param settings: ticks and limits.
    :param random: chance, seeded by whoever wants the same run again.
    :raises ValueError: ``saved`` contradicts itself, for instance has a gap.

    The rules whose loss a simulation must notice are methods of the parts that these attributes name, so that a
    subclass can break each one from outside: ``Election.rehearses`` (PreVote), ``Replication.own_match`` (a leader
    counts its log only when durable), ``Replication.may_commit`` (only entries of the own term are committed by
    counting), ``Reads.ask`` (ReadIndex). The fifth, that votes survive a restart, is the storage's.
    """

    election_type: type[Election] = Election
    replication_type: type[Replication] = Replication
    reads_type: type[Reads] = Reads

    def __init__(
        self, *, node_id: str, disk_id: str, saved: Saved, settings: Settings, random: RandomSource
    ) -> None:
        self._replica = replica = Replica(
            node_id=node_id, disk_id=disk_id, saved=saved, settings=settings, random=random
        )
        self._replication = self.replication_type(replica)
        self._reads = self.reads_type(replica, self._replication)
        self._roles = Roles(
            replica,
            election=self.election_type(replica),
            replication=self._replication,
            reads=self._reads,
        )
        self._admission = Admission(replica)
        self._handed_index = saved.applied
        self._installing = False
        self._shown_standing: Standing | None = None
        self._shown_membership: Membership | None = None

    @property
    def role(self) -> Role:
        """What this node is at the moment."""
        return self._replica.role

    @property
    def term(self) -> int:
        """The newest term that this node knows."""
        return self._replica.term

    @property
    def leader(self) -> str | None:
        """The leader of that term as far as known; this node itself if it leads."""
        return self._replica.leader

    @property
    def commit_index(self) -> int:
        """Everything up to it is committed."""
        return self._replica.commit

    @property
    def applied_index(self) -> int:
        """Everything up to it was reported as applied."""
        return self._replica.applied

    @property
    def last_index(self) -> int:
        """The end of the log in memory, durable or not."""
        return self._replica.log.last_index

    @property
    def membership(self) -> Membership:
        """The membership in force: the last in the log, committed or not."""
        return self._replica.membership

    # -- inputs

    def tick(self) -> None:
        """One unit of time has passed."""
        self._roles.tick()

    def step(self, sender: Sender, message: Message) -> None:
        """A message has come in. Whatever it says, it raises nothing."""
        self._roles.step(sender, message)

    def propose(self, data: bytes) -> Position | Refusal:
        """
        Append a command (leader only). It goes out with the next :meth:`ready`, together with others.

        :returns: where it is; or ``NOT_LEADER``, ``TRANSFERRING``, ``BUSY``, ``TOO_LARGE``, ``UNWRITABLE``.
        """
        taken = self.propose_all((data,))
        return taken.refusal or Position(taken.term, taken.index)

    def propose_all(self, commands: Sequence[bytes]) -> Taken:
        """
        Append commands (leader only), one after the other until one is refused.

        :returns: where those are that were taken, and why the next one wasn't, as :meth:`propose` says it.
        """
        replica = self._replica
        count, refusal = 0, self._refuses_writes()
        if refusal is None:
            count, refusal = self._admission.fitting(commands)
        index = replica.log.last_index + 1
        if count:
            replica.append_commands(commands[:count])
        return Taken(replica.term, index, count, refusal)

    def propose_membership(self, change: MembershipChange) -> Position | Refusal:
        """
        Change the membership by one node (leader only, thesis 4.1).

        :returns: where the new membership is; or besides what :meth:`propose` may say: ``NOT_YET``,
            ``CHANGE_PENDING``, ``UNCHANGED``, ``UNKNOWN_MEMBER``, ``OTHER_DISK``, ``ADDRESS_TAKEN``,
            ``LAST_VOTER``, ``WITHOUT_MAJORITY``.
        """
        return self._refuses_writes() or self._roles.changes.propose(change)

    def read(self, token: int) -> None:
        """
        Ask for a linearizable read on this node, whatever its role (ReadIndex, thesis 6.4).

        The token comes back in ``Ready.reads`` once this node's state contains everything that was committed when
        it was asked, or in ``Ready.failed_reads`` when there was no answer within two election timeouts or the
        leadership was lost. Reads that wait share one round.
        """
        self._reads.ask(token)

    def transfer_leadership(self, to: str | None) -> Refusal | None:
        """
        Hand the leadership over (leader only, thesis 3.10); no proposals are taken meanwhile.

        It is given up after an election timeout. Done when the standing says so.

        :param to: a voter; ``None`` for the one that is furthest.
        :returns: ``None`` when it is under way (or this node was asked for itself); or ``NOT_LEADER``,
            ``UNKNOWN_MEMBER``, ``NOT_A_VOTER``, ``UNREACHABLE``.
        """
        if self._replica.role is not Role.LEADER:
            return Refusal.NOT_LEADER
        return self._roles.handover.start(to)

    def campaign(self) -> None:
        """Campaign now instead of when the time is up; for a cluster's first node. Nothing where it can't lead."""
        if self._replica.role is not Role.LEADER:
            self._roles.campaign()

    def set_writable(self, writable: bool) -> None:
        """
        Whether this node's disk has room. Without, it refuses proposals, doesn't campaign, and hands the leadership
        over as soon as another voter is up to date; until then it leads on, so that reads are served.

        It still takes what a leader sends: on a disk that is nearly full it goes in, and on one that is full the
        write stays due, to be tried again, and nothing is promised before.
        """
        self._replica.writable = writable
        if not writable and self._replica.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self._roles.follow(self._replica.term, None)

    # -- reports

    def persisted(self, number: int) -> None:
        """All writes up to that number are durable."""
        self._replica.outbox.extend(self._replica.durability.persisted(number))
        self._roles.own_write_is_durable()

    def applied(self, index: int) -> None:
        """The state machine contains everything up to that index (of what was handed out)."""
        self._replica.applied = max(self._replica.applied, min(index, self._handed_index))

    def compact(self, checkpointed: int) -> None:
        """
        The log may be cut: the state up to that index is durable.

        What is spared for slow followers stays (``keep_entries``, ``max_log_bytes``). The cut comes as a write.
        """
        replica, settings = self._replica, self._replica.settings
        index = min(checkpointed, replica.applied, replica.durability.index)
        if replica.log.size_bytes <= settings.max_log_bytes:
            index = min(index, replica.applied - settings.keep_entries)
        if index > replica.log.point_index:
            replica.cut(index)

    # -- snapshots, sending

    def snapshot_meta(self, index: int) -> SnapshotMeta:
        """
        What to say of a copy of the state that contains everything up to ``index``.

        :raises ValueError: the log doesn't reach there or was cut after it.
        """
        return self._replica.point_at(index)

    def snapshot_sent(self, to: str, index: int) -> None:
        """The peer has said that it installed the state up to ``index``, or got it whole."""
        progress = self._replication.peers.get(to)
        if progress is not None:
            progress.snapshot_ended(min(index, self._replica.log.last_index))

    def snapshot_failed(self, to: str) -> None:
        """The copy didn't get there; it is asked for again when the peer is heard."""
        progress = self._replication.peers.get(to)
        if progress is not None:
            progress.snapshot_ended(None)

    # -- snapshots, receiving

    def wants_snapshot(self, meta: SnapshotMeta) -> bool:
        """Whether a state of that kind would bring this node on; to be asked before fetching it."""
        replica = self._replica
        if replica.log.term_at(meta.index) == meta.term:
            replica.commit = max(replica.commit, meta.index)
        if meta.index > replica.commit and replica.role is not Role.LEADER:
            return True
        self._roles.acknowledge()
        return False

    def begin_installation(self, meta: SnapshotMeta) -> bool:
        """
        The copy is here, whole and durable, and is about to take the place of this node's state.

        From ``True`` on nothing is handed out for applying until one of the next two is called; what was handed out
        before has to be applied before the states are exchanged.

        :returns: ``False`` when it is of no use any more, or another is being installed.
        """
        if self._installing or not self.wants_snapshot(meta):
            return False
        self._installing = True
        return True

    def snapshot_installed(self, meta: SnapshotMeta) -> None:
        """The new state is in place, durably: the log goes on from there. The leader is told."""
        replica = self._replica
        self._installing = False
        if meta.index <= replica.applied:
            return
        if meta.term > replica.term:
            self._roles.follow(meta.term, None)
        if replica.log.term_at(meta.index) == meta.term:
            replica.cut(meta.index)
        else:
            replica.restart_log(meta)
        replica.commit = max(replica.commit, meta.index)
        replica.applied = self._handed_index = meta.index
        self._roles.state_installed(meta.index)

    def installation_failed(self) -> None:
        """The old state is still in place."""
        self._installing = False

    # -- outputs

    def ready(self) -> Ready | None:
        """What is to be done now; ``None`` for nothing. Call it after every batch of inputs until then."""
        replica = self._replica
        self._reads.flush()
        committed = self._take_committed()
        snapshots: tuple[str, ...] = ()
        if replica.role is Role.LEADER:
            # What is applied may bring proposals, which take the commit index along: else it goes out next.
            snapshots = self._replication.feed(tell_commit=not committed)
        write = replica.durability.take(replica.log, replica.hard_state)
        replica.outbox.extend(replica.durability.kept())
        reads, failed_reads = self._reads.take(replica.applied)
        messages = self._take_messages()
        standing, membership = self._changed_standing(), self._changed_membership()
        if not (write or messages or committed or reads or failed_reads or snapshots or standing or membership):
            return None
        return Ready(
            write=write,
            messages=messages,
            committed=committed,
            reads=reads,
            failed_reads=failed_reads,
            snapshots=snapshots,
            standing=standing,
            membership=membership,
        )

    def status(self) -> Status:
        """Everything about this node, for people and metrics."""
        replica = self._replica
        return Status(
            node_id=replica.node_id,
            role=replica.role,
            term=replica.term,
            leader=replica.leader,
            removed=replica.removed,
            writable=replica.writable,
            commit=replica.commit,
            applied=replica.applied,
            durable=replica.durability.index,
            last_index=replica.log.last_index,
            first_index=replica.log.point_index + 1,
            log_bytes=replica.log.size_bytes,
            leader_silent_ticks=self._roles.leader_silent_ticks,
            transferring_to=self._roles.handover.to,
            refused_conflicts=replica.refused_conflicts,
            membership=replica.membership,
            peers=self._replication.status(),
        )

    def _refuses_writes(self) -> Refusal | None:
        if self._replica.role is not Role.LEADER:
            return Refusal.NOT_LEADER
        if not self._replica.writable:
            return Refusal.UNWRITABLE
        return Refusal.TRANSFERRING if self._roles.handover.to is not None else None

    def _take_messages(self) -> tuple[Outgoing, ...]:
        messages = tuple(self._replica.outbox)
        self._replica.outbox.clear()
        return messages

    def _take_committed(self) -> tuple[Entry, ...]:
        """
        What may be applied: it is committed, and durable here too.

        So the state is never ahead of this node's own log, whatever is lost in a crash.
        """
        replica, limit = self._replica, self._replica.settings.max_apply_bytes
        stop = min(replica.commit, replica.durability.index)
        if self._installing or stop <= self._handed_index:
            return ()
        if replica.log.bytes_between(replica.applied, self._handed_index) >= limit:
            return ()
        committed = replica.log.slice(self._handed_index + 1, stop, limit)
        self._handed_index = committed[-1].index
        return committed

    def _changed_standing(self) -> Standing | None:
        replica = self._replica
        standing = Standing(replica.role, replica.term, replica.leader, replica.removed)
        if standing == self._shown_standing:
            return None
        self._shown_standing = standing
        return standing

    def _changed_membership(self) -> Membership | None:
        membership = self._replica.membership
        if membership is self._shown_membership:
            return None
        self._shown_membership = membership
        return membership
