"""What the local backend leaves on the disk, and what it makes of what it finds there."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import BlobMissing
from callfs.errors import InternalError, PeerUnavailable
from tests.backends.support import make_local, new_folder, open_descriptors
from tests.contract.backends import MIB, Instant, content, get, listed, new_id, put
from tests.support.mounts import SmallDisk


def files(root: Path) -> list[str]:
    """All files below a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


class LayoutTests(TestCase):
    """Where blobs lie."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.now = Instant()
        self.backend: Any = make_local(self, self.root, self.now)

    async def test_committed(self) -> None:
        """A blob lies in the folder of its id's last two characters, and in no other."""
        blob_id = await put(self.backend, b"data")
        assert files(self.root) == [f"blobs/{blob_id[-2:]}/{blob_id}"]
        assert (self.root / "blobs" / blob_id[-2:] / blob_id).read_bytes() == b"data"

    async def test_set_aside(self) -> None:
        """A blob that was set aside waits in a folder of its own with all of its bytes."""
        blob_id = await put(self.backend, b"data")
        await self.backend.set_aside(blob_id)
        assert files(self.root) == [f"aside/{blob_id}"]
        assert (self.root / "aside" / blob_id).read_bytes() == b"data"

    async def test_nothing_is_left(self) -> None:
        """Aborted, deleted and purged blobs leave no file."""
        staged = await self.backend.stage(new_id(), 3 * MIB)
        await staged.write(content(3 * MIB))
        assert files(self.root)
        await staged.abort()
        await self.backend.delete(await put(self.backend, b"data"))
        await self.backend.set_aside(blob_id := await put(self.backend, b"data"))
        assert files(self.root) == [f"aside/{blob_id}"]
        await self.backend.purge_set_aside(self.now.at + 1)
        assert files(self.root) == []

    async def test_permissions(self) -> None:
        """Only the daemon's user may enter or read, whatever the umask."""
        for umask in (0, 0o022, 0o777):
            before = os.umask(umask)
            try:
                small, large = await put(self.backend, b"data"), await put(self.backend, content(3 * MIB))
            finally:
                os.umask(before)
            for blob_id in (small, large):
                path = self.root / "blobs" / blob_id[-2:] / blob_id
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for name in ("blobs", "staging", "aside"):
            assert stat.S_IMODE((self.root / name).stat().st_mode) == 0o700

    async def test_preallocated_room_is_given_back(self) -> None:
        """A blob that is shorter than declared takes no more of the disk than it needs."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id, 64 * MIB)
        await staged.write(b"short")
        await staged.commit()
        assert (self.root / "blobs" / blob_id[-2:] / blob_id).stat().st_blocks * 512 < MIB

    async def test_a_missing_root_is_not_made(self) -> None:
        """A root that isn't there (an unmounted disk) is an error, never an empty place for new blobs."""
        root = self.root / "not" / "mounted"
        backend = make_local(self, root)
        await self.assertFailure(backend.stage(new_id()), InternalError)
        assert not root.exists()


