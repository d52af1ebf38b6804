"""
A part of the composition root: where a node keeps names, and its locks.

What only some configurations need is imported where it is chosen: each of the servers' clients, and raft, takes a
quarter of a second to load, which the other nodes and commands needn't wait for.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.python.threadpool import ThreadPool

from callfs.config.schema import Config
from callfs.engine.chance import DrawnAhead
from callfs.locks.interfaces import ILockService
from callfs.locks.local import LocalLocks
from callfs.locks.measured import MeasuredLocks
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.sqlite import SqliteStore
from callfs.metrics import Metrics

if TYPE_CHECKING:
    from callfs.node_cluster import Membership

Reached = Callable[[str], None]


def nothing(_step: str) -> None:
    """The failpoint of a daemon that isn't under test."""


def instant() -> int:
    """The wall clock: microseconds since 1970."""
    return time.time_ns() // 1000


def tool_store(config: Config, reactor: Any, pool: ThreadPool, read_only: bool) -> IMetadataStore:
    """
    The metadata store for a command-line tool, not yet open.

    :param pool: threads for what takes longer.
    :param read_only: the tool may run beside the daemon, and changes nothing.
    :raises callfs.metadata.interfaces.StoreUnusable: there is none to be read.
    """
    if not config.raft_metadata:
        return build_store(config, reactor, pool, Metrics(), read_only=read_only)
    from callfs.node_cluster import OwnStore, build_membership, copy_beside_a_daemon

    if read_only:
        return copy_beside_a_daemon(config, reactor, pool)

    def membership() -> Membership:
        return build_membership(
            config,
            reactor,
            pool,
            pool,
            Metrics(),
            now=instant,
            internal_secrets=lambda: [secret.reveal().encode() for secret in config.auth.internal_proxy_secret],
            failed=lambda message: None,
        )

    return OwnStore(membership)


def build_store(
    config: Config,
    reactor: Any,
    pool: ThreadPool,
    observer: Metrics,
    reached: Reached = nothing,
    read_only: bool = False,
) -> IMetadataStore:
    """
    The metadata store of this configuration, unless that is raft; not yet open.

    :param pool: threads for long queries of SQLite; PostgreSQL has its own.
    :param read_only: for a tool beside a running daemon: of a file no lock is taken. A server has none.
    """
    kind = config.metadata_store
    timeout_seconds = config.server.metadata_op_timeout
    if kind.type == "postgres":
        from callfs.metadata.postgres import PostgresStore

        assert kind.dsn is not None
        return PostgresStore(
            kind.dsn.reveal(),
            reactor=reactor,
            token_bytes=DrawnAhead(secrets.token_bytes),
            op_timeout_seconds=timeout_seconds,
            pool_size=kind.pool_size,
            observer=observer,
            reached=reached,
        )
    if kind.type == "redis":
        from callfs.metadata.redis import RedisStore

        return RedisStore(
            kind.redis_addr,
            reactor=reactor,
            token_bytes=DrawnAhead(secrets.token_bytes),
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


@dataclass(frozen=True, kw_only=True)
class Locks:
    """
    :param start: to be called once the store is open: a node may have to look after the locks of others.
    """

    service: ILockService
    start: Callable[[], None]


def build_locks(config: Config, reactor: Any, metrics: Metrics, membership: Membership | None) -> Locks:
    """
    The locks of this configuration.

    :param membership: where raft keeps the metadata.
    """
    dlm = config.dlm
    locks: ILockService
    start = _nothing_to_start
    if dlm.type == "redis":
        from callfs.locks.redis import RedisLocks

        locks = RedisLocks(
            dlm.redis_addr,
            reactor=reactor,
            token_bytes=DrawnAhead(secrets.token_bytes),
            op_timeout_seconds=config.server.metadata_op_timeout,
            password=None if dlm.redis_password is None else dlm.redis_password.reveal(),
            key_prefix=config.metadata_store.redis_key_prefix,
            observer=metrics,
        )
    elif dlm.type == "raft" and membership is not None:
        from callfs.locks.replicated import ReplicatedLocks

        locks = replicated = ReplicatedLocks(
            membership.raft,
            membership.locks,
            token_bytes=DrawnAhead(secrets.token_bytes),
            clock=reactor,
            lost=lambda: metrics.error("locks", "lease_lost"),
        )
        start = replicated.start
    else:
        locks = LocalLocks(reactor, first_fencing=instant())
    measured = MeasuredLocks(locks, metrics.lock_operation, metrics.active_locks, time.monotonic)
    return Locks(service=measured, start=start)


def _nothing_to_start() -> None:
    """Locks that run by themselves."""
