"""What ``callfs fsck`` looks at, and that it belongs to the metadata store."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

import click
from twisted.python.threadpool import ThreadPool

from callfs.backends.identity import Identity, Verdict, recognise
from callfs.backends.interfaces import IBlobBackend
from callfs.backends.localfs import LocalBackend
from callfs.backends.rootfolder import RootFolder, RootUnusable
from callfs.backends.s3_unusable import S3Unusable
from callfs.config.schema import Config
from callfs.engine.routing import LOCAL_BACKEND, S3_BACKEND
from callfs.errors import PeerUnavailable
from callfs.metadata.commands import RegisterInstance
from callfs.metadata.interfaces import IMetadataStore
from callfs.metrics import Metrics
from callfs.node_storage import SharedBucket, shared_bucket


@dataclass(frozen=True)
class Options:
    """What the operator asked for."""

    deep: bool
    repair: bool
    remove_lost: bool
    adopt_root: bool
    force: bool
    backend: str | None

    def wants(self, backend: str) -> bool:
        """Whether what a backend has is to be looked at."""
        return self.backend in (None, backend)

    @property
    def changes(self) -> bool:
        """Whether anything is to be written, so that the daemon must be stopped."""
        return self.repair or self.remove_lost or self.adopt_root


@dataclass(frozen=True)
class Disk:
    """The local disk that is looked at."""

    root: RootFolder
    blobs: LocalBackend


@dataclass(frozen=True)
class Places:
    """What is looked at."""

    disk: Disk | None
    bucket: SharedBucket | None

    def backends(self) -> dict[str, IBlobBackend]:
        """By name."""
        found: dict[str, IBlobBackend] = {}
        if self.disk is not None:
            found[LOCAL_BACKEND] = self.disk.blobs
        if self.bucket is not None:
            found[S3_BACKEND] = self.bucket.blobs
        return found


def chosen_places(reactor: Any, pool: ThreadPool, config: Config, options: Options) -> Places:
    """
    What there is of what is to be looked at.

    :raises RootUnusable: there is no local disk, and nothing else either, or one is needed.
    :raises S3Unusable: there is no bucket, which was asked for.
    """
    root_path = config.backend.localfs_root_path
    disk = bucket = None
    if options.wants(LOCAL_BACKEND) and root_path is not None:
        blobs = LocalBackend(root_path, reactor=reactor, pool=pool, now=instant, min_free_bytes=0)
        disk = Disk(RootFolder(root_path, secrets.token_bytes), blobs)
    if options.wants(S3_BACKEND):
        bucket = shared_bucket(config, reactor, pool, Metrics(), instant)
    if options.backend == S3_BACKEND and bucket is None:
        raise S3Unusable("backend.s3_bucket_name is empty: this node has no bucket to look at")
    if disk is None and (bucket is None or options.repair or options.adopt_root):
        if root_path is not None:
            raise RootUnusable(
                "--repair and --adopt-root are about the local disk: they don't go with --backend s3"
            )
        raise RootUnusable(
            "backend.localfs_root_path is empty: there is no local disk to look at here, so run this on a node "
            "that has one"
        )
    return Places(disk, bucket)


async def check_disk(store: IMetadataStore, root: RootFolder, config: Config, options: Options) -> None:
    """
    A store must never judge the bytes of another, nor take a disk that isn't mounted for one that lost its files.

    :raises RootUnusable: this folder isn't the one that the store knows, and can't be or isn't to be adopted.
    """
    instance_id = config.instance_discovery.instance_id
    registered = {instance.id: instance.root_id for instance in await store.instances()}
    identity, has_blobs = root.identity(), root.has_blobs()
    decision = recognise(
        store_was_empty=store.was_empty,
        store_id=store.store_id,
        instance_id=instance_id,
        registered=registered,
        identity=identity,
        root_has_blobs=has_blobs,
    )
    may_adopt = not has_blobs and (identity is None or identity.store_id == store.store_id)
    if options.adopt_root and may_adopt:
        if identity is None or identity.root_id != registered.get(instance_id):
            await _adopt(store, root, identity or root.adopt(store.store_id), config)
    elif decision.verdict is Verdict.REFUSE:
        raise RootUnusable(decision.message)


async def _adopt(store: IMetadataStore, root: RootFolder, identity: Identity, config: Config) -> None:
    """Register a marked folder; one that an earlier call marked and couldn't register any more keeps its mark."""
    await store.apply(
        RegisterInstance(
            at=instant(),
            instance_id=config.instance_discovery.instance_id,
            root_id=identity.root_id,
            api_endpoint=config.external_url,
            replace_root=True,
        )
    )
    click.echo(f"The root folder {root.path} is this node's now.")


async def check_bucket(store: IMetadataStore, bucket: SharedBucket) -> None:
    """
    A store must not judge what belongs to another in a bucket either.

    :raises S3Unusable: the bucket isn't this store's, or can't be read.
    :raises callfs.errors.PeerUnavailable: S3 doesn't answer.
    """
    try:
        await bucket.bucket.confirm(store.store_id, store.was_empty)
        bucket.gate.admit()
    except PeerUnavailable as error:
        raise PeerUnavailable(f"{error.message} (--backend localfs looks at the local disk alone)") from error


def instant() -> int:
    """The wall clock, in microseconds."""
    return time.time_ns() // 1000
