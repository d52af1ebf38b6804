"""Several nodes in one process: one store, a disk for each, one S3 for all, and peers that talk without a wire."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from callfs.backends.interfaces import (
    BlobStat,
    CommittedBlob,
    Hasher,
    IBlobBackend,
    IBlobReader,
    IPeers,
    IStagedBlob,
)
from callfs.backends.memory import MemoryBackend
from callfs.deferreds import returns_deferred
from callfs.engine.filesystem import Filesystem, MoveRequest
from callfs.engine.replication import Replicator
from callfs.engine.settings import EngineSettings
from callfs.errors import PeerUnavailable
from callfs.model import BlobRef, Inode, LocalPlacement, Placement, Principal, S3Placement
from tests.support.engine import ALICE, NODE, Counts, EngineCase, SteppedBackend, read_all, upload

SECOND = "node-2"
THIRD = "node-3"
NODES = (NODE, SECOND, THIRD)
S3 = S3Placement()


class Network:
    """The disks of all nodes by name; what is ``down`` can't be reached by the others, also in mid-stream."""

    def __init__(self) -> None:
        self.disks: dict[str, IBlobBackend] = {}
        self.down: set[str] = set()

    def check(self, instance_id: str) -> None:
        """
        Whether a node can be reached.

        :raises callfs.errors.PeerUnavailable: it can't.
        """
        if instance_id in self.down:
            raise PeerUnavailable(f"{instance_id} doesn't answer")


@implementer(IStagedBlob)
class _RemoteStage:
    def __init__(self, inner: IStagedBlob, network: Network, instance_id: str) -> None:
        self._inner = inner
        self._network = network
        self._instance_id = instance_id

    @returns_deferred
    async def write(self, data: bytes) -> None:
        """See :meth:`IStagedBlob.write`."""
        self._network.check(self._instance_id)
        await self._inner.write(data)

    @returns_deferred
    async def commit(self) -> CommittedBlob:
        """See :meth:`IStagedBlob.commit`."""
        self._network.check(self._instance_id)
        return await self._inner.commit()

    def abort(self) -> Deferred[None]:
        """See :meth:`IStagedBlob.abort`: a node whose caller is gone aborts by itself."""
        return self._inner.abort()


@implementer(IBlobReader)
class _RemoteReader:
    def __init__(self, inner: IBlobReader, network: Network, instance_id: str) -> None:
        self.size = inner.size
        self._inner = inner
        self._network = network
        self._instance_id = instance_id

    @returns_deferred
    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        self._network.check(self._instance_id)
        return await self._inner.read(offset, length)

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`: bytes from elsewhere have none."""
        return None

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        self._inner.close()


@implementer(IBlobBackend)
class RemoteBlobs:
    """The disk of another node, as the port of peers promises it."""

    name = "localfs"

    def __init__(self, network: Network, instance_id: str) -> None:
        self._network = network
        self._instance_id = instance_id

    @property
    def _disk(self) -> IBlobBackend:
        self._network.check(self._instance_id)
        return self._network.disks[self._instance_id]

    @returns_deferred
    async def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> IStagedBlob:
        """See :meth:`IBlobBackend.stage`."""
        staged = await self._disk.stage(blob_id, declared_size, hashers)
        return _RemoteStage(staged, self._network, self._instance_id)

    @returns_deferred
    async def open(self, blob_id: str) -> IBlobReader:
        """See :meth:`IBlobBackend.open`."""
        return _RemoteReader(await self._disk.open(blob_id), self._network, self._instance_id)

    @returns_deferred
    async def delete(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.delete`."""
        await self._disk.delete(blob_id)

    @returns_deferred
    async def stat(self, blob_id: str) -> BlobStat:
        """See :meth:`IBlobBackend.stat`."""
        return await self._disk.stat(blob_id)

    def close(self) -> Deferred[None]:
        """See :meth:`IBlobBackend.close`."""
        return succeed(None)

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)


@implementer(IPeers)
class DirectPeers:
    """Peers as one node knows them."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @returns_deferred
    async def blobs(self, instance_id: str) -> IBlobBackend:
        """See :meth:`IPeers.blobs`."""
        if instance_id not in self._network.disks:
            raise PeerUnavailable(f"nobody knows {instance_id}")
        return RemoteBlobs(self._network, instance_id)

    def known(self) -> Deferred[Mapping[str, str]]:
        """See :meth:`IPeers.known`."""
        return succeed({name: f"https://{name}.example" for name in self._network.disks})

    def close(self) -> Deferred[None]:
        """See :meth:`IPeers.close`."""
        return succeed(None)


