"""The S3 backend when the server, or the way to it, doesn't do what it should."""

from __future__ import annotations

import re
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import BlobMissing
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage, InternalError, PeerUnavailable
from tests.backends.s3_support import FaultyServer
from tests.contract.backends import MIB, content, get, new_id, put
from tests.support.faulty_s3 import (
    asked_for,
    changed,
    cut_after,
    lose_reply,
    reply,
    reset,
    silence,
    stall_after,
)

LARGE = content(17 * MIB)
ALWAYS = 1_000_000


class _Case(FaultyServer, TestCase):
    """A server, and a backend on it that doesn't wait between attempts."""

    async def start(self, **changes: Any) -> Any:
        """Both."""
        await self.begin()
        return self.backend({"random": lambda: 0.0}, **changes)


class RepetitionTests(_Case):
    """What may help is tried again."""

    async def test_refusals_that_pass(self) -> None:
        """A busy or failing server is asked again, whatever it calls that."""
        backend = await self.start()
        refusals = [(503, "SlowDown"), (500, "InternalError"), (429, ""), (502, ""), (400, "RequestTimeout")]
        for status, code in refusals:
            self.faulty.on("PUT", reply(status, code), times=2)
            before = len(self.faulty.matching("PUT"))
            blob_id = await put(backend, b"data")
            assert len(self.faulty.matching("PUT")) == before + 3
            self.faulty.on("GET", reply(status, code), times=2)
            assert await get(backend, blob_id) == b"data"

    async def test_broken_connections(self) -> None:
        """A connection that breaks before the reply costs an attempt and nothing else, in either direction."""
        backend = await self.start()
        self.faulty.on("PUT", reset, times=2)
        self.faulty.on("PUT", lose_reply)
        blob_id = await put(backend, b"data")
        self.faulty.on("GET", reset, times=2)
        assert await get(backend, blob_id) == b"data"
        self.faulty.on("DELETE", lose_reply)
        await backend.delete(blob_id)
        await self.assertFailure(backend.open(blob_id), BlobMissing)

    async def test_not_for_ever(self) -> None:
        """A server that fails on and on is given up, and the caller may come back."""
        backend = await self.start()
        self.faulty.on(".", reply(503, "SlowDown"), times=ALWAYS)
        staged = await backend.stage(new_id())
        await staged.write(b"data")
        await self.assertFailure(staged.commit(), PeerUnavailable)
        await self.assertFailure(backend.open(new_id()), PeerUnavailable)
        await self.assertFailure(backend.delete(new_id()), PeerUnavailable)
        await self.assertFailure(backend.list_blobs(), PeerUnavailable)
        assert len(self.faulty.matching("^GET .*list-type")) == 6
        assert len(self.flushLoggedErrors()) == 0

    async def test_it_answers_again(self) -> None:
        """Said once, with the first success after something was given up; what is tried again isn't given up."""
        await self.begin()
        told: list[None] = []
        backend = self.backend({"random": lambda: 0.0, "answers_again": lambda: told.append(None)})
        self.faulty.on("PUT", reply(503, "SlowDown"), times=2)
        blob_id = await put(backend, b"data")
        await self.assertFailure(backend.open(new_id()), BlobMissing)
        assert await get(backend, blob_id) == b"data"
        assert told == []
        self.faulty.on("list-type", reset, times=ALWAYS)
        await self.assertFailure(backend.list_blobs(), PeerUnavailable)
        await self.assertFailure(backend.list_blobs(), PeerUnavailable)
        await self.assertFailure(backend.open(new_id()), BlobMissing)
        assert told == []
        assert await get(backend, blob_id) == b"data"
        assert await get(backend, blob_id) == b"data"
        assert told == [None]

    async def test_refusals_that_stay(self) -> None:
        """What won't get better isn't tried again."""
        backend = await self.start()
        self.faulty.on("PUT", reply(403, "AccessDenied"))
        staged = await backend.stage(new_id())
        await self.assertFailure(staged.commit(), InternalError)
        assert len(self.faulty.matching("PUT")) == 1

    async def test_pauses(self) -> None:
        """Between attempts is a pause, by chance up to a doubling limit, and what the server wishes at least."""
        await self.begin()
        clock = Clock()
        backend = self.backend({"random": lambda: 0.5, "clock": clock})
        for wished, pause in ((None, 0.1), (None, 0.2), ("3", 3.0)):
            headers = {} if wished is None else {"Retry_After": wished}
            self.faulty.on("GET", reply(503, "SlowDown", **headers))
            if pause == 0.1:
                opening = backend.open(new_id())
            while not (call := _pause(clock)):
                await _turn()
            assert call.getTime() - clock.seconds() == pytest.approx(pause)
            clock.advance(pause)
        await self.assertFailure(opening, BlobMissing)


