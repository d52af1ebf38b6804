"""What the janitors of several nodes do about the storage that they share."""

from __future__ import annotations

from typing import Any

from callfs.engine.garbage import BATCH
from callfs.engine.janitor import Janitor
from callfs.engine.settings import JanitorSettings
from callfs.errors import MetadataUnavailable, OutcomeUnknown
from tests.support.engine import ALICE, HOUR_SECONDS, NODE, settled, turns
from tests.support.nodes import NODES, SECOND, THIRD, NodesCase

SIX_HOURS = 6 * HOUR_SECONDS


class LookedAt:
    """A store that writes down how many rows of the garbage queue on S3 are asked for."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.limits: list[int] = []

    def garbage(self, before_at: int, backend: str, instance_id: str | None, limit: int) -> Any:
        """See :meth:`IMetadataStore.garbage`."""
        if backend == "s3":
            self.limits.append(limit)
        return self.inner.garbage(before_at, backend, instance_id, limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class SharedCase(NodesCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.janitors = {name: self.make_janitor(name) for name in NODES}

    def make_janitor(self, name: str, **changes: Any) -> Janitor:
        """The janitor of a node."""
        arguments: dict[str, Any] = {
            "metadata": self.store,
            "backends": {"localfs": self.disks[name], "s3": self.s3},
            "settings": JanitorSettings(instance_id=name),
            "now": self.now,
            "clock": self.clock,
            "metrics": self.counts[name],
            "locks": self.locks,
        }
        janitor = Janitor(**{**arguments, **changes})
        self.addCleanup(lambda: janitor.stopService())
        return janitor

    def counted(self, *labels: object) -> int:
        """What all nodes counted together."""
        return sum(self.counts[name].of[labels] for name in NODES)

    async def abandoned_on_s3(self) -> str:
        """A blob on S3 as a crash between commit and command leaves it."""
        before = set(await self.ids_at(self.s3))
        self.store.steps.fail("PutFile", OutcomeUnknown("crash"))
        await self.refused(OutcomeUnknown, self.put_at(NODE, "/abandoned", backend="s3"))
        (blob_id,) = set(await self.ids_at(self.s3)) - before
        return blob_id


class TestGarbage(SharedCase):
    async def test_on_s3_by_any_node(self) -> None:
        """Garbage on S3 is deleted by whichever node runs, when garbage_delay is over; a node's own by itself."""
        for name in NODES:
            await self.put_at(name, f"/{name}/local")
            await self.put_at(name, f"/{name}/s3", backend="s3")
            await self.filesystem.remove(ALICE, f"/{name}", recursive=True)
        self.janitors[SECOND].startService()
        await settled(lambda: self.counts[SECOND].of["garbage_deleted", "localfs"] == 1)
        assert len(await self.ids_at(self.s3)) == 3
        self.advance(3601)
        await settled(lambda: self.counts[SECOND].of["garbage_deleted", "s3"] == 3)
        assert await self.ids_at(self.s3) == []
        assert [len(await self.ids_at(self.disks[name])) for name in NODES] == [1, 0, 1]

    async def test_by_all_at_once(self) -> None:
        """Janitors that delete the same garbage at once don't stand in each other's way."""
        for number in range(BATCH + 1):
            await self.put_at(NODE, f"/d/{number}", backend="s3")
        await self.filesystem.remove(ALICE, "/d", recursive=True)
        self.advance(3601)
        for janitor in self.janitors.values():
            janitor.startService()
        while await self.ids_at(self.s3) or (await self.store.statistics()).garbage:
            await turns(1)
        assert self.counted("garbage_failed", "s3") == 0

    async def test_what_others_have_deleted_is_forgotten(self) -> None:
        """A node that couldn't delete something doesn't go on looking past it when another node has deleted it."""
        await self.put_at(NODE, "/f", backend="s3")
        await self.filesystem.remove(ALICE, "/f")
        self.advance(3601)
        store = LookedAt(self.store)
        self.janitors[NODE] = self.make_janitor(NODE, metadata=store)
        self.s3.steps.fail("delete", OSError(5, "input/output error"))
        self.janitors[NODE].startService()
        await settled(lambda: self.counts[NODE].of["garbage_failed", "s3"] == 1)
        self.janitors[SECOND].startService()
        await settled(lambda: self.counts[SECOND].of["garbage_deleted", "s3"] == 1)
        for _ in range(2):
            self.advance(3600)
            await turns()
        assert store.limits[0] == store.limits[-1] == BATCH
        assert max(store.limits) == BATCH + 1
        self.flushLoggedErrors(OSError)