class FoundTests(TestCase):
    """What others put into the root folder."""

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.backend: Any = make_local(self, self.root)

    def path_of(self, blob_id: str) -> Path:
        """Where a blob is."""
        return self.root / "blobs" / blob_id[-2:] / blob_id

    async def test_an_empty_root(self) -> None:
        """A root in which nothing was ever written has no blobs and nothing to clean."""
        assert await listed(self.backend) == []
        assert await self.backend.remove_stale_staged(2**60) == 0
        assert await self.backend.purge_set_aside(2**60) == 0

    async def test_foreign_files(self) -> None:
        """Files that are no blobs aren't listed, opened or removed."""
        blob_id = await put(self.backend, b"data")
        shard = self.path_of(blob_id).parent
        wrong_shard = new_id()
        foreign = [
            shard / "README",
            shard / f"{blob_id}.tmp",
            shard / (wrong_shard[:-2] + "!!"),
            self.root / "blobs" / "x",
        ]
        foreign += [self.root / "staging" / "notes", self.root / "aside" / "notes"]
        for path in foreign:
            path.write_text("not ours")
        (self.root / "blobs" / "lost+found").mkdir()
        (self.root / "blobs" / "lost+found" / new_id()).write_text("not ours")
        assert await listed(self.backend) == [blob_id]
        await self.backend.remove_stale_staged(2**60)
        await self.backend.purge_set_aside(2**60)
        assert all(path.exists() for path in foreign)

    async def test_a_blob_in_the_wrong_folder(self) -> None:
        """A blob that somebody moved into another's folder isn't listed, since it can't be opened."""
        blob_id, other = await put(self.backend, b"data"), new_id()
        while other[-2:] == blob_id[-2:]:
            other = new_id()
        (self.path_of(blob_id).parent / other).write_bytes(b"misplaced")
        assert await listed(self.backend) == [blob_id]
        await self.assertFailure(self.backend.open(other), BlobMissing)

    async def test_a_symlink_is_no_blob(self) -> None:
        """A symlink in a blob's place is neither followed nor listed."""
        blob_id = await put(self.backend, b"data")
        self.path_of(blob_id).unlink()
        self.path_of(blob_id).symlink_to("/etc/passwd")
        await self.assertFailure(self.backend.open(blob_id), PeerUnavailable)
        await self.assertFailure(self.backend.stat(blob_id), BlobMissing)
        assert await listed(self.backend) == []

    async def test_a_pipe_is_no_blob(self) -> None:
        """A named pipe in a blob's place doesn't hold anybody up."""
        blob_id = await put(self.backend, b"data")
        self.path_of(blob_id).unlink()
        os.mkfifo(self.path_of(blob_id))
        await self.assertFailure(self.backend.open(blob_id), PeerUnavailable)

    async def test_symlinked_folders(self) -> None:
        """A symlink in place of one of the root's own folders is refused."""
        for name in ("blobs", "staging", "aside"):
            root = new_folder(self)
            (root / name).symlink_to(new_folder(self))
            await self.assertFailure(make_local(self, root).stage(new_id(), 9 * MIB), InternalError)

    async def test_a_committed_blob_is_never_replaced(self) -> None:
        """Should an id come up twice, the second commit fails and the first content stays."""
        blob_id = await put(self.backend, b"first")
        staged = await self.backend.stage(blob_id)
        await staged.write(b"second")
        await self.assertFailure(staged.commit(), InternalError)
        assert await get(self.backend, blob_id) == b"first"
        assert files(self.root / "staging") == []

    async def test_stale_staged(self) -> None:
        """A thousand and more leftovers of an earlier process are removed, younger ones stay."""
        await put(self.backend, b"data")
        old = [self.root / "staging" / new_id() for _ in range(1500)]
        young = [self.root / "staging" / new_id() for _ in range(10)]
        for path in old + young:
            path.write_bytes(b"half")
            os.utime(path, (1000, 1000) if path in old else (2000, 2000))
        assert await self.backend.remove_stale_staged(1_500_000_000) == 1500
        assert sorted(path.name for path in young) == files(self.root / "staging")

    async def test_stale_staged_beside_own(self) -> None:
        """More blobs of this process than a step takes don't hide the stale ones behind them."""
        own = [await self.backend.stage(new_id(), 2 * MIB) for _ in range(40)]
        stale = self.root / "staging" / new_id()
        stale.write_bytes(b"half")
        assert await self.backend.remove_stale_staged(2**60) == 1
        assert len(files(self.root / "staging")) == 40
        await gatherResults([staged.abort() for staged in own])

    async def test_an_empty_folder_is_removed(self) -> None:
        """When somebody removes the empty folder of a deleted blob, blobs can be stored there as before."""
        for restore in (False, True):
            blob_id = await put(self.backend, b"first")
            if restore:
                await self.backend.set_aside(blob_id)
            else:
                await self.backend.delete(blob_id)
            (self.root / "blobs" / blob_id[-2:]).rmdir()
            if restore:
                await self.backend.put_back(blob_id)
                assert await get(self.backend, blob_id) == b"first"
            else:
                other = new_id()[:-2] + blob_id[-2:]
                staged = await self.backend.stage(other)
                await staged.write(b"second")
                await staged.commit()
                assert await get(self.backend, other) == b"second"

    async def test_truncated_under_a_reader(self) -> None:
        """A blob that somebody truncates gives fewer bytes, and never waits for the rest."""
        blob_id = await put(self.backend, content(3 * MIB))
        reader = await self.backend.open(blob_id)
        os.truncate(self.path_of(blob_id), MIB)
        assert await reader.read(0, 3 * MIB) == content(3 * MIB)[:MIB]
        assert await reader.read(2 * MIB, 100) == b""
        reader.close()

    async def test_cold(self) -> None:
        """Bytes that aren't in memory are fetched from the disk."""
        data = content(3 * MIB)
        blob_id = await put(self.backend, data)
        fd = os.open(self.path_of(blob_id), os.O_RDONLY)
        os.posix_fadvise(fd, MIB // 2, MIB, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        reader = await self.backend.open(blob_id)
        for offset in range(0, len(data), 200_000):
            assert await reader.read(offset, 200_000) == data[offset : offset + 200_000]
        reader.close()


class DescriptorTests(TestCase):
    """No path leaks a file descriptor."""

    async def test_a_thousand_of_each(self) -> None:
        """A thousand aborted, committed, opened and missed blobs leave no descriptor open."""
        disk = SmallDisk(new_folder(self), 64 * MIB)  # in memory: a thousand real commits would take long
        self.addCleanup(disk.close)
        for linux_calls in (True, False):
            backend: Any = make_local(self, disk.inside, linux_calls=linux_calls)
            await put(backend, b"warm")
            before = open_descriptors()
            for number in range(250):
                for declared_size in (None, 2 * MIB):
                    staged = await backend.stage(new_id(), declared_size)
                    await staged.write(b"x" * (number % 3))
                    await (staged.abort() if number % 2 else staged.commit())
                blob_id = await put(backend, b"x")
                reader = await backend.open(blob_id)
                await reader.read(0, 1)
                reader.close()
                await self.assertFailure(backend.open(new_id()), BlobMissing)
            assert open_descriptors() == before

    async def test_the_descriptor_outlives_reads_only(self) -> None:
        """A reader that is closed while threads read keeps its descriptor until the last has finished."""
        backend: Any = make_local(self)
        blob_id = await put(backend, data := content(8 * MIB))
        before = open_descriptors()
        reader = await backend.open(blob_id)
        assert reader.fileno() is not None
        reads = [reader.read(0, len(data)) for _ in range(8)]
        reader.close()
        assert await gatherResults(reads) == [data] * 8
        assert open_descriptors() == before

    async def test_cancelled_opens(self) -> None:
        """A file that is opened for somebody who has gone is closed again."""
        backend: Any = make_local(self, linux_calls=False, threads=1)  # one thread does its jobs in order
        blob_id = await put(backend, b"data")
        before = open_descriptors()
        for _ in range(100):
            opening = backend.open(blob_id)
            opening.addErrback(lambda failure: None)
            opening.cancel()
        await backend.stat(blob_id)
        assert open_descriptors() == before

    async def test_cancelled_reads(self) -> None:
        """A read that is cancelled doesn't disturb the next, and the descriptor goes with the close."""
        backend: Any = make_local(self, threads=1)
        blob_id = await put(backend, data := content(8 * MIB))
        before = open_descriptors()
        reader = await backend.open(blob_id)
        for _ in range(20):
            reading = reader.read(0, len(data))
            reading.addErrback(lambda failure: None)
            reading.cancel()
        assert await reader.read(0, len(data)) == data
        reader.close()
        assert open_descriptors() == before