class SilenceTests(_Case):
    """A server that says nothing."""

    async def begun(self) -> tuple[Any, Clock]:
        """A backend on a clock of the test's, with a time limit of 10 s."""
        await self.begin()
        clock = Clock()
        return self.backend({"clock": clock}, timeout_seconds=10.0), clock

    async def test_first_byte(self) -> None:
        """Whoever opens a blob knows within the time limit that nothing comes."""
        backend, clock = await self.begun()
        self.faulty.on("GET", silence, times=ALWAYS)
        opening = backend.open(new_id())
        await self.faulty.comes("GET")
        clock.advance(9.9)
        assert not opening.called
        clock.advance(0.2)
        await self.assertFailure(opening, PeerUnavailable)
        assert len(self.faulty.seen) == 1

    async def test_in_the_middle(self) -> None:
        """A reply that stops is gone on with by another request, from the next byte."""
        backend, clock = await self.begun()
        data = content(MIB)
        blob_id = await put(backend, data)
        self.faulty.on("GET", stall_after(100_000))
        reader = await backend.open(blob_id)
        assert await reader.read(0, 100_000) == data[:100_000]
        reading = reader.read(100_000, MIB)
        clock.advance(10.1)
        assert await reading == data[100_000:]
        assert self.faulty.seen[-1].headers["range"] == "bytes=100000-1048575"
        reader.close()

    async def test_upload(self) -> None:
        """An upload that isn't answered is sent again."""
        backend, clock = await self.begun()
        self.faulty.on("PUT", silence)
        staged = await backend.stage(new_id())
        await staged.write(b"data")
        first = self.faulty.comes("PUT")
        committing = staged.commit()
        await first
        clock.advance(30.1)
        second = self.faulty.comes("PUT")
        while not _pause(clock):
            await _turn()
        clock.advance(0.2)
        await second
        assert (await committing).size == 4

    async def test_a_patient_reader(self) -> None:
        """A reader that takes its time is no silent server: nothing is cut while the bytes wait for it."""
        backend, clock = await self.begun()
        blob_id = await put(backend, LARGE)
        reader = await backend.open(blob_id)
        await reader.read(0, MIB + 10)
        while reader.buffered_bytes < 512 * 1024:
            await _turn()
        clock.advance(3600)
        assert await reader.read(MIB + 10, 16 * MIB) == LARGE[MIB + 10 :]
        assert len(self.faulty.matching("GET")) == 2
        reader.close()


