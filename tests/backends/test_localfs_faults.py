"""The local backend when the disk, or the caller, doesn't go on."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import BlobMissing
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage, InternalError
from tests.backends.support import make_local, new_folder, open_descriptors
from tests.backends.test_localfs_files import files
from tests.contract.backends import MIB, content, get, listed, new_id, put
from tests.support.mounts import SmallDisk


@returns_deferred
async def write_until(backend: Any, blob_id: str, size: int, declared_size: int | None = None) -> None:
    """Upload ``size`` bytes, and abort as a caller does when that fails."""
    staged = await backend.stage(blob_id, declared_size)
    try:
        for _ in range(size // MIB):
            await staged.write(b"\x5a" * MIB)
    except Exception:
        await staged.abort()
        raise
    await staged.commit()


class SmallDiskTests(TestCase):
    """A disk of 64 MiB."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.disk = SmallDisk(self.folder, 64 * MIB)
        self.addCleanup(self.disk.close)
        self.root = self.disk.inside / "root"
        self.root.mkdir()

    def backend(self, min_free_bytes: int = 0, linux_calls: bool = True) -> Any:
        """A backend on the disk."""
        return make_local(self, self.root, min_free_bytes=min_free_bytes, linux_calls=linux_calls)

    async def test_full(self) -> None:
        """On a full disk nothing new becomes visible, everything is tidied, and reads go on."""
        backend = self.backend()
        kept = await put(backend, content(MIB))
        before = open_descriptors()
        await self.assertFailure(write_until(backend, new_id(), 80 * MIB), InsufficientStorage)
        assert files(self.root) == [f"blobs/{kept[-2:]}/{kept}"]
        assert self.disk.free_bytes() > 60 * MIB
        assert open_descriptors() == before
        assert await get(backend, kept) == content(MIB)

    async def test_full_by_others(self) -> None:
        """So it is when somebody else fills the disk while a blob is written; afterwards writing works again."""
        backend = self.backend()
        staged = await backend.stage(new_id())
        await staged.write(b"x" * 1000)
        self.disk.fill()
        with pytest.raises(InsufficientStorage):  # noqa: PT012 - any of the writes
            for _ in range(20):
                await staged.write(b"x" * MIB)
        await staged.abort()
        self.disk.free()
        assert await listed(backend) == [] == files(self.root)
        await put(backend, content(MIB))

    async def test_small_blobs_on_a_full_disk(self) -> None:
        """A blob that is written in one go at its commit fails there, and leaves nothing."""
        backend = self.backend()
        staged = await backend.stage(new_id())
        await staged.write(b"x" * 100_000)
        self.disk.fill()
        await self.assertFailure(staged.commit(), InsufficientStorage)
        assert files(self.root) == []

    async def test_declared(self) -> None:
        """What can't fit above the reserve is refused before a byte of it is taken."""
        for linux_calls in (True, False):
            backend = self.backend(16 * MIB, linux_calls)
            await self.assertFailure(backend.stage(new_id(), 50 * MIB), InsufficientStorage)
            assert files(self.root) == []
            assert self.disk.free_bytes() > 60 * MIB

    async def test_declared_uploads_under_way_count(self) -> None:
        """Two uploads can't be promised the same room, and what isn't used is free again."""
        for linux_calls in (True, False):
            backend = self.backend(16 * MIB, linux_calls)
            first = await backend.stage(new_id(), 30 * MIB)
            await self.assertFailure(backend.stage(new_id(), 30 * MIB), InsufficientStorage)
            await first.write(b"x" * 20 * MIB)
            await self.assertFailure(backend.stage(new_id(), 30 * MIB), InsufficientStorage)
            await first.abort()
            second = await backend.stage(new_id(), 30 * MIB)
            await second.write(b"x" * MIB)
            await second.commit()
            third = await backend.stage(new_id(), 30 * MIB)
            await third.abort()

    async def test_the_reserve(self) -> None:
        """Uploads of unknown size, several at once, stop before the reserve is touched."""
        backend = self.backend(min_free_bytes=16 * MIB)
        uploads: list[Deferred[Any]] = [write_until(backend, new_id(), 40 * MIB) for _ in range(4)]
        lowest = self.disk.free_bytes()
        while not all(upload.called for upload in uploads):
            await backend.remove_stale_staged(0)
            lowest = min(lowest, self.disk.free_bytes())
        for upload in uploads:
            upload.addErrback(lambda failure: failure.trap(InsufficientStorage) and None)
        await gatherResults(uploads)
        assert lowest > 15 * MIB

    async def test_the_whole_disk_can_be_used(self) -> None:
        """Without a reserve an upload isn't refused much before the disk is really full."""
        backend = self.backend()
        await write_until(backend, new_id(), 62 * MIB)
        assert self.disk.free_bytes() <= 2 * MIB

    async def test_read_only(self) -> None:
        """On a disk that turned read-only writes fail and reads go on."""
        backend = self.backend()
        kept = await put(backend, b"kept")
        self.disk.make_read_only()
        await self.assertFailure(backend.stage(new_id(), 5 * MIB), InternalError)
        await self.assertFailure(write_until(backend, new_id(), 0), InternalError)
        await self.assertFailure(backend.delete(kept), InternalError)
        assert await get(backend, kept) == b"kept"
        assert await listed(backend) == [kept]


