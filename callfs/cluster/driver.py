"""A node of the cluster: raft's core with a clock, a log, peers and a state machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.disklog import DiskLog
from callfs.cluster.forming import Forming
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import (
    Applied,
    ChangeRefused,
    ClusterStatus,
    IReplicator,
    IStateMachine,
    ITransport,
)
from callfs.cluster.logfile import LogUnusable, StoredLog
from callfs.cluster.observing import ClusterObserver
from callfs.cluster.questions import Asking, Changed, Join, Remove, Transfer
from callfs.cluster.running import Running
from callfs.cluster.settings import ClusterSettings
from callfs.deferreds import returns_deferred, shielded
from callfs.errors import InsufficientStorage, MetadataUnavailable, PayloadTooLarge
from callfs.identifiers import TokenBytes, new_store_id
from callfs.raft.boundary import RandomSource, Saved, first_write, with_state
from callfs.raft.core import Core
from callfs.raft.membership import NOBODY, Membership

MAX_COMMAND_BYTES = 8 * 1024 * 1024
"""A command has to fit into a message between peers."""

T = TypeVar("T")

_NOT_FORMED = "this node isn't part of a metadata cluster yet; nothing was changed"
_STOPPED = "this node doesn't take part in the metadata cluster any more; nothing was changed"
_FULL = "the disk of this node's metadata is full; nothing was changed"


@implementer(IReplicator)
class RaftNode:
    """
    Takes part in a cluster between :meth:`start` and :meth:`stop`.

    :param settings: this node and its cluster.
    :param reactor: time, threads and sockets; its clock must not jump.
    :param pool: threads for files; running while the node does.
    :param log: of this node; opened and closed by it.
    :param state: what commands are applied to; opened and closed by it.
    :param transport: to the peers; started and stopped by it.
    :param instant: the wall clock in microseconds, for the age of clients alone.
    :param random: for election timeouts; must not repeat itself after a restart (``random.SystemRandom()``).
    :param token_bytes: makes the cluster's id and nonces.
    :param observer: is told what happens.
    :param failed: called once, with a message for the operator, when a running node can't go on (a failed disk, an
        entry that it doesn't know). It takes no part any more then; the process is to end.
    """

    _log = Logger()

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        reactor: Any,
        pool: ThreadPool,
        log: DiskLog,
        state: IStateMachine,
        transport: ITransport,
        instant: Callable[[], int],
        random: RandomSource,
        token_bytes: TokenBytes,
        observer: ClusterObserver,
        failed: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._pool = pool
        self._disk_log = log
        self._state = state
        self._transport = transport
        self._instant = instant
        self._random = random
        self._token_bytes = token_bytes
        self._observer = observer
        self._failed = failed
        self._stored: StoredLog | None = None
        self._cluster_id = ""
        self._forming: Forming | None = None
        self._running: Running | None = None
        self._starting: Deferred[None] | None = None
        self._opened: Deferred[None] | None = None
        self._transport_started = False
        self._stopped_because = ""
        self._stopping: Deferred[None] | None = None

    # Its life

    def start(self) -> Deferred[None]:
        """
        Open everything and begin to take part. A cluster that is to be formed waits for all its nodes first.

        :raises callfs.cluster.logfile.LogUnusable: the log can't be used, or doesn't fit the state.
        :raises callfs.cluster.interfaces.StateUnusable: the state can't be used.
        :raises callfs.cluster.forming.CannotForm: no cluster may be formed out of these nodes.
        :raises twisted.internet.error.CannotListenError: the address isn't free.
        """
        self._starting = Deferred.fromCoroutine(self._start())
        return self._starting

    async def _start(self) -> None:
        stored = self._stored = await self._to_its_end(
            deferToThreadPool(self._reactor, self._pool, self._disk_log.open)
        )
        self._cluster_id = stored.cluster_id
        meta = await self._to_its_end(self._state.open())
        try:
            saved = with_state(stored.saved, meta)
        except ValueError as error:
            raise self._unfit(f"the state of this raft node is older than its log ({error})") from error
        self._transport_started = True
        await self._transport.start(self._identity, self)
        forms = self._settings.bootstrap and not self._cluster_id and saved == Saved()
        if forms:
            saved = await self._form()
        self._run(saved, campaign=forms)

    def _unfit(self, finding: str) -> LogUnusable:
        return LogUnusable(
            f"{finding}. Remove the node from the cluster ('callfs cluster remove {self._settings.node_id}'), move "
            f"{self._disk_log.folder} away, and let it join again ('callfs cluster join')"
        )

    async def _form(self) -> Saved:
        """Find the other nodes, and write down who they are."""
        cluster_id = new_store_id(self._token_bytes)
        self._forming = Forming(self._settings, self._identity(), self._transport, self._reactor)
        write = first_write(await self._forming.membership(cluster_id))
        self._forming = None
        await self._to_its_end(
            deferToThreadPool(self._reactor, self._pool, self._disk_log.begin, cluster_id, write)
        )
        self._cluster_id = cluster_id
        self._transport.identity_changed()
        assert write.hard_state is not None
        self._log.info("formed a metadata cluster", event="raft_formed", cluster_id=cluster_id)
        return Saved(hard_state=write.hard_state, entries=write.entries)

    def _to_its_end(self, work: Deferred[T]) -> Deferred[T]:
        """A thread can't be broken off: whoever stops the node waits for it, and closes what it has opened."""
        opened = self._opened = Deferred[None]()

        def ended(result: T | Failure) -> T | Failure:
            opened.callback(None)
            return result

        return shielded(cast("Deferred[T]", work.addBoth(ended)))

    def _run(self, saved: Saved, campaign: bool) -> None:
        assert self._stored is not None
        try:
            core = Core(
                node_id=self._settings.node_id,
                disk_id=self._stored.identity.disk_id,
                saved=saved,
                settings=self._settings.core_settings(),
                random=self._random,
            )
        except ValueError as error:
            raise self._unfit(f"the raft log of this node contradicts itself ({error})") from error
        self._running = Running(
            core,
            self._identity,
            settings=self._settings,
            reactor=self._reactor,
            pool=self._pool,
            log=self._disk_log,
            state=self._state,
            transport=self._transport,
            instant=self._instant,
            token_bytes=self._token_bytes,
            observer=self._observer,
            halted=self._halt,
        )
        self._running.start(campaign)

    def wind_down(self) -> None:
        """Let nobody wait any more for what can't come; :meth:`stop` follows when what is under way has ended."""
        if self._running is not None:
            self._running.wind_down()

    def stop(self) -> Deferred[None]:
        """Hand the leadership over, refuse what waits, and close everything; a second call waits for the first."""
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop())
        done: Deferred[None] = Deferred()
        self._stopping.addBoth(_passed_on, done)
        return done

    async def _stop(self) -> None:
        if self._starting is not None and not self._starting.called:
            self._starting.addErrback(lambda failure: failure.trap(CancelledError))
            self._starting.cancel()
        if self._opened is not None:
            await self._opened
        if self._running is not None and not self._stopped_because:
            await self._running.hand_over()
        await self._end("it was stopped")
        await self._state.close()
        await self._disk_log.close()

    @returns_deferred
    async def _end(self, reason: str) -> None:
        """Take no part any more."""
        self._stopped_because = self._stopped_because or reason
        if self._running is not None:
            await self._running.stop()
        if self._transport_started:
            self._transport_started = False
            await self._transport.stop()

    def _halt(self, reason: str) -> None:
        self._log.critical("the raft node stops: {reason}", event="raft_halted", reason=reason)
        self._observer.error("raft", "halted")
        self._stopped_because = reason
        self._failed(reason)
        self._end(reason).addErrback(lambda failure: self._log.failure("stopping the raft node failed", failure))

    def _identity(self) -> PeerIdentity:
        assert self._stored is not None
        return PeerIdentity(
            node_id=self._settings.node_id,
            cluster_id=self._cluster_id,
            disk_id=self._stored.identity.disk_id,
            command_version=self._state.command_version,
            raft_address=self._settings.raft_address,
            api_endpoint=self._settings.api_endpoint,
        )

    # What a store asks (IReplicator)

    def propose(self, command: bytes, version: int = 1) -> Deferred[Applied]:
        """Have a command applied on all nodes."""
        running = self._taking_part()
        if isinstance(running, Exception):
            return _failed(running)
        if running.full_log or running.full_state:
            return _failed(InsufficientStorage(_FULL))
        if len(command) > MAX_COMMAND_BYTES:
            return _failed(PayloadTooLarge("the change is too large for the metadata cluster; nothing was changed"))
        return running.proposals.propose(command, version)

    def read_barrier(self) -> Deferred[int]:
        """Fires when this node's state contains everything that was acknowledged before the call."""
        running = self._taking_part()
        return _failed(running) if isinstance(running, Exception) else running.reads.add()

    def status(self) -> ClusterStatus:
        """
        What this node knows.

        :raises callfs.errors.MetadataUnavailable: it isn't open yet.
        """
        running = self._running
        if running is None or self._stored is None:
            raise MetadataUnavailable(_NOT_FORMED)
        return ClusterStatus(
            cluster_id=self._cluster_id,
            disk_id=self._stored.identity.disk_id,
            raft=running.core.status(),
            stopped_because=self._stopped_because,
            disk_full=running.full_log or running.full_state,
            connected=self._transport.connected(),
        )

    def membership(self) -> Membership:
        """The members as this node knows them."""
        return NOBODY if self._running is None else self._running.core.membership

    @returns_deferred
    async def join(self, node_id: str, raft_address: str, api_endpoint: str = "") -> Membership:
        """Let a node in."""
        return (await self._ask_leader(Join(node_id, raft_address, api_endpoint))).membership

    @returns_deferred
    async def remove(self, node_id: str) -> Membership:
        """Remove a node for good."""
        return (await self._ask_leader(Remove(node_id))).membership

    @returns_deferred
    async def transfer(self, node_id: str) -> None:
        """Hand the leadership to a voter."""
        await self._ask_leader(Transfer(node_id))

    async def _ask_leader(self, asking: Asking) -> Changed:
        running = self._taking_part()
        if not self._stopped_because and not self._cluster_id and self._stored is not None:
            raise ChangeRefused("no_cluster", self._why_no_cluster())
        if isinstance(running, Exception):
            raise running
        if running.core.status().removed:
            raise ChangeRefused(
                "removed", f"node {self._settings.node_id} was removed from its cluster: ask one of its members"
            )
        return await running.leadership.ask(asking, running.answers, self._identity())

    def _why_no_cluster(self) -> str:
        name = self._settings.node_id
        if self._running is None and self._settings.bootstrap:
            awaited = (
                "and waits for all nodes of its raft.peers: see that they run, and ask again when it leads"
                if set(self._settings.peers) - {name}
                else "which takes a few seconds, because it listens first whether it has been in one: ask again"
            )
            return f"node {name} is forming a cluster, {awaited}"
        return (
            f"node {name} belongs to no cluster itself: ask a node that does, or let one form a cluster first, by "
            "raft.bootstrap: true in its configuration"
        )

    def _taking_part(self) -> Running | MetadataUnavailable:
        if self._stopped_because:
            return MetadataUnavailable(_STOPPED, 60)
        return self._running or MetadataUnavailable(_NOT_FORMED)

    # What the transport calls (Receiver)

    def admit(self, peer: PeerIdentity) -> str | None:
        """Everybody who knows the secret; what counts is decided by the core, by node and disk."""
        if self._forming is not None:
            self._forming.heard(peer)
        return "stopped" if self._stopped_because else None

    def opened(self, peer: PeerIdentity) -> None:
        """A peer was reached."""
        if self._running is not None:
            self._running.wake()

    def reached_by(self, peer: PeerIdentity) -> None:
        """A peer has reached this node, and says where it is itself."""
        # One that was stopped before it heard of its cluster is a member all the same: its disk says so.
        if self._running is not None and not self._stopped_because and self._cluster_id:
            self._running.reached_by(peer)

    def message(self, peer: PeerIdentity, payload: bytes) -> None:
        """
        A peer says something. A node without a cluster belongs to the first one that talks to it.

        :raises callfs.cluster.wire.Malformed: nobody understands it.
        """
        running = self._running
        if running is None or self._stopped_because or not peer.cluster_id:
            return
        if not self._cluster_id:
            self._adopt(peer)
        if peer.cluster_id == self._cluster_id:
            running.message(peer, payload)

    def _adopt(self, peer: PeerIdentity) -> None:
        self._log.info(
            "this node belongs to the cluster of {node} from now on",
            event="raft_adopted",
            node=peer.node_id,
            cluster_id=peer.cluster_id,
        )
        self._cluster_id = peer.cluster_id
        self._disk_log.adopt(peer.cluster_id)
        self._reactor.callLater(0, self._tell_cluster)

    def _tell_cluster(self) -> None:
        if not self._stopped_because:
            self._transport.identity_changed()

    def asked(self, peer: PeerIdentity, payload: bytes) -> Deferred[bytes]:
        """A peer asks."""
        running = self._taking_part()
        if isinstance(running, Exception) or not self._cluster_id or peer.cluster_id != self._cluster_id:
            return _failed(DeclinedQuestion("not_leader"))
        return running.asked(peer, payload)


def _failed(error: Exception) -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    deferred.errback(error)
    return deferred


def _passed_on(result: Any, to: Deferred[Any]) -> None:
    to.callback(result)
