"""A bucket that nobody has recognised yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.interfaces import BlobStat, IBlobBackend, ICopyingBackend
from callfs.backends.memory import MemoryBackend
from callfs.backends.s3_gate import GatedBackend
from callfs.errors import PeerUnavailable
from tests.contract.backends import BlobBackendContract, Instant, get, new_id, put


class OpenGateTests(BlobBackendContract, TestCase):
    """An open gate changes nothing."""

    provider = GatedBackend

    def make_backend(self) -> IBlobBackend:
        gate = GatedBackend(MemoryBackend(now=self.now))
        gate.admit()
        return gate


@implementer(ICopyingBackend)
class Copying(MemoryBackend):
    """A backend that can copy."""

    def copy(self, from_blob_id: str, to_blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`ICopyingBackend.copy`."""
        return succeed(BlobStat(to_blob_id, len(from_blob_id), 0))


class ClosedGateTests(TestCase):
    async def test_nothing_passes(self) -> None:
        """Before it is opened nothing is read, judged or changed, and who asks is told so; then all is there."""
        inner = Copying(now=Instant(), name="s3")
        blob_id = await put(inner, b"data")
        gate = GatedBackend(inner)
        asked: list[Callable[[], Deferred[Any]]] = [
            lambda: gate.stage(new_id()),
            lambda: gate.open(blob_id),
            lambda: gate.delete(blob_id),
            lambda: gate.set_aside(blob_id),
            gate.list_set_aside,
            lambda: gate.put_back(blob_id),
            lambda: gate.purge_set_aside(1 << 62),
            lambda: gate.stat(blob_id),
            gate.list_blobs,
            lambda: gate.remove_stale_staged(1 << 62),
            lambda: ICopyingBackend(gate).copy(blob_id, new_id()),
        ]
        for ask in asked:
            self.failureResultOf(ask(), PeerUnavailable)
        gate.admit()
        assert await get(gate, blob_id) == b"data"
        assert (await ICopyingBackend(gate).copy(blob_id, "to")).id == "to"
        await gate.close()

    def test_copying(self) -> None:
        """It copies where the backend does."""
        assert ICopyingBackend(GatedBackend(MemoryBackend(now=Instant())), None) is None
        assert ICopyingBackend(GatedBackend(Copying(now=Instant())), None) is not None
