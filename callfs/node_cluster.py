"""A part of the composition root: the node as a member of a cluster that keeps the metadata itself."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.python.threadpool import ThreadPool

from callfs.cluster.disklog import DiskLog
from callfs.cluster.driver import RaftNode
from callfs.cluster.link import LinkTiming
from callfs.cluster.metrics import ClusterMetrics
from callfs.cluster.peers import PeerTransport
from callfs.cluster.settings import ClusterSettings
from callfs.cluster.tls import PeerTLS
from callfs.cluster.unusable import CannotTakePart
from callfs.config.schema import Config, RaftConfig
from callfs.deferreds import returns_deferred
from callfs.engine.chance import DrawnAhead
from callfs.locks.replicated import LOCKS
from callfs.locks.replicated_table import LockTable
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.replicated import ReplicatedStore
from callfs.metadata.replicated_file import current_state
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import SqliteStore
from callfs.metrics import Metrics
from callfs.system import dual_stack


@dataclass(frozen=True, kw_only=True)
class Membership:
    """
    A node's part in the cluster.

    :param raft: started before the store is opened, stopped after it is closed.
    :param state: what the store reads.
    :param locks: the locks' part of the state.
    :param tick_seconds: what silence is counted in.
    :param tls: the certificates that it shows and believes; ``None`` without mutual TLS.
    """

    raft: RaftNode
    state: MetadataState
    locks: LockTable
    tick_seconds: float
    tls: PeerTLS | None

    def store(self) -> ReplicatedStore:
        """The metadata store over it."""
        return ReplicatedStore(self.raft, self.state)


def build_membership(
    config: Config,
    reactor: Any,
    pool: ThreadPool,
    query_pool: ThreadPool,
    metrics: Metrics,
    *,
    now: Callable[[], int],
    internal_secrets: Callable[[], Sequence[bytes]],
    failed: Callable[[str], None],
) -> Membership:
    """
    The member that the configuration describes; nothing is opened.

    :param pool: threads for the state and the log; not those of long queries.
    :param internal_secrets: asked anew for every handshake.
    :param failed: told, with a message for the operator, when the running member can't go on.
    :raises callfs.cluster.unusable.CannotTakePart: the files of ``raft.tls_*`` can't be used.
    """
    raft = config.raft
    table = LockTable()
    token_bytes = DrawnAhead(secrets.token_bytes)
    observer = ClusterMetrics(metrics.registry, metrics.error)
    state = MetadataState(
        raft.data_dir,
        reactor=reactor,
        pool=pool,
        query_pool=query_pool,
        token_bytes=secrets.token_bytes,
        op_timeout_seconds=raft.apply_timeout,
        observer=metrics,
        retained_snapshots=raft.retain_snapshot_count,
        parts={LOCKS: table},
    )
    settings = _settings(config)
    tls = _tls(raft, settings)
    node = RaftNode(
        settings,
        reactor=reactor,
        pool=pool,
        log=DiskLog(
            raft.data_dir,
            config.raft_node_id,
            reactor=reactor,
            token_bytes=secrets.token_bytes,
            seconds=reactor.seconds,
        ),
        state=state,
        transport=PeerTransport(
            raft.bind_addr,
            reactor=reactor,
            secrets=internal_secrets,
            token_bytes=secrets.token_bytes,
            random=random.SystemRandom().random,
            observer=observer,
            timing=LinkTiming(idle_seconds=max(LinkTiming().idle_seconds, 2 * raft.election_timeout)),
            tls=tls,
            dual_stack=dual_stack(),
        ),
        instant=now,
        random=random.SystemRandom(),
        token_bytes=token_bytes,
        observer=observer,
        failed=failed,
    )
    return Membership(raft=node, state=state, locks=table, tick_seconds=settings.tick_seconds, tls=tls)


def _settings(config: Config) -> ClusterSettings:
    raft = config.raft
    return ClusterSettings(
        node_id=config.raft_node_id,
        raft_address=config.raft_advertise_addr,
        api_endpoint=config.external_url,
        bootstrap=raft.bootstrap,
        peers=raft.peers,
        api_peer_endpoints=raft.api_peer_endpoints,
        apply_timeout_seconds=raft.apply_timeout,
        forward_timeout_seconds=raft.forward_timeout,
        election_timeout_seconds=raft.election_timeout,
        heartbeat_interval_seconds=raft.heartbeat_interval,
        snapshot_interval_seconds=raft.snapshot_interval,
        snapshot_threshold=raft.snapshot_threshold,
    )


def _tls(raft: RaftConfig, settings: ClusterSettings) -> PeerTLS | None:
    if raft.tls_cert_file is None or raft.tls_key_file is None or raft.tls_ca_file is None:
        return None
    return PeerTLS(
        raft.tls_cert_file,
        raft.tls_key_file,
        raft.tls_ca_file,
        node_id=settings.node_id,
        raft_address=settings.raft_address,
    )


class OwnStore(ReplicatedStore):
    """
    The store of a tool that is the node itself for a while, in the place of its daemon, which mustn't run.

    :param make: a member that wasn't started; called again when the store is opened again after it was closed.
    """

    def __init__(self, make: Callable[[], Membership]) -> None:
        membership = make()
        super().__init__(membership.raft, membership.state)
        self._make = make
        self._raft = membership.raft
        self._started = self._ended = False

    @returns_deferred
    async def open(self, importing: bool = False) -> None:
        """
        Take part in the cluster, and wait until it answers.

        :raises callfs.metadata.interfaces.StoreUnusable: this node can't take part.
        :raises callfs.errors.MetadataUnavailable: the cluster has no majority.
        """
        if self._ended:
            membership = self._make()
            self._replicator = self._raft = membership.raft
            self._state = membership.state
            self._started = self._ended = False
        try:
            if not self._started:
                self._started = True
                await self._raft.start()
        except (CannotTakePart, CannotListenError) as error:
            raise StoreUnusable(str(error)) from error
        await super().open(importing)

    @returns_deferred
    async def close(self) -> None:
        """Leave off."""
        await super().close()
        if self._started:
            self._ended = True
            await self._raft.stop()


def copy_beside_a_daemon(config: Config, reactor: Any, pool: ThreadPool) -> SqliteStore:
    """
    This node's copy of the metadata, for a tool that only reads; it may be a little behind the cluster.

    :raises callfs.metadata.interfaces.StoreUnusable: there is none.
    """
    path = current_state(config.raft.data_dir)
    if path is None:
        raise StoreUnusable(f"there is no copy of the metadata in {config.raft.data_dir}: start the daemon once")
    return SqliteStore(
        path,
        reactor=reactor,
        pool=pool,
        token_bytes=secrets.token_bytes,
        op_timeout_seconds=config.raft.apply_timeout,
        read_only=True,
    )