class ReadingTests(_Case):
    """Downloads are whole, or fail."""

    async def test_cut_replies(self) -> None:
        """A download over replies that are cut is whole; each further request begins at the next byte."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        self.faulty.on("GET", cut_after(300_000), times=6)
        assert await get(backend, blob_id) == LARGE
        starts = [int(seen.headers["range"][6:].split("-")[0]) for seen in self.faulty.matching("GET")]
        assert starts == sorted(set(starts))
        assert len(starts) == 7
        etags = {seen.headers.get("if-match") for seen in self.faulty.matching("GET")[1:]}
        assert len(etags) == 1
        assert None not in etags

    async def test_never_silently_short(self) -> None:
        """Replies that bring nothing end the read with an error, not with fewer bytes."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        self.faulty.on("GET", cut_after(1000))
        self.faulty.on("GET", cut_after(0), times=ALWAYS)
        reader = await backend.open(blob_id)
        await self.assertFailure(reader.read(0, MIB), PeerUnavailable)
        reader.close()

    async def test_other_content(self) -> None:
        """An object that isn't the one that was opened isn't read on."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        reader = await backend.open(blob_id)
        await reader.read(0, MIB)
        await put(backend, content(17 * MIB, seed=1), blob_id)
        await self.assertFailure(reader.read(MIB, 100), PeerUnavailable)
        reader.close()

    async def test_deleted_meanwhile(self) -> None:
        """An object that is gone in the middle of a download is an error."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        reader = await backend.open(blob_id)
        await reader.read(0, MIB)
        await backend.delete(blob_id)
        await self.assertFailure(reader.read(MIB, 100), PeerUnavailable)
        reader.close()

    async def test_other_ranges(self) -> None:
        """A server that gives another range than was asked for isn't believed."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        reader = await backend.open(blob_id)
        self.faulty.on(
            "GET", changed(lambda data: re.sub(rb"bytes \d+-", b"bytes 7-", data, count=1)), times=ALWAYS
        )
        await self.assertFailure(reader.read(5 * MIB, 100), PeerUnavailable)
        reader.close()

    async def test_no_ranges(self) -> None:
        """A server that knows no ranges gives whole blobs, which are read from the start."""
        backend = await self.start()
        data = content(3 * MIB)
        blob_id = await put(backend, data)
        self.faulty.on("GET", asked_for(lambda raw: re.sub(rb"(?i)\r\nrange: [^\r]*", b"", raw)), times=ALWAYS)
        reader = await backend.open(blob_id)
        assert await reader.read(0, 3 * MIB) == data
        await self.assertFailure(reader.read(5, 100), PeerUnavailable)
        reader.close()

    async def test_a_cancelled_read(self) -> None:
        """Those that wait behind a cancelled read fail rather than give other bytes; later ones work."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        reader = await backend.open(blob_id)
        self.faulty.on("GET", silence)
        coming = self.faulty.comes("GET")
        reads = [reader.read(start * MIB, MIB) for start in range(4)]
        assert await reads[0] == LARGE[:MIB]
        await coming
        reads[2].cancel()
        await self.assertFailure(reads[2], CancelledError)
        reads[1].cancel()
        await self.assertFailure(reads[1], CancelledError)
        await self.assertFailure(reads[3], PeerUnavailable)
        assert await reader.read(3 * MIB, MIB) == LARGE[3 * MIB : 4 * MIB]
        reader.close()

    async def test_a_cancelled_opening(self) -> None:
        """An opening that is cancelled leaves no connection in use behind."""
        backend = await self.start()
        blob_id = await put(backend, LARGE)
        opening = backend.open(blob_id)
        opening.cancel()
        await self.assertFailure(opening, CancelledError)
        await backend.close()
        while self.faulty.open_connections:
            await _turn()


