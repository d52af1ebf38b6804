"""
The composition root: what a node is made of, put together by name. The only place that chooses classes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.python.threadpool import ThreadPool

from callfs import __version__
from callfs.backends.interfaces import IBlobBackend
from callfs.backends.localfs import LocalBackend
from callfs.backends.measured import MeasuredBackend
from callfs.backends.rootfolder import RootFolder
from callfs.config.schema import Config
from callfs.config.secret import Secret
from callfs.engine.chance import DrawnAhead
from callfs.engine.filesystem import Filesystem
from callfs.engine.janitor import Janitor
from callfs.engine.settings import EngineSettings, JanitorSettings
from callfs.locks.interfaces import ILockService
from callfs.locks.local import LocalLocks
from callfs.locks.measured import MeasuredLocks
from callfs.locks.redis import RedisLocks
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.measured import MeasuredStore
from callfs.metadata.postgres import PostgresStore
from callfs.metadata.redis import RedisStore
from callfs.metadata.sqlite import SqliteStore
from callfs.metrics import Metrics
from callfs.web.auth import PEPPER_BYTES, ApiKeys, Authenticator
from callfs.web.context import SiteSettings, UpgradeRoute
from callfs.web.directories import DirectoryResource
from callfs.web.files import FileResource
from callfs.web.links import LinkResource
from callfs.web.placements import Placements
from callfs.web.proxies import TrustedProxies
from callfs.web.ratelimit import RateLimiter
from callfs.web.routes import route_table
from callfs.web.site import CallFSSite
from callfs.web.system import DescriptionResource, HealthResource, MetricsResource, OpenMetricsResource, Readiness
from callfs.web.websocket import WebSocketTransfers
from callfs.web.websocket_connection import ConnectionLimits

LOCAL = "localfs"
# More would sync more small files at once, but they stand in each other's way for the interpreter's lock.
_DISK_THREADS = 8
_QUERY_THREADS = 4
_SENDFILE_THREADS = 8

Reached = Callable[[str], None]


def nothing(_step: str) -> None:
    """The failpoint of a daemon that isn't under test."""


def instant() -> int:
    """The wall clock: microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass(frozen=True, kw_only=True)
class Pools:
    """
    Threads for what may block; started before the rest and stopped after it.

    :param disk: reads, writes, and fsync of blobs, which may keep all of these threads busy.
    :param queries: long metadata queries and looks at the root folder, which must not wait behind an fsync.
    :param sendfile: slices of downloads, for the same reason.
    """

    disk: ThreadPool
    queries: ThreadPool
    sendfile: ThreadPool

    def start(self) -> None:
        """Begin."""
        for pool in (self.disk, self.queries, self.sendfile):
            pool.start()

    def stop(self) -> None:
        """End; blocks until the last job has ended."""
        for pool in (self.disk, self.queries, self.sendfile):
            if pool.started:
                pool.stop()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The rate limits, whose numbers a reload changes."""

    generate: RateLimiter
    download: RateLimiter


@dataclass(frozen=True, kw_only=True)
class Node:
    """The parts of a node, not yet running."""

    instance_id: str
    metrics: Metrics
    pools: Pools
    root: RootFolder
    backend: IBlobBackend
    store: IMetadataStore
    locks: ILockService
    janitor: Janitor
    filesystem: Filesystem
    keys: ApiKeys
    limits: Limits
    transfers: WebSocketTransfers
    site: CallFSSite
    metrics_site: CallFSSite


