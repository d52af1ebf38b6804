"""
The composition root: what a node is made of, put together by name. The only place that chooses classes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.python.threadpool import ThreadPool

from callfs import __version__
from callfs.config.schema import Config
from callfs.config.secret import Secret
from callfs.engine.chance import DrawnAhead
from callfs.engine.filesystem import Filesystem
from callfs.engine.janitor import Janitor
from callfs.engine.replication import Replicator
from callfs.engine.routing import LOCAL_BACKEND, S3_BACKEND
from callfs.engine.settings import EngineSettings, JanitorSettings
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.measured import MeasuredStore
from callfs.metrics import Metrics
from callfs.node_metadata import Locks, Reached, build_locks, build_store, instant
from callfs.node_storage import LocalDisk, OtherNodes, SharedBucket, local_disk, other_nodes, shared_bucket
from callfs.web.auth import PEPPER_BYTES, ApiKeys, Authenticator
from callfs.web.cluster import ClusterResource
from callfs.web.context import SiteSettings, UpgradeRoute
from callfs.web.directories import DirectoryResource
from callfs.web.files import FileResource
from callfs.web.internal import InternalBlobResource
from callfs.web.links import LinkResource
from callfs.web.nodes import NodeResource
from callfs.web.placements import Placements
from callfs.web.proxies import TrustedProxies
from callfs.web.ratelimit import RateLimiter
from callfs.web.routes import route_table
from callfs.web.site import CallFSSite
from callfs.web.system import DescriptionResource, HealthResource, MetricsResource, OpenMetricsResource, Readiness
from callfs.web.websocket import WebSocketTransfers
from callfs.web.websocket_connection import ConnectionLimits

if TYPE_CHECKING:
    from callfs.node_cluster import Membership

# More would sync more small files at once, but they stand in each other's way for the interpreter's lock.
_DISK_THREADS = 8
_QUERY_THREADS = 4
_SENDFILE_THREADS = 8
_CLUSTER_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Pools:
    """
    Threads for what may block; started before the rest and stopped after it.

    :param disk: reads, writes, and fsync of blobs, which may keep all of these threads busy.
    :param queries: long metadata queries and looks at the root folder, which must not wait behind an fsync.
    :param sendfile: slices of downloads, for the same reason.
    :param cluster: this node's copy of what raft replicates, for the same reason.
    """

    disk: ThreadPool
    queries: ThreadPool
    sendfile: ThreadPool
    cluster: ThreadPool

    def start(self) -> None:
        """Begin."""
        for pool in (self.disk, self.queries, self.sendfile, self.cluster):
            pool.start()

    def stop(self) -> None:
        """End; blocks until the last job has ended."""
        for pool in (self.disk, self.queries, self.sendfile, self.cluster):
            if pool.started:
                pool.stop()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The rate limits, whose numbers a reload changes."""

    generate: RateLimiter
    download: RateLimiter


@dataclass(frozen=True, kw_only=True)
class Node:
    """
    The parts of a node, not yet running.

    :param disk: ``None`` on a node without a local backend.
    :param bucket: ``None`` on a node without S3.
    :param membership: ``None`` where no cluster of the nodes themselves keeps the metadata.
    :param internal_secrets: what the members prove to each other that they know; the content may be replaced.
    """

    instance_id: str
    metrics: Metrics
    pools: Pools
    disk: LocalDisk | None
    bucket: SharedBucket | None
    others: OtherNodes
    membership: Membership | None
    internal_secrets: list[bytes]
    store: IMetadataStore
    locks: Locks
    janitor: Janitor
    replicator: Replicator
    filesystem: Filesystem
    keys: ApiKeys
    limits: Limits
    transfers: WebSocketTransfers
    site: CallFSSite
    metrics_site: CallFSSite


