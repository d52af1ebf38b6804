"""Blobs in memory."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.memory import MemoryBackend
from callfs.errors import InsufficientStorage
from tests.contract.backends import BlobBackendContract, Instant, get, new_id, put


class MemoryBackendTests(BlobBackendContract, TestCase):
    """The memory twin keeps the port's promises."""

    provider = MemoryBackend

    def make_backend(self) -> IBlobBackend:
        return MemoryBackend(now=self.now)


class CapacityTests(TestCase):
    """A memory backend of limited size is a disk that fills up."""

    async def test_declared(self) -> None:
        """What can't fit is refused when it is staged."""
        backend = MemoryBackend(now=Instant(), capacity_bytes=100)
        await self.assertFailure(backend.stage(new_id(), 101), InsufficientStorage)

    async def test_written(self) -> None:
        """Staged bytes count; a refused write leaves what is there, and an abort gives the room back."""
        backend = MemoryBackend(now=Instant(), capacity_bytes=100)
        kept = await put(backend, b"x" * 60)
        staged = await backend.stage(new_id())
        await staged.write(b"y" * 40)
        await self.assertFailure(staged.write(b"z"), InsufficientStorage)
        await staged.abort()
        assert await get(backend, kept) == b"x" * 60
        await put(backend, b"y" * 40)
