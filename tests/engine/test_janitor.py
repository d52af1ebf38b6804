"""Garbage, links, abandoned stages: what the janitor does in the background."""

from __future__ import annotations

from callfs.engine.garbage import BATCH, LAST_RETRY_SECONDS
from callfs.engine.janitor import KICK_SECONDS, Janitor
from callfs.engine.settings import JanitorSettings
from callfs.errors import LinkExpired, LinkNotFound, LinkUsed, MetadataUnavailable, OutcomeUnknown
from tests.support.engine import ALICE, DAY_SECONDS, NODE, EngineCase, read_all, settled, started, turns


class JanitorCase(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.janitor = self.make_janitor()
        self.addCleanup(lambda: self.janitor.stopService())

    def make_janitor(self, **settings: float) -> Janitor:
        """A janitor over the test's ports."""
        return Janitor(
            metadata=self.store,
            backends={"localfs": self.backend},
            settings=JanitorSettings(instance_id=NODE, **settings),
            now=self.now,
            clock=self.clock,
            metrics=self.metrics,
        )

    def _kicked(self) -> None:
        super()._kicked()
        self.janitor.kick()

    async def replaced(self, count: int) -> None:
        """Make so many blobs garbage."""
        for number in range(count):
            await self.put(f"/g/{number}", b"%d" % number)
        await self.filesystem.remove(ALICE, "/g", recursive=True)

    async def queued(self) -> int:
        """Rows in the garbage queue."""
        return (await self.store.statistics()).garbage

    async def at_rest(self) -> None:
        """Wait until no turn is under way: each of the six works has its next one before it."""
        await settled(lambda: len(self.clock.getDelayedCalls()) == 6)

    async def has_blobs(self, count: int) -> None:
        """Wait until so many blobs are there and the queue is no longer than they."""
        while len(await self.blob_ids()) != count or await self.queued() > count:
            await turns(1)


class TestGarbage(JanitorCase):
    async def test_at_start(self) -> None:
        """What an earlier process left in the queue goes at once."""
        await self.replaced(3)
        assert len(await self.blob_ids()) == 3
        self.janitor.startService()
        await self.has_blobs(0)
        assert self.metrics.of["garbage_deleted", "localfs"] == 3

    async def test_kicked(self) -> None:
        """What is replaced goes shortly after; what has a name stays."""
        self.janitor.startService()
        await self.put("/f", b"old")
        await self.put("/f", b"new")
        self.advance(KICK_SECONDS)
        await self.has_blobs(1)
        assert await self.content("/f") == b"new"
        await self.nothing_left()

    async def test_many(self) -> None:
        """A queue longer than a batch goes whole."""
        await self.replaced(2 * BATCH + 1)
        self.janitor.startService()
        await self.has_blobs(0)
        assert self.metrics.of["garbage_deleted", "localfs"] == 2 * BATCH + 1

    async def test_deletion_fails(self) -> None:
        """A blob that can't be deleted is counted and tried again, later and later; it isn't forgotten."""
        await self.replaced(1)
        self.backend.steps.fail("delete", *[OSError(5, "input/output error")] * 3)
        self.janitor.startService()
        for failures in (1, 2, 3):
            await settled(lambda failures=failures: self.metrics.of["garbage_failed", "localfs"] == failures)
            assert await self.queued() == 1
            tries = self.backend.steps.passed["delete"]
            self.advance(1)
            self.janitor.kick()
            self.advance(KICK_SECONDS)
            await turns()
            assert self.backend.steps.passed["delete"] == tries
            self.advance(LAST_RETRY_SECONDS)
        await self.has_blobs(0)
        self.flushLoggedErrors(OSError)

    async def test_failing_ones_are_not_in_the_way(self) -> None:
        """However many of the oldest can't be deleted, the others are."""
        await self.replaced(BATCH + 10)
        failing = await self.blob_ids()
        for blob_id in failing:
            self.backend.steps.fail(f"delete {blob_id}", OSError(5, "input/output error"))
        self.janitor.startService()
        await settled(lambda: self.metrics.of["garbage_failed", "localfs"] == len(failing))
        await self.replaced(3)
        self.advance(KICK_SECONDS)
        await self.has_blobs(len(failing))
        assert sorted(await self.blob_ids()) == sorted(failing)
        self.flushLoggedErrors(OSError)

    async def test_row_that_cannot_be_dropped(self) -> None:
        """A fault between deletion and row: the blob is deleted again, which is no error, and the row goes."""
        await self.replaced(2)
        self.store.steps.fail("DropGarbage", MetadataUnavailable("down"))
        self.janitor.startService()
        await settled(lambda: self.metrics.of["error", "janitor", "MetadataUnavailable"] == 1)
        self.flushLoggedErrors(MetadataUnavailable)
        assert await self.queued() == 2
        self.advance(60)
        await self.has_blobs(0)
        assert await self.queued() == 0

    async def test_row_of_which_it_is_not_known_whether_it_was_dropped(self) -> None:
        """A store that goes away in the middle of a change is waited for, without a fault in the log."""
        await self.replaced(2)
        self.store.steps.fail("applied DropGarbage", OutcomeUnknown("lost"))
        self.janitor.startService()
        await settled(lambda: self.metrics.of["error", "janitor", "OutcomeUnknown"] == 1)
        self.advance(60)
        await self.has_blobs(0)
        assert await self.queued() == 0

    async def test_never_twice_side_by_side(self) -> None:
        """Kicks while the queue is emptied lead to one more look afterwards."""
        await self.replaced(1)
        self.backend.steps.hold("delete")
        arrival = self.backend.steps.arrival("delete")
        self.janitor.startService()
        await arrival
        await self.replaced(1)
        for _ in range(5):
            self.janitor.kick()
            self.advance(KICK_SECONDS)
        assert self.backend.steps.passed["delete"] == 1
        self.backend.steps.release("delete")
        await self.has_blobs(0)
        assert self.backend.steps.passed["delete"] == 2

    async def test_of_another_node(self) -> None:
        """The garbage of another node's disk isn't this node's."""
        await self.replaced(1)
        self.janitor = Janitor(
            metadata=self.store,
            backends={"localfs": self.backend},
            settings=JanitorSettings(instance_id="node-2"),
            now=self.now,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.janitor.startService()
        self.advance(120)
        await turns()
        assert self.backend.steps.passed["delete"] == 0
        assert await self.queued() == 1


class TestStop(JanitorCase):
    async def test_waits_for_work_under_way(self) -> None:
        """Stopping waits for the deletion under way, begins no other, and leaves the rest in the queue."""
        await self.replaced(BATCH + 1)
        self.backend.steps.hold("delete")
        arrival = self.backend.steps.arrival("delete")
        self.janitor.startService()
        await arrival
        stopped = started(_stop(self.janitor))
        assert not stopped.called
        self.backend.steps.release("delete")
        await stopped
        assert await self.queued() == 1
        self.janitor.kick()
        self.advance(3600)
        assert await self.queued() == 1
        assert self.clock.getDelayedCalls() == []

    async def test_stop_without_start(self) -> None:
        """Stopping what never ran, or twice, does nothing."""
        await self.janitor.stopService()
        self.janitor.startService()
        await self.janitor.stopService()
        await self.janitor.stopService()

    async def test_start_again(self) -> None:
        """A stopped janitor can be started again."""
        self.janitor.startService()
        await self.janitor.stopService()
        await self.replaced(1)
        self.janitor.startService()
        await self.has_blobs(0)


async def _stop(janitor: Janitor) -> None:
    await janitor.stopService()


class TestLinks(JanitorCase):
    async def test_purged(self) -> None:
        """Expired links go at the next turn, used ones a day after their use, others stay."""
        self.janitor = self.make_janitor(used_link_age_seconds=1000)
        await self.put("/f")
        expired = (await self.filesystem.issue_link(ALICE, "/f", 60)).token
        used = (await self.filesystem.issue_link(ALICE, "/f", 86_400)).token
        fresh = (await self.filesystem.issue_link(ALICE, "/f", 86_400)).token
        await read_all(await self.filesystem.redeem_link(used))
        self.janitor.startService()
        self.advance(299)
        await self.refused(LinkExpired, self.filesystem.look_up_link(expired))
        self.advance(1)
        await settled(lambda: self.metrics.of["links_purged",] == 1)
        await self.refused(LinkNotFound, self.filesystem.look_up_link(expired))
        await self.refused(LinkUsed, self.filesystem.look_up_link(used))
        self.advance(900)
        await settled(lambda: self.metrics.of["links_purged",] == 2)
        await self.refused(LinkNotFound, self.filesystem.look_up_link(used))
        await self.filesystem.look_up_link(fresh)

    async def test_store_down(self) -> None:
        """A turn that fails is counted and made up for by the next."""
        await self.put("/f")
        await self.filesystem.issue_link(ALICE, "/f", 1)
        self.store.steps.fail("PurgeLinks", MetadataUnavailable("down"))
        self.janitor.startService()
        self.advance(300)
        await settled(lambda: self.metrics.of["error", "janitor", "MetadataUnavailable"] == 1)
        self.flushLoggedErrors(MetadataUnavailable)
        self.advance(300)
        await settled(lambda: self.metrics.of["links_purged",] == 1)


class TestSetAside(JanitorCase):
    async def test_put_back_at_start(self) -> None:
        """What is set aside though the store names it is readable again right after the start."""
        blob = (await self.put("/f", b"content")).inode.blob
        await self.backend.inner.set_aside(blob.id)
        self.janitor.startService()
        await settled(lambda: self.metrics.of["sweep", "put_back"] == 1)
        assert await self.content("/f") == b"content"

    async def test_swept_in_turns(self) -> None:
        """Leftovers go by the clock alone: six-hourly passes, of which the second sets aside."""
        for number in range(200):
            await self.put(f"/kept/{number}")
        self.store.steps.fail("CreateFile", OutcomeUnknown("crash"))
        await self.refused(OutcomeUnknown, self.create("/abandoned"))
        self.janitor.startService()
        for turn in (1, 2):
            assert len(await self.blob_ids()) == 201
            await self.at_rest()
            self.advance(6 * 3600)
            await settled(lambda turn=turn: self.metrics.of["sweep_passes",] == turn)
        await settled(lambda: self.metrics.of["sweep", "set_aside"] == 1)
        await self.nothing_left()


class TestStaging(JanitorCase):
    async def test_hourly(self) -> None:
        """Abandoned stages are looked for every hour, also after a failure."""
        self.backend.steps.fail("remove_stale_staged", OSError(5, "input/output error"))
        self.janitor.startService()
        for turn in (1, 2):
            await self.at_rest()
            self.advance(3600)
            await settled(lambda turn=turn: self.backend.steps.passed["remove_stale_staged"] == turn)
        self.flushLoggedErrors(OSError)
        assert self.metrics.of["error", "janitor", "OSError"] == 1

    async def test_the_periods_are_the_documented_ones(self) -> None:
        """Links every 5 minutes, used ones for a day, bytes set aside for a week, nothing judged within an hour."""
        settings = JanitorSettings(instance_id=NODE)
        assert settings.link_purge_interval_seconds == 300
        assert settings.used_link_age_seconds == DAY_SECONDS
        assert settings.set_aside_seconds == 7 * DAY_SECONDS
        assert settings.sweep_grace_seconds == 3600