class NodesCase(EngineCase):
    """
    A test with three nodes and S3. ``filesystem`` and ``backend`` are the first node's.

    :cvar options: settings of the engine on all nodes.
    """

    options: Mapping[str, Any] = {}

    async def setUp(self) -> None:
        self.network = Network()
        self.s3 = self._stepped(MemoryBackend(now=self.now, name="s3"), "s3")
        self.disks: dict[str, SteppedBackend] = {}
        self.nodes: dict[str, Filesystem] = {}
        self.counts: dict[str, Counts] = {}
        self.ordered = 0
        await super().setUp()
        for name in NODES:
            if name != NODE:
                self.disks[name] = self._stepped(await self.make_backend(), "localfs")
                self.nodes[name] = self.make_node(name)
        self.network.disks.update(self.disks)

    def _stepped(self, inner: IBlobBackend, name: str) -> SteppedBackend:
        stepped = SteppedBackend(inner)
        stepped.name = name
        return stepped

    def make_filesystem(self, **changes: Any) -> Filesystem:
        """The first node."""
        self.disks.setdefault(NODE, self.backend)
        self.nodes[NODE] = self.make_node(NODE, **changes)
        return self.nodes[NODE]

    def make_node(self, name: str, **changes: Any) -> Filesystem:
        """A node over its disk and what all share."""
        self.counts.setdefault(name, self.metrics if name == NODE else Counts())
        arguments = self.parts_of(name) | {
            "metrics": self.counts[name],
            "locks": self.locks,
            "link_secrets": (b"a secret of the links",),
            "garbage_made": self._kicked,
            "copies_ordered": self._ordered,
        }
        return Filesystem(**{**arguments, **changes})

    def make_replicator(self, name: str = NODE, **changes: Any) -> Replicator:
        """A worker of a node."""
        replicator = Replicator(**{**self.parts_of(name), "metrics": self.counts[name], **changes})
        self.addCleanup(lambda: replicator.stopService())
        return replicator

    def parts_of(self, name: str) -> dict[str, Any]:
        """What everything on a node is made of."""
        return {
            "metadata": self.store,
            "backends": {"localfs": self.disks[name], "s3": self.s3},
            "peers": DirectPeers(self.network),
            "settings": self.settings(name),
            "now": self.now,
            "clock": self.clock,
            "token_bytes": secrets.token_bytes,
            "reached": self._reached,
        }

    def settings(self, name: str, **changes: Any) -> EngineSettings:
        """The settings of a node."""
        return EngineSettings(**{"instance_id": name, **self.options, **changes})

    def _ordered(self) -> None:
        self.ordered += 1

    async def put_at(
        self, name: str, path: str, data: bytes = b"content", principal: Principal = ALICE, **options: Any
    ) -> Inode:
        """PUT a file through a node; the file."""
        written = await self.nodes[name].put_file(principal, path, upload(data, **options))
        return written.inode

    async def read_at(self, name: str, path: str) -> bytes:
        """What a reader gets through a node."""
        return await read_all(await self.nodes[name].open(ALICE, path))

    async def move_at(
        self, name: str, source: str, destination: str, principal: Principal = ALICE, **options: Any
    ) -> Inode:
        """PATCH through a node."""
        return await self.nodes[name].move(
            principal, MoveRequest(source=source, destination=destination, **options)
        )

    async def blob_of(self, path: str) -> BlobRef:
        """The blob of a file."""
        inode = await self.store.get(path)
        assert inode is not None
        assert inode.blob is not None
        return inode.blob

    async def places_of(self, path: str) -> list[Placement]:
        """Where a file's copies are, the first one first."""
        return [copy.placement for copy in (await self.blob_of(path)).copies()]

    def on(self, name: str) -> LocalPlacement:
        """The disk of a node."""
        return LocalPlacement(name)

    async def ids_at(self, place: SteppedBackend) -> list[str]:
        """The blobs somewhere."""
        return [blob.id for blob in await place.inner.list_blobs()]

    async def damage(self, place: SteppedBackend, blob_id: str, data: bytes) -> None:
        """Put other bytes into a blob."""
        await place.inner.delete(blob_id)
        staged = await place.inner.stage(blob_id)
        await staged.write(data)
        await staged.commit()

    async def all_named(self) -> None:
        """Check that nobody holds anything, and that every blob anywhere has a name or is garbage."""
        for place in (*self.disks.values(), self.s3):
            assert place.stages == set()
            assert place.readers == set()
            ids = await self.ids_at(place)
            assert sorted(ids) == sorted(await self.store.named_blobs(ids))
        assert self.locks.held == []
