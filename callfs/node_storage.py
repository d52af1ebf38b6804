"""A part of the composition root: where a node keeps bytes, and how it reaches those of others."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.jobs import Jobs
from callfs.backends.localfs import LocalBackend
from callfs.backends.measured import MeasuredBackend
from callfs.backends.peercalls import PeerContext
from callfs.backends.peerclient import PeerClient
from callfs.backends.peermetrics import PeerMetrics
from callfs.backends.peers import Peers
from callfs.backends.peertls import VerifiedPeers, policy_for
from callfs.backends.rootfolder import RootFolder
from callfs.backends.s3_gate import GatedBackend
from callfs.config.schema import Config
from callfs.metrics import Metrics
from callfs.model import Instance

if TYPE_CHECKING:
    from callfs.backends.s3 import S3Backend


@dataclass(frozen=True, kw_only=True)
class LocalDisk:
    """
    The local backend of a node that has one.

    :param root: locked and recognised before the blobs are touched.
    """

    root: RootFolder
    blobs: IBlobBackend


@dataclass(frozen=True, kw_only=True)
class SharedBucket:
    """
    The S3 backend of a node that has one.

    :param bucket: recognised before the blobs are touched.
    :param gate: opened by that; before, the blobs are out of reach.
    """

    bucket: S3Backend
    gate: GatedBackend
    blobs: IBlobBackend


@dataclass(frozen=True, kw_only=True)
class OtherNodes:
    """How a node reaches others."""

    peers: Peers
    client: PeerClient

    def verify_as(self, config: Config) -> None:
        """
        Verify certificates as the configuration says.

        :raises callfs.backends.peertls.UnusableCertificates: ``backend.internal_proxy_ca_file`` can't be used.
        """
        backend = config.backend
        self.client.replace_policy(
            policy_for(backend.internal_proxy_skip_tls_verify, backend.internal_proxy_ca_file)
        )


def local_disk(
    config: Config,
    reactor: Any,
    pool: ThreadPool,
    metrics: Metrics,
    now: Callable[[], int],
    reached: Callable[[str], None],
) -> LocalDisk | None:
    """The local disk; ``None`` where ``backend.localfs_root_path`` is empty."""
    path = config.backend.localfs_root_path
    if path is None:
        return None
    blobs = LocalBackend(
        path,
        reactor=reactor,
        pool=pool,
        now=now,
        min_free_bytes=config.server.min_free_bytes,
        reached=reached,
    )
    return LocalDisk(
        root=RootFolder(path, secrets.token_bytes),
        blobs=MeasuredBackend(blobs, metrics.backend_operation, time.monotonic),
    )


def shared_bucket(
    config: Config,
    reactor: Any,
    pool: ThreadPool,
    metrics: Metrics,
    now: Callable[[], int],
    answers_again: Callable[[], None] = lambda: None,
) -> SharedBucket | None:
    """
    The S3 bucket; ``None`` where ``backend.s3_bucket_name`` isn't set.

    :param answers_again: called when S3, once it is recognised, answers after it didn't.
    """
    if config.backend.s3_bucket_name is None:
        return None
    # botocore takes half a second to load, which nodes and commands without S3 needn't wait for.
    from callfs.backends.s3 import S3Backend
    from callfs.backends.s3_settings import S3Settings

    def answers() -> None:
        # Whoever recognises the bucket is answered before anybody else can reach it.
        if gate.is_open:
            answers_again()

    bucket = S3Backend(
        S3Settings.configured(config.backend, config.server.file_op_timeout),
        reactor=reactor,
        pool=pool,
        now=now,
        clock=reactor,
        random=random.SystemRandom().random,
        answers_again=answers,
    )
    gate = GatedBackend(bucket)
    blobs = MeasuredBackend(gate, metrics.backend_operation, time.monotonic)
    return SharedBucket(bucket=bucket, gate=gate, blobs=blobs)


def other_nodes(
    config: Config,
    reactor: Any,
    pool: ThreadPool,
    metrics: Metrics,
    registered: Callable[[], Deferred[Sequence[Instance]]],
) -> OtherNodes:
    """
    The way to the other nodes. Certificates are verified by the system's authorities until
    :meth:`OtherNodes.verify_as`.

    :param registered: the nodes that the metadata store knows.
    """
    client = PeerClient(
        reactor,
        secrets=config.auth.internal_proxy_secret,
        policy=VerifiedPeers(),
        connect_seconds=config.server.file_op_timeout,
    )
    context = PeerContext(
        client=client,
        clock=reactor,
        chance=random.SystemRandom().random,
        observer=PeerMetrics(metrics.registry),
        timeout_seconds=config.server.file_op_timeout,
    )
    peers = Peers(
        context,
        instance_id=config.instance_discovery.instance_id,
        endpoint=config.external_url,
        configured=config.instance_discovery.peer_endpoints,
        registered=registered,
        jobs=Jobs(reactor, pool),
    )
    return OtherNodes(peers=peers, client=client)