class DiskErrorTests(TestCase):
    """Single calls that fail."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.at: dict[str, Callable[[], None]] = {}
        self.backend: Any = make_local(self, self.root, reached=lambda step: self.at.get(step, lambda: None)())

    async def test_write(self) -> None:
        """A write that fails half-way (a file size limit) fails the blob: nothing of it is left."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB + 1000, limits[1]))
        try:
            await self.assertFailure(write_until(self.backend, new_id(), 20 * MIB), InternalError)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert files(self.root) == []

    async def test_fsync(self) -> None:
        """An fsync that fails is the end of the blob: it isn't tried again, and nothing is visible."""
        tries = []

        def break_the_file() -> None:
            """Put a pipe, which can't be synced, in place of the staged file's descriptor."""
            tries.append(1)
            read_end, write_end = os.pipe()
            for name in os.listdir("/proc/self/fd"):
                path = f"/proc/self/fd/{name}"
                if os.path.islink(path) and os.readlink(path).startswith(str(self.root / "staging")):
                    os.dup2(write_end, int(name), inheritable=False)
            os.close(read_end)
            os.close(write_end)

        self.at["blob.written"] = break_the_file
        for size in (10, 3 * MIB):
            blob_id = new_id()
            staged = await self.backend.stage(blob_id)
            await staged.write(content(size))
            await self.assertFailure(staged.commit(), InternalError)
            await self.assertFailure(self.backend.open(blob_id), BlobMissing)
        assert len(tries) == 2
        assert files(self.root) == []

    async def test_fsync_of_the_folder(self) -> None:
        """When the name can't be made durable, the blob is taken out of sight again."""
        blob_id = new_id()
        await put(self.backend, b"other", blob_id[:5] + "0" + blob_id[6:])  # its folder is there and durable
        shard = self.root / "blobs" / blob_id[-2:]

        def break_the_folder() -> None:
            """Put a link, which isn't followed, in place of the folder."""
            shard.rename(self.root / "moved")
            shard.symlink_to(self.root / "moved")

        self.at["blob.renamed"] = break_the_folder
        staged = await self.backend.stage(blob_id)
        await staged.write(b"data")
        await self.assertFailure(staged.commit(), InternalError)
        assert blob_id not in {path.name for path in self.root.rglob("*")}

    async def test_no_descriptors_left(self) -> None:
        """When the process is out of descriptors, uploads and opens fail, and work again later."""
        blob_id = await put(self.backend, b"data")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            opened = await self.backend.open(blob_id).addErrback(lambda failure: failure.value.code)
            staged = await self.backend.stage(new_id(), 2 * MIB).addErrback(lambda failure: failure.value.code)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert (opened, staged) == ("PEER_UNAVAILABLE", "INTERNAL_ERROR")
        assert await get(self.backend, blob_id) == b"data"


class CallerGoesTests(TestCase):
    """A caller that aborts or cancels while a thread is on the file."""

    def setUp(self) -> Any:
        self.root = new_folder(self)
        self.go_on = threading.Event()
        self.stop_at = ""
        self.backend: Any = make_local(self, self.root, reached=self.reached)
        self.addCleanup(self.go_on.set)  # the last that is added is the first that runs
        return self.let_free_space_be_known()

    @returns_deferred
    async def let_free_space_be_known(self) -> None:
        """Until then every stage asks the disk."""
        await self.backend.delete(await put(self.backend, b"data"))
        self.before = open_descriptors()

    def reached(self, step: str) -> None:
        """Hold the thread at one step."""
        if step == self.stop_at:
            self.go_on.wait()

    async def test_abort_waits_for_the_thread(self) -> None:
        """An abort during a write fires only when the file is closed and gone."""
        self.stop_at = "blob.staged"
        staged = await self.backend.stage(new_id())
        await staged.write(b"x" * 2 * MIB)
        ended: Deferred[None] = staged.abort()
        assert not ended.called
        self.go_on.set()
        await ended
        assert files(self.root) == []
        assert open_descriptors() == self.before

    async def test_cancelled_write(self) -> None:
        """A write may be cancelled; the abort after it tidies up."""
        self.stop_at = "blob.staged"
        staged = await self.backend.stage(new_id())
        await staged.write(b"x" * 2 * MIB)
        waiting = staged.write(b"y" * 2 * MIB)
        assert not waiting.called
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        self.go_on.set()
        await staged.abort()
        assert files(self.root) == []

    async def test_cancelled_stage(self) -> None:
        """A stage that is cancelled leaves no file, although its thread made one."""
        self.stop_at = "blob.staged"
        staging = self.backend.stage(new_id(), 5 * MIB)
        staging.cancel()
        await self.assertFailure(staging, CancelledError)
        self.go_on.set()
        await self.backend.close()
        assert files(self.root) == []
        assert open_descriptors() == self.before

    async def test_cancelled_commit(self) -> None:
        """A commit that somebody cancels all the same is either done whole or not at all; here it is done."""
        self.stop_at = "blob.fsynced"
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        await staged.write(b"data")
        committing = staged.commit()
        committing.cancel()
        await self.assertFailure(committing, CancelledError)
        self.go_on.set()
        await staged.abort()
        assert await get(self.backend, blob_id) == b"data"
        assert files(self.root / "staging") == []

    async def test_close_finishes_commits(self) -> None:
        """Closing the backend waits for a commit under way."""
        self.stop_at = "blob.renamed"
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        await staged.write(b"data")
        committing = staged.commit()
        closing = self.backend.close()
        assert not closing.called
        self.go_on.set()
        await closing
        assert (await committing).size == 4
        assert await get(self.backend, blob_id) == b"data"

    async def test_back_pressure(self) -> None:
        """While the disk doesn't take anything, only a few MiB can be written before a write waits."""
        self.stop_at = "blob.staged"
        staged = await self.backend.stage(new_id())
        taken = 0
        while (writing := staged.write(b"x" * 65536)).called:
            taken += 65536
        assert taken < 4 * MIB
        self.go_on.set()
        await writing
        await staged.abort()
