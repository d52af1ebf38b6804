"""Copies that a backend makes by itself."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from callfs.backends.interfaces import BlobStat, ICopyingBackend
from callfs.backends.memory import MemoryBackend
from callfs.deferreds import returns_deferred
from callfs.errors import (
    Conflict,
    FileAlreadyExists,
    FileNotFound,
    InsufficientStorage,
    MetadataUnavailable,
    NotAFile,
    PreconditionFailed,
)
from callfs.model import Preconditions
from tests.support.engine import ALICE, BOB, NODE, SteppedBackend, started
from tests.support.nodes import S3, SECOND, THIRD, NodesCase


@implementer(ICopyingBackend)
class CopyingBackend(SteppedBackend):
    """One that can copy, with the step ``copy``; the copies lack ``lost_bytes``."""

    lost_bytes = 0

    @returns_deferred
    async def copy(self, from_blob_id: str, to_blob_id: str) -> BlobStat:
        """See :meth:`ICopyingBackend.copy`."""
        await self.steps.pass_by("copy")
        reader = await self.inner.open(from_blob_id)
        staged = await self.inner.stage(to_blob_id)
        await staged.write(await reader.read(0, reader.size - self.lost_bytes))
        await staged.commit()
        return await self.inner.stat(to_blob_id)


class TestCopying(NodesCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.s3 = CopyingBackend(MemoryBackend(now=self.now, name="s3"))
        self.s3.name = "s3"
        self.rebuild()
        await self.put_at(NODE, "/f", b"content", backend="s3", content_type="text/plain")

    def rebuild(self) -> None:
        """Make the nodes anew."""
        for name in self.disks:
            self.nodes[name] = self.make_node(name)
        self.filesystem = self.nodes[NODE]

    async def copy(self, source: str = "/f", path: str = "/g", **options: object) -> object:
        """Copy a file through the second node, to S3."""
        return await self.nodes[SECOND].copy_file(BOB, source, path, **{"backend": "s3", **options})  # type: ignore

    async def test_without_the_bytes(self) -> None:
        """A copy from S3 to S3 is made there; it is the caller's new file with the same content, tag and type."""
        written = await self.copy()
        source = await self.store.get("/f")
        assert written.inode.owner == "bob"
        assert (written.inode.etag, written.inode.content_type) == (source.etag, "text/plain")
        assert written.inode.blob.id != source.blob.id
        assert await self.places_of("/g") == [S3]
        assert await self.read_at(THIRD, "/g") == b"content"
        assert self.s3.steps.passed["copy"] == 1
        assert self.counts[SECOND].of["file", "create", "s3"] == self.counts[SECOND].of["file", "read", "s3"]
        await self.all_named()

    async def test_to_elsewhere(self) -> None:
        """A copy to another backend streams."""
        await self.copy(backend="localfs")
        assert await self.places_of("/g") == [self.on(SECOND)]
        assert self.s3.steps.passed["copy"] == 0

    async def test_with_a_second_copy(self) -> None:
        """Where the write has to make two copies it streams; in the background the second is ordered."""
        self.options = {"replica_backend": "localfs", "require_replica_success": True}
        self.rebuild()
        await self.copy(path="/two")
        assert await self.places_of("/two") == [S3, self.on(SECOND)]
        assert self.s3.steps.passed["copy"] == 0
        self.options = {"replica_backend": "localfs"}
        self.rebuild()
        await self.copy(path="/ordered")
        assert self.s3.steps.passed["copy"] == 1
        assert [backlog.by for backlog in await self.store.replication_backlog()] == [SECOND]
        assert self.ordered == 1

    async def test_refused_before(self) -> None:
        """Nothing is copied for what is refused."""
        await self.refused(FileNotFound, self.copy("/x"))
        await self.refused(NotAFile, self.copy("/"))
        await self.refused(FileAlreadyExists, self.copy(path="/f"))
        await self.refused(PreconditionFailed, self.copy(preconditions=Preconditions(if_match=('"x"',))))
        assert self.s3.steps.passed["copy"] == 0

    async def test_refused_after(self) -> None:
        """A refused copy is taken back."""
        for refusal in (MetadataUnavailable("down"), Conflict("condemned")):
            self.store.steps.fail("CreateFile", refusal)
            await self.refused(type(refusal), self.copy())
        assert await self.store.get("/g") is None
        await self.all_named()

    async def test_backend_fails(self) -> None:
        """A copy that can't be made fails the request."""
        self.s3.steps.fail("copy", InsufficientStorage("full"))
        await self.refused(InsufficientStorage, self.copy())
        await self.all_named()

    async def test_another_size(self) -> None:
        """A copy of another size is none: it goes, and the bytes are streamed."""
        self.s3.lost_bytes = 1
        await self.copy()
        assert await self.read_at(THIRD, "/g") == b"content"
        await self.all_named()

    async def test_the_source_has_gone(self) -> None:
        """Where the copy on S3 is missing another one is streamed."""
        self.options = {"replica_backend": "s3", "require_replica_success": True}
        self.rebuild()
        await self.put_at(THIRD, "/both", b"both")
        await self.s3.inner.delete((await self.blob_of("/both")).replicas[0].id)
        self.options = {}
        self.rebuild()
        await self.copy("/both")
        assert await self.read_at(NODE, "/g") == b"both"

    async def test_client_gone(self) -> None:
        """Once it has begun, a copy on the server goes on without its client."""
        self.s3.steps.hold("copy")
        arrival = self.s3.steps.arrival("copy")
        copying = started(self.copy())
        await arrival
        copying.cancel()
        await self.refused(CancelledError, copying)
        self.s3.steps.release("copy")
        await self.nodes[SECOND].settled()
        assert (await self.nodes[NODE].stat(ALICE, "/g")).size == 7
        await self.all_named()