class UploadTests(_Case):
    """Uploads are whole, or leave nothing."""

    async def assert_nothing_left(self) -> None:
        """Neither an object nor an upload."""
        assert self.server.keys(self.prefix) == []
        assert self.server.uploads(self.prefix) == []

    async def test_completion_with_an_error_in_it(self) -> None:
        """A completion that is answered with 200 and an error isn't taken for one, and is tried again."""
        backend = await self.start()
        self.faulty.on("POST .*uploadId", reply(200, "InternalError"), times=2)
        blob_id = await put(backend, LARGE)
        assert len(self.faulty.matching("POST .*uploadId")) == 3
        assert await get(backend, blob_id) == LARGE

    async def test_completion_that_fails(self) -> None:
        """A completion that is refused for good fails the commit, and nothing is left."""
        backend = await self.start()
        self.faulty.on("POST .*uploadId", reply(200, "InvalidPart"))
        blob_id = new_id()
        await self.assertFailure(_upload(backend, blob_id, LARGE), InternalError)
        await self.assert_nothing_left()

    async def test_completion_whose_reply_is_lost(self) -> None:
        """When the reply to a completion is lost, the object tells that it was carried out."""
        backend = await self.start()
        self.faulty.on("POST .*uploadId", lose_reply)
        self.faulty.on("POST .*uploadId", reply(404, "NoSuchUpload"))
        blob_id = await put(backend, LARGE)
        assert len(self.faulty.matching("HEAD")) == 1
        assert await get(backend, blob_id) == LARGE

    async def test_completion_that_never_arrives(self) -> None:
        """A completion that can't be sent at all fails the commit, and nothing is left."""
        backend = await self.start()
        self.faulty.on("POST .*uploadId", reset, times=ALWAYS)
        blob_id = new_id()
        await self.assertFailure(_upload(backend, blob_id, LARGE), PeerUnavailable)
        await self.assert_nothing_left()

    async def test_an_object_that_nobody_knows_of(self) -> None:
        """When every reply to an upload is lost, it fails, and what it made all the same is deleted."""
        backend = await self.start()
        self.faulty.on("^PUT", lose_reply, times=ALWAYS)
        await self.assertFailure(_upload(backend, new_id(), b"data"), PeerUnavailable)
        await self.assert_nothing_left()

    async def test_a_part_that_fails(self) -> None:
        """A part that is refused fails the upload at the next call, once, and nothing is left."""
        backend = await self.start()
        self.faulty.on("PUT .*partNumber=2", reply(403, "AccessDenied"), times=ALWAYS)
        blob_id = new_id()
        await self.assertFailure(_upload(backend, blob_id, LARGE * 3), InternalError)
        await self.assert_nothing_left()

    async def test_a_failed_upload_takes_no_more(self) -> None:
        """After a part has failed every write and the commit fail the same way."""
        backend = await self.start()
        self.faulty.on("PUT .*partNumber=1", reply(507, "InsufficientStorage"))
        staged = await backend.stage(new_id())
        await self.assertFailure(staged.write(content(64 * MIB)), InsufficientStorage)
        await self.assertFailure(staged.write(b"x"), InsufficientStorage)
        await self.assertFailure(staged.commit(), InsufficientStorage)
        await staged.abort()
        await self.assert_nothing_left()

    async def test_no_room(self) -> None:
        """A quota or a full store is told as such."""
        backend = await self.start()
        for status, code in ((403, "QuotaExceeded"), (507, "XMinioStorageFull"), (507, "")):
            self.faulty.on("PUT", reply(status, code))
            await self.assertFailure(_upload(backend, new_id(), b"x"), InsufficientStorage)

    async def test_changed_on_the_way(self) -> None:
        """Content that S3 finds changed is sent again."""
        backend = await self.start()
        for code in ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"):
            self.faulty.on("PUT", reply(400, code))
            blob_id = await put(backend, b"data")
            assert await get(backend, blob_id) == b"data"

    async def test_another_checksum(self) -> None:
        """A server that says to have stored something else isn't believed."""
        backend = await self.start()
        self.faulty.on("PUT", reply(200, x_amz_checksum_sha256="AAAA", ETag='"x"'), times=ALWAYS)
        await self.assertFailure(_upload(backend, new_id(), b"x"), PeerUnavailable)

    async def test_a_client_that_goes_away(self) -> None:
        """A write that is cancelled while parts are on their way, and an abort, leave nothing."""
        backend = await self.start()
        self.faulty.on("PUT .*partNumber", silence, times=ALWAYS)
        staged = await backend.stage(new_id())
        coming = self.faulty.comes("PUT .*partNumber")
        writing = staged.write(content(64 * MIB))
        await coming
        assert not writing.called
        writing.cancel()
        await self.assertFailure(writing, CancelledError)
        await staged.abort()
        assert staged.buffered_bytes == 0
        await self.assert_nothing_left()

    async def test_gone_while_the_upload_is_created(self) -> None:
        """An upload whose id is on its way when nobody wants it any more is forgotten all the same."""
        backend = await self.start()
        coming = self.faulty.comes("POST .*uploads")
        staged = await backend.stage(new_id())
        writing = staged.write(content(9 * MIB))
        await coming
        await staged.abort()
        await writing
        assert len(self.faulty.matching("DELETE .*uploadId")) == 1
        await self.assert_nothing_left()

    async def test_abort_never_fails(self) -> None:
        """Parts that can't be forgotten now are left to the sweep."""
        backend = await self.start()
        staged = await backend.stage(new_id())
        await staged.write(content(17 * MIB))
        self.faulty.on("DELETE", reply(403, "AccessDenied"), times=ALWAYS)
        await staged.abort()

    async def test_a_copy_with_an_error_in_it(self) -> None:
        """A copy that is answered with 200 and an error isn't taken for one."""
        backend = await self.start()
        blob_id = await put(backend, b"data")
        self.faulty.on("PUT", reply(200, "SlowDown"))
        target = new_id()
        assert (await backend.copy(blob_id, target)).size == 4
        self.faulty.on("PUT", reply(200, "AccessDenied"))
        await self.assertFailure(backend.copy(blob_id, new_id()), InternalError)


@returns_deferred
async def _upload(backend: Any, blob_id: str, data: bytes) -> None:
    """As the engine does it: abort what fails."""
    staged = await backend.stage(blob_id, len(data))
    try:
        for start in range(0, len(data), MIB):
            await staged.write(data[start : start + MIB])
        await staged.commit()
    except BaseException:
        await staged.abort()
        raise


def _pause(clock: Clock) -> Any:
    """What the clock has to do soon, which no time limit is."""
    calls = [call for call in clock.getDelayedCalls() if call.getTime() - clock.seconds() < 5]
    return calls[0] if calls else None


def _turn() -> Deferred[None]:
    """A turn of the reactor."""
    from twisted.internet import reactor

    turn: Deferred[None] = Deferred()
    reactor.callLater(0, turn.callback, None)  # type: ignore[attr-defined]
    return turn
