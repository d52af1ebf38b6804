"""A backend that reports how long its operations take."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import BlobMissing, IBlobBackend
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
