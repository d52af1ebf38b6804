"""A backend that reports how long its operations take."""

from __future__ import annotations

import itertools

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.interfaces import BlobMissing, BlobStat, IBlobBackend, ICopyingBackend
from callfs.backends.measured import MeasuredBackend
from callfs.backends.memory import MemoryBackend
from tests.contract.backends import BlobBackendContract, Instant, new_id, put


class MeasuredBackendTests(BlobBackendContract, TestCase):
    """Measuring changes nothing."""

    provider = MeasuredBackend

    def make_backend(self) -> IBlobBackend:
        return MeasuredBackend(MemoryBackend(now=self.now), lambda name, operation, seconds: None, lambda: 0.0)


class ReportTests(TestCase):
    """What is reported."""

    def setUp(self) -> None:
        self.seen: list[tuple[str, str, float]] = []
        ticks = itertools.count()
        self.backend = MeasuredBackend(
            MemoryBackend(now=Instant(), name="localfs"),
            lambda *seen: self.seen.append(seen),
            lambda: float(next(ticks)),
        )

    async def test_operations(self) -> None:
        """Each operation is reported once, under the backend's name, with its duration."""
        blob_id = await put(self.backend, b"data")
        (await self.backend.open(blob_id)).close()
        await self.backend.stat(blob_id)
        await self.backend.list_blobs()
        await self.backend.set_aside(blob_id)
        await self.backend.purge_set_aside(0)
        await self.backend.delete(blob_id)
        await self.backend.remove_stale_staged(0)
        await (await self.backend.stage(new_id())).abort()
        operations = ("stage", "commit", "open", "stat", "list", "set_aside", "purge_set_aside", "delete")
        expected = (*operations, "remove_stale_staged", "stage", "abort")
        assert self.seen == [("localfs", operation, 1.0) for operation in expected]

    async def test_failures(self) -> None:
        """A failed operation is reported too, and its error passed on."""
        await self.assertFailure(self.backend.open(new_id()), BlobMissing)
        assert self.seen == [("localfs", "open", 1.0)]

    async def test_copying(self) -> None:
        """A backend that can copy can do it when it is measured, too; one that can't, can't."""

        @implementer(ICopyingBackend)
        class Copying(MemoryBackend):
            def copy(self, from_blob_id: str, to_blob_id: str) -> Deferred[BlobStat]:
                return succeed(BlobStat(to_blob_id, len(from_blob_id), 0))

        assert ICopyingBackend(self.backend, None) is None
        ticks = itertools.count()
        measured = MeasuredBackend(
            Copying(now=Instant(), name="s3"), lambda *seen: self.seen.append(seen), lambda: float(next(ticks))
        )
        assert (await ICopyingBackend(measured).copy("from", "to")).size == 4
        assert self.seen == [("s3", "copy", 1.0)]
