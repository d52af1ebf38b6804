"""What every blob backend promises."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from callfs.backends.interfaces import BlobMissing, IBlobBackend, IBlobReader, IStagedBlob
from callfs.identifiers import new_blob_id

MIB = 1024 * 1024
START_AT = 1_700_000_000_000_000

_serial = itertools.count()


class Instant:
    """A clock that stands until it is told to move, in microseconds."""

    def __init__(self, at: int = START_AT) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


def new_id(at: int = START_AT) -> str:
    """A blob id that no other test has; its end is scattered like a random one."""
    return new_blob_id(at, lambda count: random.Random(next(_serial)).randbytes(count))


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that don't repeat."""
    return random.Random(seed).randbytes(size)


async def put(backend: IBlobBackend, data: bytes, blob_id: str | None = None, chunk_bytes: int = 65536) -> str:
    """Store a blob; its id."""
    blob_id = blob_id or new_id()
    staged = await backend.stage(blob_id, len(data))
    for start in range(0, len(data), chunk_bytes):
        await staged.write(data[start : start + chunk_bytes])
    await staged.commit()
    return blob_id


async def get(backend: IBlobBackend, blob_id: str) -> bytes:
    """All of a blob."""
    reader = await backend.open(blob_id)
    try:
        data: bytes = await reader.read(0, reader.size)
        return data
    finally:
        reader.close()


async def listed(backend: IBlobBackend, limit: int = 1000) -> list[str]:
    """The ids of all blobs, page by page."""
    ids: list[str] = []
    while page := await backend.list_blobs(ids[-1] if ids else "", limit):
        assert len(page) <= limit
        ids.extend(found.id for found in page)
    return ids


