"""Blobs set aside in a bucket, copies on the server, and lists with strange things in them."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from callfs.backends.interfaces import BlobMissing, ICopyingBackend
from callfs.backends.s3_parts import CopyLimits
from callfs.backends.s3_settings import S3Keys
from tests.backends.s3_support import FaultyServer
from tests.contract.backends import MIB, Instant, content, get, listed, new_id, put
from tests.support.faulty_s3 import asked_for, reply

ALWAYS = 1_000_000


class InterruptedTests(FaultyServer, TestCase):
    """A crash between the steps loses nothing."""

    async def begun(self) -> tuple[Any, Instant]:
        """A backend on a clock of the test's."""
        await self.begin()
        now = Instant()
        return self.backend({"now": now, "random": lambda: 0.0}), now

    async def interrupted(self, backend: Any) -> str:
        """A blob that is set aside, but for the last step."""
        blob_id = await put(backend, b"data")
        self.faulty.on("DELETE", reply(403, "AccessDenied"))
        await self.assertFailure(backend.set_aside(blob_id), Exception)
        assert await get(backend, blob_id) == b"data"
        return blob_id

    async def test_again(self) -> None:
        """Setting aside again completes it, and counts from then."""
        backend, now = await self.begun()
        blob_id = await self.interrupted(backend)
        now.at += 1000
        await backend.set_aside(blob_id)
        await self.assertFailure(backend.open(blob_id), BlobMissing)
        assert [(found.id, found.modified_at) for found in await backend.list_set_aside()] == [(blob_id, now.at)]
        assert await backend.purge_set_aside(now.at) == 0
        assert await backend.purge_set_aside(now.at + 1) == 1
        assert self.server.keys(self.prefix) == []

    async def test_put_back(self) -> None:
        """Putting back brings one blob back, of however many copies."""
        backend, now = await self.begun()
        blob_id = await self.interrupted(backend)
        now.at += 1000
        await backend.set_aside(blob_id)
        await backend.put_back(blob_id)
        assert await get(backend, blob_id) == b"data"
        assert self.server.keys(self.prefix) == [S3Keys(self.prefix).blob(blob_id)]

    async def test_pages_of_copies(self) -> None:
        """Several copies of a blob are one entry of the list, whatever the size of its pages."""
        backend, now = await self.begun()
        ids = sorted([await self.interrupted(backend) for _ in range(3)])
        now.at += 1000
        for blob_id in ids:
            await backend.set_aside(blob_id)
        for limit in (1, 2, 3, 4):
            found: list[Any] = []
            while page := await backend.list_set_aside(found[-1].id if found else "", limit):
                assert len(page) <= limit
                found += page
            assert [(one.id, one.modified_at) for one in found] == [(blob_id, now.at) for blob_id in ids]


class CopyTests(FaultyServer, TestCase):
    """Copies on the server."""

    async def test_copy(self) -> None:
        """A copy has the same content, and lives on without the first blob; no byte of it passes through here."""
        await self.begin()
        backend = self.backend()
        verifyObject(ICopyingBackend, backend)
        blob_id, copy = await put(backend, content(MIB)), new_id()
        self.faulty.seen.clear()
        made = await backend.copy(blob_id, copy)
        assert (made.id, made.size) == (copy, MIB)
        assert not any(seen.body for seen in self.faulty.seen)
        await backend.delete(blob_id)
        assert await get(backend, copy) == content(MIB)

    async def test_in_parts(self) -> None:
        """What is too large for one request is copied in parts, also to be set aside."""
        await self.begin()
        limits = CopyLimits(most_bytes=10 * MIB, part_bytes=5 * MIB)
        backend = self.backend({"copy_limits": limits})
        data = content(12 * MIB)
        blob_id, copy = await put(backend, data), new_id()
        self.faulty.seen.clear()
        assert (await backend.copy(blob_id, copy)).size == 12 * MIB
        assert len(self.faulty.matching("PUT .*partNumber")) == 3
        assert await get(backend, copy) == data
        await backend.set_aside(copy)
        await backend.put_back(copy)
        assert await get(backend, copy) == data

    async def test_parts_that_fail(self) -> None:
        """A copy in parts that fails leaves nothing."""
        await self.begin()
        backend = self.backend({"copy_limits": CopyLimits(most_bytes=1, part_bytes=5 * MIB)})
        blob_id, copy = await put(backend, content(12 * MIB)), new_id()
        self.faulty.on("PUT .*partNumber=2", reply(200, "AccessDenied"))
        await self.assertFailure(backend.copy(blob_id, copy), Exception)
        assert await listed(backend) == [blob_id]
        assert self.server.uploads(self.prefix) == []

    async def test_refused(self) -> None:
        """There has to be a blob to copy, and a new id for the copy."""
        await self.begin()
        backend = self.backend()
        for missing in (new_id(), "../x"):
            await self.assertFailure(backend.copy(missing, new_id()), BlobMissing)
        blob_id, staged_id = await put(backend, b"x"), new_id()
        staged = await backend.stage(staged_id)
        for taken in (staged_id, "../x"):
            await self.assertFailure(backend.copy(blob_id, taken), ValueError)
        await staged.abort()


class ListTests(FaultyServer, TestCase):
    """Lists of a bucket in which others put things, too."""

    async def test_strange_keys(self) -> None:
        """What is no blob is passed over, however much of it there is, and never ends a list too early."""
        await self.begin()
        backend, client = self.backend(), self.server.client()
        ids = [await put(backend, b"x") for _ in range(3)]
        for folder in ("00", ids[0][-2:], "zz", "~"):
            for name in ("a", "b", f"{ids[0]}.tmp", "\u00fc & <x>", "~"):
                client.put_object(Bucket=self.server.bucket, Key=f"{self.prefix}blobs/{folder}/{name}", Body=b"")
        client.put_object(Bucket=self.server.bucket, Key=f"{self.prefix}aside/strange", Body=b"")
        order = await listed(backend)
        assert set(order) == set(ids)
        for limit in (1, 2):
            assert await listed(backend, limit) == order
        assert await backend.list_set_aside() == []

    async def test_short_pages(self) -> None:
        """A server may give fewer at once than are asked for: nothing is lost between."""
        await self.begin()
        backend = self.backend()
        ids = {await put(backend, b"x") for _ in range(20)}
        fewer = asked_for(lambda raw: re.sub(rb"max-keys=\d{2,}", b"max-keys=3", raw))
        self.faulty.on("GET .*list-type", fewer, times=ALWAYS)
        for limit in (5000, 20, 19):
            assert set(await listed(backend, limit)) == ids
        for blob_id in ids:
            await backend.set_aside(blob_id)
        assert len(await backend.list_set_aside("", 5000)) == 20
        assert await backend.purge_set_aside(1 << 60) == 20

    async def test_short_pages_of_uploads(self) -> None:
        """So it is with what uploads have left."""
        await self.begin()
        backend, client = self.backend(), self.server.client()
        keys = S3Keys(self.prefix)
        for _ in range(5):
            client.create_multipart_upload(Bucket=self.server.bucket, Key=keys.blob(new_id()))
        fewer = asked_for(lambda raw: raw.replace(b"uploads HTTP", b"max-uploads=2&uploads HTTP"))
        self.faulty.on("GET .*uploads", fewer, times=ALWAYS)
        assert await backend.remove_stale_staged(1 << 60) == 5
