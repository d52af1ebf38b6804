"""Looking up and opening."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import CancelledError

from callfs.engine.alone import Alone
from callfs.engine.ports import Ports
from callfs.engine.read import LOOKUPS, open_found
from callfs.engine.settings import EngineSettings
from callfs.errors import FileNotFound, NotADirectory, NotAFile, PeerUnavailable
from callfs.metadata.commands import CreateFile
from callfs.model import BlobRef, LocalPlacement
from tests.support.engine import ALICE, BOB, NODE, EngineCase, read_all, settled, started


class TestStat(EngineCase):
    async def test_file_and_directory(self) -> None:
        """What is at a path, for everybody."""
        await self.put("/d/f", b"12345")
        assert (await self.filesystem.stat(BOB, "/d/f")).size == 5
        assert (await self.filesystem.stat(BOB, "/d")).is_directory
        assert (await self.filesystem.stat(BOB, "/")).is_directory
        assert (await self.filesystem.stat(BOB, "/d", directory_expected=True)).is_directory

    async def test_nothing(self) -> None:
        """Nothing at the path, also below a file."""
        await self.put("/f")
        for path in ("/x", "/f/x"):
            await self.refused(FileNotFound, self.filesystem.stat(ALICE, path))

    async def test_directory_expected(self) -> None:
        """A trailing slash doesn't name a file."""
        await self.put("/f")
        await self.refused(NotADirectory, self.filesystem.stat(ALICE, "/f", directory_expected=True))


class TestOpen(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"old content")

    async def test_read(self) -> None:
        """The bytes, for everybody; the read is counted."""
        opened = await self.filesystem.open(BOB, "/f")
        assert opened.inode.size == opened.reader.size == 11
        assert await read_all(opened) == b"old content"
        assert self.metrics.of["file", "read", "localfs"] == 1
        await self.nothing_left()

    async def test_refusals(self) -> None:
        """Nothing there, a directory, a file with a slash."""
        await self.refused(FileNotFound, self.filesystem.open(ALICE, "/x"))
        await self.refused(NotAFile, self.filesystem.open(ALICE, "/"))
        await self.refused(NotADirectory, self.filesystem.open(ALICE, "/f", directory_expected=True))

    async def test_keeps_what_it_opened(self) -> None:
        """A reader that began on the old content ends on it, whatever becomes of file and blob."""
        opened = await self.filesystem.open(ALICE, "/f")
        await self.put("/f", b"new")
        await self.backend.inner.delete(opened.inode.blob.id)
        assert await read_all(opened) == b"old content"

    async def test_replaced_before_the_first_byte(self) -> None:
        """A blob that went between look-up and opening: the new content is served."""
        old = (await self.filesystem.stat(ALICE, "/f")).blob.id
        self.backend.steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        await self.put("/f", b"new")
        await self.backend.inner.delete(old)
        self.backend.steps.release("open")
        assert await read_all(await opening) == b"new"
        await self.nothing_left()

    async def test_removed_before_the_first_byte(self) -> None:
        """A file that went between look-up and opening isn't there."""
        old = (await self.filesystem.stat(ALICE, "/f")).blob.id
        self.backend.steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        await self.filesystem.remove(ALICE, "/f")
        await self.backend.inner.delete(old)
        self.backend.steps.release("open")
        await self.refused(FileNotFound, opening)

    async def test_bytes_lost(self) -> None:
        """A file whose blob is missing isn't "not found": it can't be read, and the log and a metric say so."""
        await self.backend.inner.delete((await self.filesystem.stat(ALICE, "/f")).blob.id)
        await self.refused(PeerUnavailable, self.filesystem.open(ALICE, "/f"))
        assert self.metrics.of["error", "engine", "blob_missing"] == 1

    async def test_backend_fails(self) -> None:
        """A backend that can't tell just now: 503, and nothing is said to be lost."""
        self.backend.steps.fail("open", *[PeerUnavailable("input/output error")] * LOOKUPS)
        await self.refused(PeerUnavailable, self.filesystem.open(ALICE, "/f"))
        assert self.metrics.of["error", "engine", "blob_missing"] == 0

    async def test_another_size(self) -> None:
        """A blob of another size than the file's is refused, never served short or long."""
        for error in (-1, 1):
            self.backend.size_error = error
            await self.refused(PeerUnavailable, self.filesystem.open(ALICE, "/f"))
        assert self.metrics.of["error", "engine", "blob_size_mismatch"] >= 2
        assert self.backend.readers == set()

    async def test_slow_backend(self) -> None:
        """A backend that doesn't answer within the limit: 503; a reader that comes later is closed."""
        self.backend.steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        while not opening.called:
            self.advance(10.1)
        await self.refused(PeerUnavailable, opening)
        self.backend.steps.release("open")
        await settled(lambda: not self.backend.readers)

    async def test_client_gone(self) -> None:
        """A client that goes while its file is being opened leaves no reader."""
        self.backend.steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        opening.cancel()
        await self.refused(CancelledError, opening)
        self.backend.steps.release("open")
        await settled(lambda: not self.backend.readers)

    async def test_replaced_without_end(self) -> None:
        """A file that changes each time it is to be opened is given up, not chased for ever."""

        async def find() -> object:
            inode = await self.filesystem.stat(ALICE, "/f")
            await self.backend.inner.delete(inode.blob.id)
            await self.put("/f", b"again")
            return inode

        ports = Ports(
            metadata=self.store,
            backends={"localfs": self.backend},
            peers=Alone(NODE),
            locks=self.locks,
            settings=EngineSettings(instance_id=NODE),
            now=self.now,
            clock=self.clock,
            token_bytes=bytes,
            metrics=self.metrics,
            garbage_made=lambda: None,
        )
        await self.refused(PeerUnavailable, open_found(ports, find))
        assert self.backend.steps.passed["open"] == LOOKUPS

    async def test_on_another_node(self) -> None:
        """Bytes that another node holds can't be read through this one."""
        filesystem = self.make_filesystem(settings=EngineSettings(instance_id="node-2"))
        await self.refused(PeerUnavailable, filesystem.open(ALICE, "/f"))
        assert self.metrics.of["error", "engine", "blob_missing"] == 0


class TestReplica(EngineCase):
    async def file_with_replica(self, first: LocalPlacement) -> None:
        """A file whose first copy is somewhere and whose replica is here."""
        await self.put("/model", b"content")
        copy = (await self.filesystem.stat(ALICE, "/model")).blob
        blob = msgspec.structs.replace(
            copy, id="0" * 26, placement=first, replicas=(BlobRef(copy.id, copy.size, copy.sha256, copy.placement),)
        )
        await self.filesystem.remove(ALICE, "/model")
        await self.store.apply(
            CreateFile(
                at=self.now(),
                principal=ALICE,
                path="/f",
                inode_id="1" * 32,
                content_id="2" * 32,
                blob=blob,
                content_type=None,
                parent_ids=("3" * 32,),
            )
        )

    async def test_first_copy_missing(self) -> None:
        """When the first copy is missing the replica is read."""
        await self.file_with_replica(LocalPlacement(NODE))
        assert await self.content("/f") == b"content"

    async def test_first_copy_elsewhere(self) -> None:
        """When the first copy is on a node that can't be reached the replica is read."""
        await self.file_with_replica(LocalPlacement("node-2"))
        assert await self.content("/f") == b"content"
