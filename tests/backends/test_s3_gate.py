"""A bucket that nobody has recognised yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.interfaces import BlobStat, IBlobBackend, ICopyingBackend
from callfs.backends.memory import MemoryBackend
from callfs.backends.s3_gate import GatedBackend
from callfs.config.schema import BackendConfig, Config
from callfs.config.secret import Secret
from callfs.errors import PeerUnavailable
from callfs.metrics import Metrics
from callfs.node_storage import shared_bucket
from tests.backends.s3_support import FaultyServer, wall_clock
from tests.backends.support import start_pool
from tests.contract.backends import BlobBackendContract, Instant, get, new_id, put
from tests.support.faulty_s3 import reply


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


class AnswersAgainTests(FaultyServer, TestCase):
    """A node's bucket, which is told when S3 is back."""

    async def test_not_before_it_is_recognised(self) -> None:
        """Nothing in it can be reached before; and then every outage that ends is said once."""
        await self.begin()
        told: list[None] = []
        config = BackendConfig(
            s3_bucket_name=self.server.bucket,
            s3_key_prefix=self.prefix,
            s3_endpoint=self.url,
            s3_access_key=Secret(self.server.access_key),
            s3_secret_key=Secret(self.server.secret_key),
        )
        shared = shared_bucket(
            Config(backend=config), reactor, start_pool(self), Metrics(), wall_clock, lambda: told.append(None)
        )
        assert shared is not None
        self.addCleanup(shared.blobs.close)
        for expected in (0, 1, 2):
            self.faulty.on("GET", reply(503, "SlowDown"), times=1_000_000)
            await self.assertFailure(shared.bucket.check(), PeerUnavailable)
            self.faulty.forget_rules()
            await shared.bucket.check()
            await shared.bucket.check()
            assert len(told) == expected
            shared.gate.admit()