class TestSweep(SharedCase):
    async def setUp(self) -> None:
        await super().setUp()
        for number in range(200):
            await self.put_at(NODES[number % 3], f"/kept/{number}", backend="s3")

    async def test_s3_is_swept(self) -> None:
        """What nothing names on S3 is set aside after two passes of one node, whatever the others do."""
        abandoned = await self.abandoned_on_s3()
        for janitor in self.janitors.values():
            janitor.startService()
        await turns()
        for _ in range(4):
            self.advance(SIX_HOURS)
            await turns(10)
        await settled(lambda: self.counted("sweep", "set_aside") == 1)
        assert abandoned not in await self.ids_at(self.s3)
        assert len(await self.ids_at(self.s3)) == 200

    async def test_one_at_a_time(self) -> None:
        """While one node sweeps S3 the others leave it alone, and sweep their own disks."""
        self.s3.steps.hold("list_blobs")
        arrival = self.s3.steps.arrival("list_blobs")
        for janitor in self.janitors.values():
            janitor.startService()
        await turns()
        self.advance(SIX_HOURS)
        await arrival
        await settled(lambda: self.counted("sweep_passes") == 3)
        await turns()
        assert self.s3.steps.passed["list_blobs"] == 1
        assert self.counted("sweep_passes") == 3
        self.s3.steps.release("list_blobs")
        await settled(lambda: self.counted("sweep_passes") == 4)
        await settled(lambda: self.locks.held == [])  # a pass is counted before its end

    async def test_a_failed_sweep_gives_its_turn_back(self) -> None:
        """A sweep that fails is tried at the next turn, and doesn't keep the others out."""
        self.store.steps.fail("named_blobs", MetadataUnavailable("down"))
        janitor = self.janitors[NODE]
        janitor.startService()
        self.advance(SIX_HOURS)
        await settled(lambda: self.metrics.of["error", "janitor", "MetadataUnavailable"] == 1)
        self.flushLoggedErrors(MetadataUnavailable)
        await turns()
        assert self.locks.held == []
        self.janitors[SECOND].startService()
        self.advance(SIX_HOURS)
        await settled(lambda: self.counted("sweep_passes") >= 3)

    async def test_without_locks(self) -> None:
        """A janitor that can't take turns leaves what is shared alone."""
        janitor = self.make_janitor(THIRD, locks=None)
        janitor.startService()
        self.advance(SIX_HOURS)
        await settled(lambda: self.counts[THIRD].of["sweep_passes",] == 1)
        await turns()
        assert self.s3.steps.passed["list_blobs"] == 0

    async def test_put_back_at_start(self) -> None:
        """What is set aside on S3 though it has a name is readable again after the start of a node."""
        blob = await self.blob_of("/kept/0")
        await self.s3.inner.set_aside(blob.id)
        self.janitors[SECOND].startService()
        await settled(lambda: self.counts[SECOND].of["sweep", "put_back"] == 1)
        assert await self.read_at(THIRD, "/kept/0") == b"content"

    async def test_one_backend_fails(self) -> None:
        """Staged leftovers on S3 are looked for also where the local disk can't be read just now."""
        self.backend.steps.fail("remove_stale_staged", OSError(5, "input/output error"))
        self.janitors[NODE].startService()
        self.advance(HOUR_SECONDS)
        await settled(lambda: self.s3.steps.passed["remove_stale_staged"] == 1)
        self.flushLoggedErrors(OSError)
        assert self.metrics.of["error", "janitor", "OSError"] == 1
