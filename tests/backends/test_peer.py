"""Blobs on another node."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from callfs import tracing
from callfs.backends.interfaces import BlobMissing, IBlobBackend
from callfs.backends.peer import PeerBlobs
from callfs.backends.peerclient import KEPT_CONNECTIONS
from callfs.backends.peers import Peers
from callfs.config.secret import Secret
from callfs.errors import PeerUnavailable
from callfs.tracing import Origin
from tests.backends.peersupport import THERE, Holder, make_client, make_peers, moment
from tests.backends.support import make_local
from tests.contract.backends import MIB, BlobBackendContract, content, get, listed, new_id, put


class PeerBlobsTests(BlobBackendContract, TestCase):
    """
    Another node's blobs keep the port's promises, over a real site on a real disk.

    What lists, sets aside and sweeps is the holder's own business: those promises are replaced by the one that it
    fails, and where they were part of another promise, that one is kept without them.
    """

    provider = PeerBlobs
    timeout = 60

    def make_backend(self) -> IBlobBackend:
        self.local = make_local(self, now=self.now)
        self.holder = Holder(self, self.local)
        self.peers: Peers = make_peers(self, {THERE: self.holder.url})
        made: list[IBlobBackend] = []
        self.peers.blobs(THERE).addCallback(made.append)
        return made[0]

    async def _assert_not_here(self: Any, *calls: Deferred[Any]) -> None:
        for call in calls:
            await self.assertFailure(call, NotImplementedError)

    async def test_list_in_pages(self) -> None:
        """A node's blobs are listed by itself alone."""
        await self._assert_not_here(self.backend.list_blobs(), self.backend.list_set_aside())

    async def test_list_while_deleting(self) -> None:
        """A page after a blob isn't to be had either."""
        await self._assert_not_here(self.backend.list_blobs(new_id(), 3))

    async def test_set_aside(self) -> None:
        """A node's blobs are set aside and purged by itself alone; nothing happens to them."""
        blob_id = await put(self.backend, b"x")
        await self._assert_not_here(self.backend.set_aside(blob_id), self.backend.purge_set_aside(2**60))
        assert await get(self.backend, blob_id) == b"x"

    async def test_put_back(self) -> None:
        """A node puts its blobs back by itself alone."""
        await self._assert_not_here(self.backend.put_back(new_id()))

    async def test_stale_means_not_of_this_process(self) -> None:
        """A node removes its staged blobs by itself alone."""
        await self._assert_not_here(self.backend.remove_stale_staged(2**60))

    async def test_invisible_before_the_commit(self: Any) -> None:
        """Nobody sees a staged blob, neither by its id nor in the holder's list."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        await staged.write(content(3 * MIB))
        await self.assert_missing([blob_id])
        await self.assertFailure(self.backend.stat(blob_id), BlobMissing)
        assert await listed(self.local) == []
        await staged.abort()

    async def test_delete(self: Any) -> None:
        """A deleted blob is gone, and no other."""
        gone, kept = await put(self.backend, b"gone"), await put(self.backend, b"kept")
        await self.backend.delete(gone)
        await self.backend.delete(gone)
        await self.assert_missing([gone])
        assert await get(self.backend, kept) == b"kept"

    async def test_missing(self: Any) -> None:
        """A blob that isn't there: opening and stat say so, deleting is content."""
        blob_id = new_id()
        await self.assert_missing([blob_id, "", "../../etc/passwd", "x" * 26, "x" * 65])
        await self.assertFailure(self.backend.stat(blob_id), BlobMissing)
        await self.assertFailure(self.backend.stat("../x"), BlobMissing)
        for absent in (blob_id, "", "../../etc/passwd"):
            await self.backend.delete(absent)

    async def test_an_open_blob_survives_its_deletion(self) -> None:
        """A reader that has begun finishes although the blob is deleted meanwhile, also further on in the blob."""
        data = content(12 * MIB)
        for start in (0, 5 * MIB):
            blob_id = await put(self.backend, data)
            reader = await self.backend.open(blob_id)
            await self.backend.delete(blob_id)
            await self.assert_missing([blob_id])
            for offset in range(start, len(data), MIB):
                assert await reader.read(offset, MIB) == data[offset : offset + MIB]
            reader.close()


class OriginTests(TestCase):
    """Calls to another node say for whom they are made."""

    timeout = 60

    async def test_told_with_every_call(self) -> None:
        """The node's access events name the request here and its user; what nobody asked for names nobody."""
        holder = Holder(self, make_local(self))
        blobs = await make_peers(self, {THERE: holder.url}).blobs(THERE)
        data, blob_ids = content(3 * MIB), []

        async def request() -> None:
            tracing.enter(Origin("0123456789abcdef", "alice"))
            blob_ids.append(await put(blobs, data))
            reader = await blobs.open(blob_ids[0])
            await reader.read(0, 100)
            await reader.read(2 * MIB, 100)
            reader.close()
            await blobs.stat(blob_ids[0])

        await Deferred.fromCoroutine(request())
        await blobs.delete(blob_ids[0])
        while len(holder.ended()) < 5:
            await moment()
        by_method = [
            (event["method"], event.get("origin_request_id"), event.get("origin_user")) for event in holder.ended()
        ]
        assert ("DELETE", None, None) in by_method
        by_method.remove(("DELETE", None, None))
        assert {origin[1:] for origin in by_method} == {("0123456789abcdef", "alice")}
        assert sorted(origin[0] for origin in by_method) == ["GET", "GET", "HEAD", "PUT"]


class RotationTests(TestCase):
    """The internal secret changes while nodes run."""

    async def test_another_secret(self: Any) -> None:
        """The first of the new secrets is sent from then on."""
        backend = make_local(self)
        holder = Holder(self, backend, secret="a-new-secret-of-the-peers")
        client = make_client(self)
        blobs = await make_peers(self, {THERE: holder.url}, client=client).blobs(THERE)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        client.replace_secrets([Secret("a-new-secret-of-the-peers"), Secret("internal-secret-of-peers")])
        await put(blobs, b"data")


class ConnectionTests(TestCase):
    """Connections are kept."""

    timeout = 60

    async def test_one_after_the_other(self) -> None:
        """
        Calls that follow each other share connections, whatever they did with them: one, or a second where a call
        begins at the moment when the last byte of the one before arrives.
        """
        holder = Holder(self, make_local(self))
        blobs = await make_peers(self, {THERE: holder.url}).blobs(THERE)
        for size in (0, 10, 100_000, 3 * MIB):
            blob_id = await put(blobs, content(size))
            assert await get(blobs, blob_id) == content(size)
            await blobs.stat(blob_id)
            await blobs.delete(blob_id)
            reader_ends = blobs.open(blob_id)
            reader_ends.addErrback(lambda failure: failure.trap(BlobMissing))
            await reader_ends
        assert holder.site.connections <= 2

    async def test_many_at_once(self) -> None:
        """Many simultaneous calls leave no more connections than are kept, and closing ends these."""
        holder = Holder(self, make_local(self))
        peers = make_peers(self, {THERE: holder.url})
        blobs = await peers.blobs(THERE)
        blob_id = await put(blobs, content(100_000))
        found = await gatherResults([Deferred.fromCoroutine(get(blobs, blob_id)) for _ in range(100)])
        assert found == [content(100_000)] * 100
        while holder.site.connections > KEPT_CONNECTIONS:
            await moment()
        await peers.close()
        while holder.site.connections:
            await moment()