def build(
    config: Config, reactor: Any, readiness: Readiness, reached: Reached, failed: Callable[[str], None]
) -> Node:
    """
    Put a node together; nothing is opened or started.

    :param readiness: what ``/health/ready`` asks.
    :param reached: called at named steps of a write; tests end the process there.
    :param failed: told, with a message for the operator, when a running node can't go on.
    :raises callfs.cluster.unusable.CannotTakePart: the files of ``raft.tls_*`` can't be used.
    """
    instance_id = config.instance_discovery.instance_id
    metrics = Metrics()
    metrics.build_info(__version__, instance_id)
    pools = Pools(
        disk=ThreadPool(0, _DISK_THREADS, "callfs-disk"),
        queries=ThreadPool(0, _QUERY_THREADS, "callfs-queries"),
        sendfile=ThreadPool(0, _SENDFILE_THREADS, "callfs-sendfile"),
        cluster=ThreadPool(0, _CLUSTER_THREADS, "callfs-cluster"),
    )
    disk = local_disk(config, reactor, pools.disk, metrics, instant, reached)
    bucket = shared_bucket(config, reactor, pools.disk, metrics, instant, lambda: replicator.hurry())
    backends = {
        name: place.blobs for name, place in ((LOCAL_BACKEND, disk), (S3_BACKEND, bucket)) if place is not None
    }
    internal_secrets = encoded(config.auth.internal_proxy_secret)
    membership = None
    if config.raft_metadata:
        from callfs.node_cluster import build_membership  # as in node_metadata

        membership = build_membership(
            config,
            reactor,
            pools.cluster,
            pools.queries,
            metrics,
            now=instant,
            internal_secrets=lambda: internal_secrets,
            failed=failed,
        )
    kept = membership.store() if membership else build_store(config, reactor, pools.queries, metrics, reached)
    store = MeasuredStore(kept, metrics, reactor)
    others = other_nodes(config, reactor, pools.disk, metrics, store.instances)
    locks = build_locks(config, reactor, metrics, membership)
    settings = _engine_settings(config)
    janitor = Janitor(
        metadata=store,
        backends=backends,
        settings=JanitorSettings(instance_id=instance_id),
        now=instant,
        clock=reactor,
        metrics=metrics,
        locks=locks.service,
    )
    replicator = Replicator(
        metadata=store,
        backends=backends,
        peers=others.peers,
        settings=settings,
        now=instant,
        clock=reactor,
        token_bytes=DrawnAhead(secrets.token_bytes),
        metrics=metrics,
        reached=reached,
    )
    filesystem = Filesystem(
        metadata=store,
        backends=backends,
        locks=locks.service,
        settings=settings,
        now=instant,
        clock=reactor,
        token_bytes=secrets.token_bytes,
        metrics=metrics,
        link_secrets=encoded(config.auth.single_use_link_secret),
        peers=others.peers,
        garbage_made=janitor.kick,
        copies_ordered=replicator.kick,
        reached=reached,
    )
    keys = ApiKeys(secrets.token_bytes(PEPPER_BYTES), {})
    use_keys(keys, config)
    limits = Limits(
        generate=RateLimiter(config.limits.link_generate_rate, config.limits.link_generate_burst),
        download=RateLimiter(config.limits.download_rate, config.limits.download_burst),
    )
    transfers = WebSocketTransfers(
        filesystem,
        max_upload_bytes=config.server.max_websocket_upload_bytes,
        limits=ConnectionLimits(
            read_timeout_seconds=config.server.read_timeout, write_timeout_seconds=config.server.write_timeout
        ),
        clock=reactor,
        metrics=metrics,
    )
    resources = _resources(config, filesystem, store, disk, tuple(backends), limits, metrics, readiness)
    resources.append(
        ClusterResource(membership.raft, membership.tick_seconds) if membership else ClusterResource(None)
    )

    def site(served: list[object], upgrade: UpgradeRoute | None) -> CallFSSite:
        return CallFSSite(
            served,
            settings=site_settings(config),
            authenticate=Authenticator(keys).authenticate,
            metrics=metrics,
            reactor=reactor,
            now=instant,
            pool=pools.sendfile,
            token_bytes=DrawnAhead(secrets.token_bytes),
            upgrade=upgrade,
        )

    return Node(
        instance_id=instance_id,
        metrics=metrics,
        pools=pools,
        disk=disk,
        bucket=bucket,
        others=others,
        membership=membership,
        internal_secrets=internal_secrets,
        store=store,
        locks=locks,
        janitor=janitor,
        replicator=replicator,
        filesystem=filesystem,
        keys=keys,
        limits=limits,
        transfers=transfers,
        site=site(resources, transfers),
        metrics_site=site([OpenMetricsResource(metrics.render)], None),
    )


def _engine_settings(config: Config) -> EngineSettings:
    ha = config.ha
    return EngineSettings(
        instance_id=config.instance_discovery.instance_id,
        default_backend=config.backend.default_backend,
        file_op_timeout_seconds=config.server.file_op_timeout,
        garbage_delay_seconds=config.backend.garbage_delay,
        replica_backend=ha.replica_backend if ha.replication_enabled else None,
        require_replica_success=ha.require_replica_success,
    )


def _resources(
    config: Config,
    filesystem: Filesystem,
    store: IMetadataStore,
    disk: LocalDisk | None,
    backends: tuple[str, ...],
    limits: Limits,
    metrics: Metrics,
    readiness: Readiness,
) -> list[object]:
    instance_id = config.instance_discovery.instance_id
    resources: list[object] = [
        FileResource(filesystem, Placements(instance_id, backends), config.server.max_upload_bytes),
        DirectoryResource(filesystem, instance_id),
        LinkResource(
            filesystem,
            instance_id=instance_id,
            external_url=config.external_url,
            generate_limit=limits.generate,
            download_limit=limits.download,
            seconds=time.monotonic,
            metrics=metrics,
        ),
        HealthResource(readiness),
        MetricsResource(metrics.render),
        InternalBlobResource(None if disk is None else disk.blobs, instance_id),
        NodeResource(filesystem, store, config.ha.replica_backend if config.ha.replication_enabled else None),
    ]
    return [*resources, DescriptionResource(route_table(resources), config.external_url)]


def use_keys(keys: ApiKeys, config: Config) -> None:
    """Accept the keys of this configuration from now on."""
    auth = config.auth
    keys.replace(
        {user: [key.reveal() for key in user_keys] for user, user_keys in auth.api_key_users.items()},
        [key.reveal() for key in auth.api_keys],
        auth.admins,
        [secret.reveal() for secret in auth.internal_proxy_secret],
    )


def encoded(secrets_: tuple[Secret, ...]) -> list[bytes]:
    """Secrets as bytes."""
    return [secret.reveal().encode() for secret in secrets_]


def site_settings(config: Config) -> SiteSettings:
    """The limits of a site."""
    server = config.server
    return SiteSettings(
        read_timeout_seconds=server.read_timeout,
        write_timeout_seconds=server.write_timeout,
        max_connections=config.limits.max_connections,
        trusted_proxies=TrustedProxies(str(network) for network in server.trusted_proxies),
    )