def build(config: Config, reactor: Any, readiness: Readiness, reached: Reached) -> Node:
    """
    Put a node together; nothing is opened or started.

    :param readiness: what ``/health/ready`` asks.
    :param reached: called at named steps of a write; tests end the process there.
    """
    assert config.backend.localfs_root_path is not None
    instance_id = config.instance_discovery.instance_id
    metrics = Metrics()
    metrics.build_info(__version__, instance_id)
    pools = Pools(
        disk=ThreadPool(0, _DISK_THREADS, "callfs-disk"),
        queries=ThreadPool(0, _QUERY_THREADS, "callfs-queries"),
        sendfile=ThreadPool(0, _SENDFILE_THREADS, "callfs-sendfile"),
    )
    backend = _backend(config, reactor, pools, metrics, reached)
    store = MeasuredStore(build_store(config, reactor, pools.queries, metrics, reached), metrics, reactor)
    locks = _locks(config, reactor, metrics)
    janitor = Janitor(
        metadata=store,
        backends={LOCAL: backend},
        settings=JanitorSettings(instance_id=instance_id),
        now=instant,
        clock=reactor,
        metrics=metrics,
    )
    filesystem = Filesystem(
        metadata=store,
        backends={LOCAL: backend},
        locks=locks,
        settings=EngineSettings(
            instance_id=instance_id,
            default_backend=config.backend.default_backend,
            file_op_timeout_seconds=config.server.file_op_timeout,
            garbage_delay_seconds=config.backend.garbage_delay,
        ),
        now=instant,
        clock=reactor,
        token_bytes=secrets.token_bytes,
        metrics=metrics,
        link_secrets=encoded(config.auth.single_use_link_secret),
        garbage_made=janitor.kick,
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
    resources = _resources(config, filesystem, limits, metrics, readiness)

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
        root=RootFolder(config.backend.localfs_root_path, secrets.token_bytes),
        backend=backend,
        store=store,
        locks=locks,
        janitor=janitor,
        filesystem=filesystem,
        keys=keys,
        limits=limits,
        transfers=transfers,
        site=site(resources, transfers),
        metrics_site=site([OpenMetricsResource(metrics.render)], None),
    )


def _backend(config: Config, reactor: Any, pools: Pools, metrics: Metrics, reached: Reached) -> IBlobBackend:
    assert config.backend.localfs_root_path is not None
    local = LocalBackend(
        config.backend.localfs_root_path,
        reactor=reactor,
        pool=pools.disk,
        now=instant,
        min_free_bytes=config.server.min_free_bytes,
        reached=reached,
    )
    return MeasuredBackend(local, metrics.backend_operation, time.monotonic)


def build_store(
    config: Config,
    reactor: Any,
    pool: ThreadPool,
    observer: Metrics,
    reached: Reached = nothing,
    read_only: bool = False,
) -> IMetadataStore:
    """
    The metadata store of this configuration, not yet open.

    :param pool: threads for long queries of SQLite; PostgreSQL has its own.
    :param read_only: for a tool beside a running daemon: of a file no lock is taken. A server has none.
    """
    kind = config.metadata_store
    timeout_seconds = config.server.metadata_op_timeout
    if kind.type == "postgres":
        assert kind.dsn is not None
        return PostgresStore(
            kind.dsn.reveal(),
            reactor=reactor,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=timeout_seconds,
            pool_size=kind.pool_size,
            observer=observer,
            reached=reached,
        )
    if kind.type == "redis":
        return RedisStore(
            kind.redis_addr,
            reactor=reactor,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=timeout_seconds,
            pool_size=kind.pool_size,
            password=None if kind.redis_password is None else kind.redis_password.reveal(),
            db=kind.redis_db,
            key_prefix=kind.redis_key_prefix,
            observer=observer,
        )
    return SqliteStore(
        kind.sqlite_path,
        reactor=reactor,
        pool=pool,
        token_bytes=secrets.token_bytes,
        op_timeout_seconds=timeout_seconds,
        read_only=read_only,
        observer=observer,
        reached=reached,
    )


def _locks(config: Config, reactor: Any, metrics: Metrics) -> ILockService:
    dlm = config.dlm
    locks: ILockService
    if dlm.type == "redis":
        locks = RedisLocks(
            dlm.redis_addr,
            reactor=reactor,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=config.server.metadata_op_timeout,
            password=None if dlm.redis_password is None else dlm.redis_password.reveal(),
            key_prefix=config.metadata_store.redis_key_prefix,
            observer=metrics,
        )
    else:
        locks = LocalLocks(reactor, first_fencing=instant())
    return MeasuredLocks(locks, metrics.lock_operation, metrics.active_locks, time.monotonic)


def _resources(
    config: Config, filesystem: Filesystem, limits: Limits, metrics: Metrics, readiness: Readiness
) -> list[object]:
    instance_id = config.instance_discovery.instance_id
    resources: list[object] = [
        FileResource(filesystem, Placements(instance_id, (LOCAL,)), config.server.max_upload_bytes),
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
