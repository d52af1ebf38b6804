"""What goes over the wire."""

from __future__ import annotations

import base64
import hashlib
import itertools
from typing import Any

from twisted.trial.unittest import TestCase

from callfs.backends.s3_settings import S3Keys
from tests.backends.s3_support import FaultyServer, names_nothing
from tests.contract.backends import MIB, content, get, listed, new_id, put
from tests.support.faulty_s3 import Held
from tests.support.signatures import is_signed

PART = 8 * MIB


class SignatureTests(FaultyServer, TestCase):
    """Every request is signed as it is sent."""

    async def test_odd_prefixes(self) -> None:
        """Whatever a prefix has in it, what is signed is what is sent, and blobs come back by their ids."""
        for odd in ("a b+c/ü€/", "~-_.!*'()/", "%2F%%/", "x&y=z?w#v/", "a//b/./../", "/", "//./", ":@$,;<>[]|^`/"):
            await self.begin()
            self.prefix = odd + self.prefix if odd.startswith("/") else self.prefix + odd
            backend = self.backend()
            await backend.recognise("0" * 32, True, names_nothing)
            blob_id, large = await put(backend, b"data"), await put(backend, content(PART + 1))
            await backend.set_aside(blob_id)
            assert [found.id for found in await backend.list_set_aside()] == [blob_id]
            await backend.put_back(blob_id)
            copy = new_id()
            await backend.copy(blob_id, copy)
            assert set(await listed(backend)) == {blob_id, large, copy}
            assert await get(backend, copy) == b"data"
            assert S3Keys(self.prefix).blob(large) in self.server.keys(self.prefix)
            await backend.remove_stale_staged(1 << 60)
            assert self.faulty.seen
            for seen in self.faulty.seen:
                assert is_signed(seen, self.server.secret_key, self.server.region), seen

    async def test_payload(self) -> None:
        """The digest of the content is part of the signature, and is the checksum that S3 verifies."""
        await self.begin()
        await put(self.backend(), content(2 * PART + 5))
        parts = self.faulty.matching("PUT .*partNumber")
        assert sorted(len(seen.body) for seen in parts) == [5, PART, PART]
        for seen in parts:
            digest = hashlib.sha256(seen.body)
            assert seen.headers["x-amz-content-sha256"] == digest.hexdigest()
            assert seen.headers["x-amz-checksum-sha256"] == base64.b64encode(digest.digest()).decode()

    async def test_connections_are_kept(self) -> None:
        """Requests that follow each other use one connection."""
        await self.begin()
        backend = self.backend()
        for _ in range(20):
            await get(backend, await put(backend, b"x"))
        assert self.faulty.open_connections == 1


class UploadTests(FaultyServer, TestCase):
    """How content is sent."""

    async def test_one_request(self) -> None:
        """What fits into one part is one request, with or without a declared size; one byte more makes parts."""
        await self.begin()
        backend = self.backend()
        for declared, size in itertools.product((None, 0), (0, 1, PART, PART + 1)):
            self.faulty.seen.clear()
            staged = await backend.stage(new_id(), None if declared is None else size)
            for start in range(0, size, MIB):
                await staged.write(content(min(MIB, size - start)))
            await staged.commit()
            assert [seen.method for seen in self.faulty.seen] == (
                ["PUT"] if size <= PART else ["POST", "PUT", "PUT", "POST"]
            )

    async def test_settings(self) -> None:
        """Encryption and access control list go with every new object, and with copies."""
        await self.begin()
        backend = self.backend(
            server_side_encryption="aws:kms", kms_key_id="a-key", acl="bucket-owner-full-control"
        )
        blob_id = await put(backend, b"x")
        await put(backend, content(PART + 1))
        await backend.copy(blob_id, new_id())
        making = self.faulty.matching(r"^(PUT [^?]*$|POST .*uploads)")
        assert len(making) == 3
        for seen in making:
            assert seen.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert seen.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "a-key"
            assert seen.headers["x-amz-acl"] == "bucket-owner-full-control"

    async def test_no_settings(self) -> None:
        """What is set to nothing isn't sent."""
        await self.begin()
        await put(self.backend(server_side_encryption="", acl=""), b"x")
        (seen,) = self.faulty.seen
        assert not {"x-amz-acl", "x-amz-server-side-encryption"} & seen.headers.keys()

    async def test_four_parts_at_once(self) -> None:
        """Parts are sent side by side, four at most, and no more than 32 MiB and one write are in memory."""
        await self.begin()
        backend = self.backend()
        held = Held()
        self.faulty.on("PUT .*partNumber", held, times=1000)
        blob_id, data = new_id(), content(60 * MIB)
        staged = await backend.stage(blob_id, len(data))
        most = rounds = 0
        for start in range(0, len(data), MIB):
            writing = staged.write(data[start : start + MIB])
            while not writing.called:
                if len(held.waiting) == 4:
                    most = max(most, staged.buffered_bytes)
                    rounds += 1
                    held.let_go()
                assert len(held.waiting) <= 4
                await _turn()
            await writing
        assert rounds
        assert 24 * MIB < most <= 33 * MIB
        committing = staged.commit()
        while not committing.called:
            held.let_go()
            await _turn()
        assert (await committing).sha256 == hashlib.sha256(data).digest()
        assert staged.buffered_bytes == 0
        assert await get(backend, blob_id) == data

    async def test_tiny_writes(self) -> None:
        """Very small writes make few pieces: the memory that they take is that of their bytes."""
        await self.begin()
        backend = self.backend()
        blob_id, data = new_id(), content(300_000)
        staged = await backend.stage(blob_id)
        for start in range(0, len(data), 3):
            await staged.write(data[start : start + 3])
        assert staged.buffered_bytes == len(data)
        await staged.commit()
        assert await get(backend, blob_id) == data


