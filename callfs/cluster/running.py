"""A node that takes part: everything that exists once its log and its state are open, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from callfs.cluster.acquaintances import Acquaintances
from callfs.cluster.answering import Answers, Leadership
from callfs.cluster.applying import Applier
from callfs.cluster.changes import Changes
from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.disklog import DiskLog
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ISnapshot, IStateMachine, ITransport, StateUnusable, Step
from callfs.cluster.leaderless import Founding, WindingDown
from callfs.cluster.observing import Chronicle, ClusterObserver
from callfs.cluster.outside import why_outside
from callfs.cluster.proposals import Proposals
from callfs.cluster.settings import ClusterSettings
from callfs.cluster.snapshot_receiving import SnapshotReceiving
from callfs.cluster.snapshot_sending import SnapshotSending
from callfs.cluster.turns import Turns
from callfs.cluster.upkeep import Upkeep
from callfs.cluster.waiting_reads import WaitingReads
from callfs.cluster.wire import Malformed
from callfs.deferreds import returns_deferred
from callfs.identifiers import TokenBytes
from callfs.raft.boundary import Role, SnapshotMeta
from callfs.raft.core import Core
from callfs.raft.messages import Message, Sender

_STOPPED = "this node doesn't take part in the metadata cluster any more"
_FULL = (
    "the disk of this node's metadata is full, so it can't follow what the other nodes have written: make room in "
    "its raft.data_dir, or ask another node"
)
_POLL_SECONDS = 0.02

_MESSAGES: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Running:
    """
    A node that takes part, from :meth:`start` to :meth:`stop`.

    :param identity: this node as its peers see it.
    :param pool: threads for files.
    :param halted: called once with why the node can't go on, for the operator.
    """

    _log = Logger()

    def __init__(
        self,
        core: Core,
        identity: Callable[[], PeerIdentity],
        *,
        settings: ClusterSettings,
        reactor: Any,
        pool: ThreadPool,
        log: DiskLog,
        state: IStateMachine,
        transport: ITransport,
        instant: Callable[[], int],
        token_bytes: TokenBytes,
        observer: ClusterObserver,
        halted: Callable[[str], None],
    ) -> None:
        self.core = core
        self._founding = Founding(core)
        self._winding_down = WindingDown(
            core, reactor.seconds, settings.election_timeout_seconds, self._refuse_what_waits
        )
        self.full_log = self.full_state = False
        self._settings = settings
        self._reactor = reactor
        self._disk_log = log
        self._state = state
        self._observer = observer
        self._halted = halted
        self._stopping = False
        node_id = settings.node_id
        self._acquaintances = Acquaintances(node_id, transport, reactor.seconds, settings.peers)
        self._applier = Applier(
            state,
            reactor,
            decided=lambda steps, outcomes: self.proposals.applied(steps, outcomes),
            applied=self._applied,
            failed=self._halt,
            full=self._state_full,
        )
        self.proposals = Proposals(
            seconds=reactor.seconds,
            instant=instant,
            token_bytes=token_bytes,
            timeout_seconds=settings.apply_timeout_seconds,
            observer=observer,
            wake=self.wake,
        )
        self.reads = WaitingReads(
            seconds=reactor.seconds,
            timeout_seconds=settings.apply_timeout_seconds,
            wake=self.wake,
            held_up=lambda: _FULL if self.full_log or self.full_state else why_outside(core, identity().cluster_id),
        )
        self._sending = SnapshotSending(
            transport,
            reactor,
            take=self._take_snapshot,
            is_current=lambda index: index >= core.status().first_index - 1,
            sent=self._snapshot_sent,
            failed=self._snapshot_failed,
            observer=observer,
        )
        self._receiving = SnapshotReceiving(
            log.folder,
            in_thread=lambda function, *args: deferToThreadPool(reactor, pool, function, *args),
            wants=self._wants_snapshot,
            install=self._install,
            observer=observer,
        )
        self._changes = Changes(
            core,
            node_id,
            transport,
            reactor,
            seconds_limit=settings.apply_timeout_seconds,
            election_seconds=settings.election_timeout_seconds,
            wake=self.wake,
        )
        self.answers = Answers(core, self._changes, self._receiving, heard_of=self._acquaintances.heard_of)
        self.leadership = Leadership(
            core, node_id, transport, reactor, timeout_seconds=settings.apply_timeout_seconds
        )
        self._turns = Turns(
            core,
            node_id,
            reactor,
            log=log,
            transport=transport,
            applier=self._applier,
            proposals=self.proposals,
            reads=self.reads,
            sending=self._sending,
            acquaintances=self._acquaintances,
            chronicle=Chronicle(node_id, observer),
            forward_seconds=settings.forward_timeout_seconds,
            broken=self._halt,
        )
        self._upkeep = Upkeep(
            core,
            settings,
            reactor,
            identity=identity,
            cut=self._checkpoint,
            sightings=self._acquaintances.sightings,
            announce=lambda asking: self.leadership.ask(asking, self.answers, identity()),
            observer=observer,
        )
        self._ticking = LoopingCall(self._turns.tick)
        self._ticking.clock = reactor
        self._watching = LoopingCall(self._turns.guarded, self._watch)
        self._watching.clock = reactor

    def start(self, campaign: bool) -> None:
        """
        Begin to take part.

        :param campaign: at once, and again until somebody leads, rather than when nobody else does.
        """
        self._disk_log.start(self)
        if campaign:
            self._founding.begin()
        if not self.core.membership.members:
            self._acquaintances.begin()
        self._ticking.start(self._settings.tick_seconds, now=False)
        self._watching.start(self._settings.heartbeat_interval_seconds, now=False)
        self.wake()

    def wake(self) -> None:
        """There is something to do."""
        self._turns.wake()

    def wind_down(self) -> None:
        """This node is about to stop: nobody waits for a leader any more who won't come."""
        self._winding_down.begin()

    @returns_deferred
    async def hand_over(self) -> None:
        """Hand the leadership over, if this node has it and another takes it within an election timeout."""
        if self.core.role is not Role.LEADER or self.core.transfer_leadership(None) is not None:
            return
        self.wake()
        given_up_at = self._reactor.seconds() + self._settings.election_timeout_seconds
        while self.core.leader == self._settings.node_id and self._reactor.seconds() < given_up_at:
            if self.core.status().transferring_to is None:
                return
            await deferLater(self._reactor, _POLL_SECONDS)

    @returns_deferred
    async def stop(self) -> None:
        """Take no part any more; what waits is refused. The log and the state are still open after it."""
        self._stopping = True
        for each in (self._ticking, self._watching):
            if each.running:
                each.stop()
        self._turns.stop()
        self._refuse_what_waits()
        self._changes.stop()
        self.answers.stop()
        # First: a state that came in waits for what is being applied, which a full disk may hold up for ever.
        applied = self._applier.stop()
        await self._sending.stop()
        await self._receiving.settled()
        await self._upkeep.settled()
        await applied

    # From peers

    def message(self, peer: PeerIdentity, payload: bytes) -> None:
        """
        A peer of this cluster says something.

        :raises callfs.cluster.wire.Malformed: nobody understands it.
        """
        try:
            message = _MESSAGES.decode(payload)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
            raise Malformed("a message that isn't understood") from None
        self._acquaintances.met(peer)
        self._turns.guarded(self.core.step, Sender(peer.node_id, peer.disk_id), message)
        self.wake()

    def reached_by(self, peer: PeerIdentity) -> None:
        """A peer of this cluster has made a connection to this node."""
        self._acquaintances.reached_by(peer)

    def asked(self, peer: PeerIdentity, payload: bytes) -> Deferred[bytes]:
        """A peer of this cluster asks."""
        answering = self.answers.answer(peer, payload)
        self.wake()
        return answering

    # From the log (LogEvents)

    def log_persisted(self, number: int, seconds: float) -> None:
        """Writes became durable."""
        self._observer.raft_log_written(seconds)
        if not self._stopping:
            self._turns.guarded(self.core.persisted, number)
            self.wake()

    def log_full(self, full: bool) -> None:
        """The log can't grow, or can again."""
        self.full_log = full
        self._tell_writable()

    def log_failed(self, reason: str) -> None:
        """The log's disk failed."""
        self._halt(reason)

    def _state_full(self, full: bool) -> None:
        self.full_state = full
        self._tell_writable()

    def _tell_writable(self) -> None:
        writable = not (self.full_log or self.full_state)
        if not writable:
            self._observer.error("raft", "disk_full")
            self._log.error(
                "the disk of the raft log or state is full: no changes until there is room", event="raft_disk_full"
            )
        else:
            self._log.info("the disk of the raft log and state has room again", event="raft_disk_has_room")
        self.core.set_writable(writable)
        self.wake()

    # From the state machine

    def _applied(self, steps: Sequence[Step]) -> None:
        self.core.applied(steps[-1].index)
        self._changes.applied(steps)
        if self.reads.are_asked or self.core.applied_index < self.core.commit_index:
            self.wake()

    def _halt(self, reason: str) -> None:
        if not self._stopping:
            self._stopping = True
            self._halted(reason)

    @returns_deferred
    async def _checkpoint(self) -> None:
        """Cut the log where the state is durable."""
        index = await self._applier.exclusively(self._state.checkpoint)
        if not self._stopping:
            self.core.compact(index)
            self.wake()

    def _take_snapshot(self) -> Deferred[ISnapshot]:
        return self._applier.exclusively(self._state.snapshot)

    def _snapshot_sent(self, node_id: str, index: int) -> None:
        self.core.snapshot_sent(node_id, index)
        self.wake()

    def _snapshot_failed(self, node_id: str) -> None:
        self.core.snapshot_failed(node_id)
        self.wake()

    def _wants_snapshot(self, meta: SnapshotMeta) -> bool:
        wanted = not self._stopping and self.core.wants_snapshot(meta)
        self.wake()
        return wanted

    @returns_deferred
    async def _install(self, file: Path, meta: SnapshotMeta) -> bool:
        """
        Exchange the state, after all that was handed out for the old one.

        :raises DeclinedQuestion: it couldn't be exchanged.
        """
        if not self.core.begin_installation(meta):
            if self.core.wants_snapshot(meta):
                raise DeclinedQuestion("busy")
            return False
        try:
            await self._applier.drained()
            if self._is_stopping():
                raise DeclinedQuestion("stopping")
            await self._applier.exclusively(lambda: self._state.install(file, meta))
        except DeclinedQuestion:
            self.core.installation_failed()
            raise
        except Exception as error:
            self.core.installation_failed()
            self._observer.raft_snapshot("failed")
            if not isinstance(error, StateUnusable):
                self._log.failure("couldn't install a state", event="raft_snapshot_failed")
            else:
                self._log.error("couldn't install a state: {error}", event="raft_snapshot_failed", error=str(error))
            self.wake()
            raise DeclinedQuestion("install") from error
        if not self._stopping:
            self.core.snapshot_installed(meta)
            self.proposals.jumped(meta.index)
            self.wake()
        return True

    def _is_stopping(self) -> bool:
        return self._stopping

    def _refuse_what_waits(self) -> None:
        self.proposals.close(_STOPPED)
        self.reads.close(_STOPPED)
        self.leadership.stop()

    def _watch(self) -> None:
        if self._founding.look():
            self.wake()
        self._winding_down.look()
        self._acquaintances.look()
        self._upkeep.look(self._halt)
