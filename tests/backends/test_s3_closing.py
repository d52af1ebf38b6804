"""The end of the S3 backend while something is under way, and replies that are stranger than those of a server."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from callfs.backends.s3_xml import parse_error
from callfs.errors import PeerUnavailable
from tests.backends.peersupport import moment
from tests.backends.s3_support import FaultyServer
from tests.contract.backends import MIB, content, get, new_id, put
from tests.support.faulty_s3 import Held, reply, silence, stall_after


class ClosingTests(FaultyServer, TestCase):
    """``close``."""

    timeout = 60

    async def start(self) -> Any:
        """A server, and a backend on it."""
        await self.begin()
        return self.backend()

    async def test_a_request_under_way(self: Any) -> None:
        """What isn't answered yet fails at once, and isn't sent again."""
        backend = await self.start()
        self.faulty.on("GET", silence, times=100)
        coming = self.faulty.comes("GET")
        opening = backend.open(new_id())
        await coming
        await backend.close()
        await self.assertFailure(opening, PeerUnavailable)
        assert len(self.faulty.matching("GET")) == 1
        while self.faulty.open_connections:
            await moment()

    async def test_an_abort_under_way(self: Any) -> None:
        """An upload that is being aborted is waited for, so that its parts don't stay."""
        backend = await self.start()
        held = Held()
        self.faulty.on("DELETE .*uploadId", held)
        staged = await backend.stage(new_id())
        await staged.write(content(17 * MIB))
        while not self.faulty.matching("PUT .*partNumber"):
            await moment()
        coming = self.faulty.comes("DELETE .*uploadId")
        aborting = staged.abort()
        await coming
        closing = backend.close()
        assert not closing.called
        held.let_go()
        await aborting
        await closing
        uploads = self.server.client().list_multipart_uploads(Bucket=self.server.bucket, Prefix=self.prefix)
        assert uploads.get("Uploads", []) == []


class CuttingTests(FaultyServer, TestCase):
    """``cut``."""

    timeout = 60

    async def test_a_commit_under_way(self: Any) -> None:
        """A commit without an answer fails at once, and so does whatever comes; then closing waits for nothing."""
        await self.begin()
        backend = self.backend()
        self.faulty.on(".", silence, times=100)
        small, large = await backend.stage(new_id()), await backend.stage(new_id())
        await small.write(b"data")
        await large.write(content(9 * MIB))
        coming = self.faulty.comes("PUT")
        commits = [small.commit(), large.commit()]
        await coming
        backend.cut()
        for commit in commits:
            await self.assertFailure(commit, PeerUnavailable)
        await self.assertFailure(backend.open(new_id()), PeerUnavailable)
        await self.assertFailure(backend.check(), PeerUnavailable)
        assert await backend.close() is None

    async def test_a_reply_under_way(self: Any) -> None:
        """One of which only the beginning came fails at once, and isn't asked for again; no pause is left."""
        await self.begin()
        backend = self.backend({"random": lambda: 1.0})
        self.faulty.on("GET .*list-type", stall_after(20), times=100)
        coming = self.faulty.comes("GET .*list-type")
        listing = backend.list_blobs("", 10)
        await coming
        await deferLater(reactor, 0.2)
        backend.cut()
        assert listing.called
        await self.assertFailure(listing, PeerUnavailable)
        assert len(self.faulty.matching("GET .*list-type")) == 1

    async def test_a_pause_under_way(self: Any) -> None:
        """What waits to be tried again isn't."""
        await self.begin()
        backend = self.backend({"random": lambda: 1.0})
        self.faulty.on("GET", reply(503, "SlowDown", Retry_After="5"), times=100)
        coming = self.faulty.comes("GET")
        opening = backend.open(new_id())
        await coming
        while not self.faulty.matching("GET"):
            await moment()
        for _ in range(20):
            await moment()
        asked = len(self.faulty.matching("GET"))
        backend.cut()
        await self.assertFailure(opening, PeerUnavailable)
        assert len(self.faulty.matching("GET")) == asked


class StrangeReplyTests(FaultyServer, TestCase):
    """What no server should send."""

    timeout = 60

    async def test_more_than_was_announced(self: Any) -> None:
        """A reply with more bytes than its range has isn't believed beyond that range."""
        await self.begin()
        backend = self.backend()
        blob_id = await put(backend, b"abcdefgh")
        self.faulty.on("GET", reply(206, body=b"abcdWRONG", Content_Range="bytes 0-3/8"))
        assert await get(backend, blob_id) == b"abcdefgh"

    async def test_only_as_it_is(self: Any) -> None:
        """Content is asked for as it is, never compressed."""
        await self.begin()
        backend = self.backend()
        await get(backend, await put(backend, b"data"))
        raws = [seen.raw.lower() for seen in self.faulty.matching(".")]
        assert all(raw.count(b"accept-encoding: identity") == 1 and b"gzip" not in raw for raw in raws)


def test_a_long_error() -> None:
    """Of what an error says a part is kept that fits into a log."""
    error = parse_error(b"<Error><Code>Odd</Code><Message>" + b"x" * 100_000 + b"</Message></Error>")
    assert error is not None
    assert len(error.message) == 500