class ReadingTests(FaultyServer, TestCase):
    """How content is fetched."""

    def ranges(self) -> list[str]:
        """Of the requests so far."""
        return [seen.headers["range"] for seen in self.faulty.matching("GET")]

    async def begun(self, size: int) -> tuple[Any, bytes]:
        """A reader, and what it reads."""
        await self.begin()
        backend, data = self.backend(), content(size)
        reader = await backend.open(await put(backend, data))
        self.addCleanup(reader.close)
        return reader, data

    async def test_small(self) -> None:
        """A small blob costs one request."""
        reader, data = await self.begun(MIB)
        assert await reader.read(0, MIB) == data
        assert len(self.faulty.matching("GET|HEAD")) == 1

    async def test_empty(self) -> None:
        """An empty blob can be opened, whatever S3 thinks of a range of it."""
        reader, _ = await self.begun(0)
        assert reader.size == 0
        assert await reader.read(0, 10) == b""

    async def test_download(self) -> None:
        """A download, read piece by piece, costs two requests however large it is."""
        reader, data = await self.begun(20 * MIB)
        pieces = [await reader.read(start, 256 * 1024) for start in range(0, len(data), 256 * 1024)]
        assert b"".join(pieces) == data
        assert self.ranges() == ["bytes=0-1048575", f"bytes=1048576-{len(data) - 1}"]

    async def test_back_pressure(self) -> None:
        """While nobody reads, little is fetched and kept."""
        reader, data = await self.begun(60 * MIB)
        await reader.read(0, MIB + 1)
        most = 0
        for _ in range(200):
            await _turn()
            most = max(most, reader.buffered_bytes)
        assert most < MIB
        assert await reader.read(MIB + 1, len(data)) == data[MIB + 1 :]

    async def test_a_range_of_a_large_blob(self) -> None:
        """A read in the middle is a request from there; reads that go on after it are one more."""
        reader, data = await self.begun(20 * MIB)
        assert await reader.read(7 * MIB, 100) == data[7 * MIB : 7 * MIB + 100]
        assert await reader.read(7 * MIB + 100, 3 * MIB) == data[7 * MIB + 100 : 10 * MIB + 100]
        assert self.ranges()[1:] == [
            f"bytes={7 * MIB}-{8 * MIB - 1}",
            f"bytes={8 * MIB}-{len(data) - 1}",
        ]

    async def test_close_ends_the_connection(self) -> None:
        """A reader that is closed early fetches nothing more."""
        reader, _ = await self.begun(60 * MIB)
        await reader.read(0, 2 * MIB)
        before = self.faulty.open_connections
        reader.close()
        assert reader.buffered_bytes == 0
        while self.faulty.open_connections >= before:
            await _turn()


class StaleTests(FaultyServer, TestCase):
    """What uploads of others leave."""

    async def test_swept(self) -> None:
        """Uploads of processes that are gone are swept when they are old enough; others' keys are left alone."""
        await self.begin()
        backend, client = self.backend(), self.server.client()
        old, strange = S3Keys(self.prefix).blob(new_id()), f"{self.prefix}elsewhere"
        for key in (old, strange):
            client.create_multipart_upload(Bucket=self.server.bucket, Key=key)
        assert await backend.remove_stale_staged(0) == 0
        assert await backend.remove_stale_staged(1 << 60) == 1
        assert self.server.uploads(self.prefix) == [strange]
        assert await backend.remove_stale_staged(1 << 60) == 0

    async def test_written_to_lately(self) -> None:
        """What counts is when an upload got its last part, not when it was begun."""
        await self.begin()
        backend, client = self.backend(), self.server.client()
        key = S3Keys(self.prefix).blob(new_id())
        upload = client.create_multipart_upload(Bucket=self.server.bucket, Key=key)
        client.upload_part(Bucket=self.server.bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
        page = client.list_multipart_uploads(Bucket=self.server.bucket, Prefix=self.prefix)
        begun_at = int(page["Uploads"][0]["Initiated"].timestamp() * 1_000_000)
        parts = client.list_parts(Bucket=self.server.bucket, Key=key, UploadId=upload["UploadId"])
        written_at = int(parts["Parts"][0]["LastModified"].timestamp() * 1_000_000)
        assert await backend.remove_stale_staged(max(begun_at, written_at)) == 0
        assert await backend.remove_stale_staged(max(begun_at, written_at) + 1) == 1


def _turn() -> Any:
    """A turn of the reactor."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0)  # type: ignore[arg-type]