class BlobBackendContract:
    """
    Bound to a provider by a subclass that is also a ``twisted.trial.unittest.TestCase``.

    ``provider`` is the class under test; :meth:`make_backend` makes an empty one on ``self.now`` and closes it
    at the end of the test.
    """

    provider: ClassVar[type]
    now: Instant

    def make_backend(self) -> IBlobBackend:
        """An empty backend."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.now = Instant()
        self.backend: Any = self.make_backend()

    async def assert_missing(self: Any, blob_ids: Iterable[str]) -> None:
        """None of these can be opened."""
        for blob_id in blob_ids:
            await self.assertFailure(self.backend.open(blob_id), BlobMissing)

    async def test_interfaces(self) -> None:
        """The backend, its staged blobs and its readers have what the port declares."""
        verifyObject(IBlobBackend, self.backend)
        staged = await self.backend.stage(new_id())
        verifyObject(IStagedBlob, staged)
        await staged.commit()
        verifyObject(IBlobReader, await self.backend.open(await put(self.backend, b"x")))

    async def test_round_trip(self) -> None:
        """What was written in pieces is read back whole, whatever its size, with or without a declared size."""
        for size in (0, 1, 1024, MIB - 1, MIB, MIB + 1, 5 * MIB + 17):
            for declared_size in (None, size):
                data, blob_id = content(size), new_id()
                staged = await self.backend.stage(blob_id, declared_size)
                for start in range(0, size, 300_000):
                    await staged.write(data[start : start + 300_000])
                committed = await staged.commit()
                assert (committed.size, committed.sha256) == (size, hashlib.sha256(data).digest())
                assert await get(self.backend, blob_id) == data

    async def test_a_single_large_write(self) -> None:
        """One write may be larger than what a backend gathers."""
        data = content(7 * MIB)
        assert await get(self.backend, await put(self.backend, data, chunk_bytes=len(data))) == data

    async def test_empty_writes(self) -> None:
        """A write of no bytes adds nothing."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        for data in (b"", b"ab", b"", b"c", b""):
            await staged.write(data)
        await staged.commit()
        assert await get(self.backend, blob_id) == b"abc"

    async def test_further_hashers(self) -> None:
        """Every hasher has seen the whole content, in order, once the commit has fired."""
        hashers = [hashlib.sha512(), hashlib.md5(usedforsecurity=False)]
        data = content(3 * MIB)
        staged = await self.backend.stage(new_id(), len(data), hashers)
        for start in range(0, len(data), 70_000):
            await staged.write(data[start : start + 70_000])
        await staged.commit()
        assert [hasher.digest() for hasher in hashers] == [
            hashlib.sha512(data).digest(),
            hashlib.md5(data, usedforsecurity=False).digest(),
        ]

    async def test_invisible_before_the_commit(self: Any) -> None:
        """Nobody sees a staged blob, neither by its id nor in a list."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        await staged.write(content(3 * MIB))
        await self.assert_missing([blob_id])
        await self.assertFailure(self.backend.stat(blob_id), BlobMissing)
        assert await listed(self.backend) == []
        await staged.abort()

    async def test_abort(self) -> None:
        """An aborted blob leaves nothing, however much of it was written; aborting again does nothing."""
        for size in (0, 10, 3 * MIB):
            blob_id = new_id()
            staged = await self.backend.stage(blob_id, size)
            await staged.write(content(size))
            await staged.abort()
            await staged.abort()
            await self.assert_missing([blob_id])

    async def test_abort_after_commit(self) -> None:
        """Abort after the commit does nothing."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        await staged.write(b"kept")
        await staged.commit()
        await staged.abort()
        assert await get(self.backend, blob_id) == b"kept"

    async def test_spent(self: Any) -> None:
        """A spent blob takes no more bytes and can't be committed (again)."""
        for end in ("commit", "abort"):
            staged = await self.backend.stage(new_id())
            await getattr(staged, end)()
            await self.assertFailure(staged.write(b"late"), ValueError)
            await self.assertFailure(staged.commit(), ValueError)

    async def test_shorter_than_declared(self) -> None:
        """Fewer bytes than declared make a blob of what came: the caller knows whether that is an error."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id, 4 * MIB)
        await staged.write(b"short")
        assert (await staged.commit()).size == 5
        assert (await self.backend.stat(blob_id)).size == 5
        assert await get(self.backend, blob_id) == b"short"

    async def test_longer_than_declared(self) -> None:
        """More bytes than declared are kept too."""
        data, blob_id = content(3 * MIB), new_id()
        staged = await self.backend.stage(blob_id, 2 * MIB)
        await staged.write(data)
        assert (await staged.commit()).size == len(data)
        assert await get(self.backend, blob_id) == data

    async def test_an_id_is_used_once(self: Any) -> None:
        """A blob is never written over, neither a staged one nor a committed one."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        await self.assertFailure(self.backend.stage(blob_id), ValueError)
        await staged.write(b"first")
        await staged.commit()
        assert await get(self.backend, blob_id) == b"first"

    async def test_ranges(self) -> None:
        """A read gives the bytes asked for, and less only where the blob ends."""
        data = content(2 * MIB)
        reader = await self.backend.open(await put(self.backend, data))
        assert reader.size == len(data)
        for offset, length in (
            (0, 0),
            (0, 1),
            (100, 50),
            (4095, 2),
            (MIB - 1, MIB),
            (len(data) - 3, 10),
            (7, 10**9),
        ):
            assert await reader.read(offset, length) == data[offset : offset + length]
        assert await reader.read(len(data), 1) == b""
        assert await reader.read(len(data) + 5, 1) == b""
        reader.close()

    async def test_reads_side_by_side(self) -> None:
        """Reads may overlap in time and place."""
        data = content(4 * MIB)
        reader = await self.backend.open(await put(self.backend, data))
        offsets = range(0, len(data), 99_991)
        pieces = await gatherResults([reader.read(offset, 700_000) for offset in offsets])
        assert pieces == [data[offset : offset + 700_000] for offset in offsets]
        reader.close()

    async def test_an_open_blob_survives_its_deletion(self) -> None:
        """A reader that has begun finishes, whether the blob is deleted or set aside meanwhile."""
        data = content(MIB)
        for take_away in (self.backend.delete, self.backend.set_aside):
            blob_id = await put(self.backend, data)
            reader = await self.backend.open(blob_id)
            await take_away(blob_id)
            await self.assert_missing([blob_id])
            assert await reader.read(0, MIB) == data
            reader.close()

    async def test_close_during_reads(self) -> None:
        """Reads under way when the reader is closed end well or fail; afterwards it is closed, twice or not."""
        data = content(4 * MIB)
        reader = await self.backend.open(await put(self.backend, data))
        under_way: list[Deferred[Any]] = [reader.read(0, len(data)).addErrback(lambda _: data) for _ in range(20)]
        reader.close()
        reader.close()
        assert await gatherResults(under_way) == [data] * 20
        assert reader.fileno() is None

    async def test_read_after_close(self: Any) -> None:
        """A closed reader gives nothing."""
        reader = await self.backend.open(await put(self.backend, b"data"))
        reader.close()
        await self.assertFailure(reader.read(0, 4), ValueError)

    async def test_missing(self: Any) -> None:
        """A blob that isn't there: opening and stat say so, deleting and setting aside are content."""
        blob_id = new_id()
        await self.assert_missing([blob_id, "", "../../etc/passwd", "x" * 26])
        await self.assertFailure(self.backend.stat(blob_id), BlobMissing)
        await self.backend.delete(blob_id)
        await self.backend.set_aside(blob_id)

    async def test_delete(self) -> None:
        """A deleted blob is gone, and no other."""
        gone, kept = await put(self.backend, b"gone"), await put(self.backend, b"kept")
        await self.backend.delete(gone)
        await self.assert_missing([gone])
        assert await listed(self.backend) == [kept]

    async def test_stat(self) -> None:
        """Stat tells id, size, and a time."""
        blob_id = await put(self.backend, content(12_345))
        found = await self.backend.stat(blob_id)
        assert (found.id, found.size) == (blob_id, 12_345)
        assert found.modified_at > 0

    async def test_list_in_pages(self) -> None:
        """Pages of any size show every blob once, always in the same order."""
        stored = {await put(self.backend, b"x" * number) for number in range(50)}
        order = await listed(self.backend)
        assert set(order) == stored
        assert len(order) == 50
        for limit in (1, 7, 49, 50, 51):
            assert await listed(self.backend, limit) == order

    async def test_list_while_deleting(self) -> None:
        """Blobs that are deleted between pages, the last one of the page included, disturb no other."""
        for _ in range(40):
            await put(self.backend, b"x")
        order = await listed(self.backend)
        seen: list[str] = []
        while page := await self.backend.list_blobs(seen[-1] if seen else "", 3):
            seen.extend(found.id for found in page)
            await gatherResults([self.backend.delete(found.id) for found in page])
        assert seen == order
        assert await listed(self.backend) == []

    async def test_set_aside(self: Any) -> None:
        """What is set aside is out of sight at once, and goes only when its time has come."""
        waits, leaves, stays = [await put(self.backend, b"x") for _ in range(3)]
        await self.backend.set_aside(leaves)
        self.now.at += 1000
        await self.backend.set_aside(waits)
        await self.assert_missing([waits, leaves])
        await self.assertFailure(self.backend.stat(waits), BlobMissing)
        assert await listed(self.backend) == [stays]
        assert await self.backend.purge_set_aside(self.now.at) == 1
        assert await self.backend.purge_set_aside(self.now.at) == 0
        assert await self.backend.purge_set_aside(self.now.at + 1) == 1
        assert await get(self.backend, stays) == b"x"

    async def test_put_back(self: Any) -> None:
        """What is set aside is listed in pages, with the time since when, and can be put back whole."""
        blob_ids = sorted([await put(self.backend, b"data") for _ in range(5)])
        assert await self.backend.list_set_aside() == []
        for blob_id in blob_ids:
            await self.backend.set_aside(blob_id)
        page = await self.backend.list_set_aside("", 3)
        page += await self.backend.list_set_aside(page[-1].id, 3)
        assert [(found.id, found.size, found.modified_at) for found in page] == [
            (blob_id, 4, self.now.at) for blob_id in blob_ids
        ]
        await self.backend.put_back(blob_ids[0])
        assert await get(self.backend, blob_ids[0]) == b"data"
        assert await listed(self.backend) == blob_ids[:1]
        assert await self.backend.purge_set_aside(self.now.at + 1) == 4
        for blob_id in (blob_ids[0], blob_ids[1], new_id(), "../../etc/passwd"):
            await self.backend.put_back(blob_id)
        assert await listed(self.backend) == blob_ids[:1]

    async def test_stale_means_not_of_this_process(self) -> None:
        """Cleaning up after others leaves alone what this process has staged, and what is committed."""
        blob_id, data = new_id(), content(3 * MIB)
        kept = await put(self.backend, b"kept")
        staged = await self.backend.stage(blob_id, len(data))
        await staged.write(data)
        assert await self.backend.remove_stale_staged(2**62 // 1000) == 0
        await staged.commit()
        assert await get(self.backend, blob_id) == data
        assert await get(self.backend, kept) == b"kept"

    async def test_many_at_once(self) -> None:
        """Simultaneous writers don't mix."""
        contents = [content(number * 1000, number) for number in range(64)]
        ids = await gatherResults([Deferred.fromCoroutine(put(self.backend, data)) for data in contents])
        assert [await get(self.backend, blob_id) for blob_id in ids] == contents

    async def test_close_aborts(self) -> None:
        """Closing the backend forgets what is staged and keeps what is committed."""
        kept, blob_id = await put(self.backend, b"kept"), new_id()
        staged = await self.backend.stage(blob_id)
        await staged.write(content(3 * MIB))
        await self.backend.close()
        await staged.abort()
        await self.assert_missing([blob_id])
        assert await get(self.backend, kept) == b"kept"
