"""The sweep: what nothing names is condemned, set aside, deleted a week later, and nothing else ever is."""

from __future__ import annotations

import os
import shutil

import msgspec
import pytest
from twisted.internet import reactor

from callfs.backends.interfaces import BlobStat, IBlobBackend
from callfs.backends.localfs import LocalBackend
from callfs.engine.judgement import HANDFUL, Verdict, judge
from callfs.engine.settings import JanitorSettings
from callfs.engine.sweep import Sweep, is_old
from callfs.errors import Conflict, MetadataUnavailable, OutcomeUnknown
from callfs.identifiers import new_blob_id
from tests.support.engine import ALICE, DAY_SECONDS, HOUR_SECONDS, NODE, START_AT, EngineCase, Feed, started, upload


class SweepCase(EngineCase):
    """A store of 300 files on a real disk's backend, an hour old, beside a sweep."""

    files = 300

    async def make_backend(self) -> IBlobBackend:
        (self.folder / "root").mkdir()
        return LocalBackend(self.folder / "root", reactor=reactor, pool=self.pool, now=self.now, min_free_bytes=0)

    async def setUp(self) -> None:
        await super().setUp()
        self.stopping = False
        self.sweep = self.make_sweep()
        for number in range(self.files):
            await self.put(f"/kept/{number}", b"%d" % number)
        self.kept = set(await self.blob_ids())

    def make_sweep(self) -> Sweep:
        """A sweep as it is after a start."""
        return Sweep(
            backend=self.backend,
            metadata=self.store,
            settings=JanitorSettings(instance_id=NODE),
            now=self.now,
            clock=self.clock,
            metrics=self.metrics,
            stopping=lambda: self.stopping,
        )

    async def abandoned(self, count: int = 1) -> set[str]:
        """Leave blobs behind as a crash between commit and command does."""
        before = set(await self.blob_ids())
        for _ in range(count):
            self.store.steps.fail("CreateFile", OutcomeUnknown("crash"))
            await self.refused(OutcomeUnknown, self.create("/abandoned"))
        return set(await self.blob_ids()) - before

    async def passes(self, *hours_before_each: float) -> None:
        """Run passes, with so many hours before each."""
        for hours in hours_before_each:
            self.age(hours)
            await self.sweep.run()

    def age(self, hours: float) -> None:
        """Let hours pass. What was written since the last time gets its time by the test's clock."""
        at = self.now()
        for path in (self.folder / "root" / "blobs").glob("*/*"):
            if path.stat().st_mtime_ns > at * 1000:
                os.utime(path, ns=(at * 1000, at * 1000))
        self.advance(hours * HOUR_SECONDS)

    def aside(self) -> set[str]:
        """What was set aside."""
        return {path.name for path in (self.folder / "root" / "aside").iterdir()}

    async def untouched(self, blob_ids: set[str]) -> None:
        """Check that blobs are where they were, and nothing was set aside."""
        assert blob_ids <= set(await self.blob_ids())
        assert self.aside() == set()


class TestTwoSteps(SweepCase):
    async def test_whole_life(self) -> None:
        """Seen once, seen again an hour later and set aside, deleted a week after that; what has a name stays."""
        lost = await self.abandoned()
        await self.passes(2)
        await self.untouched(lost | self.kept)
        await self.passes(1)
        assert set(await self.blob_ids()) == self.kept
        assert self.aside() == lost
        await self.passes(7 * 24 - 1)
        assert self.aside() == lost
        await self.passes(2)
        assert self.aside() == set()
        assert set(await self.blob_ids()) == self.kept
        assert [self.metrics.of["sweep", what] for what in ("condemned", "set_aside", "purged")] == [1, 1, 1]
        assert self.metrics.alarm is False

    async def test_too_soon(self) -> None:
        """Passes less than an hour apart don't count as two."""
        lost = await self.abandoned()
        await self.passes(2, 0.5, 0.49)
        await self.untouched(lost)
        await self.passes(0.02)
        assert self.aside() == lost

    async def test_young(self) -> None:
        """What is younger than an hour isn't judged."""
        lost = await self.abandoned()
        await self.passes(0.5, 0.49)
        await self.passes(0.5)
        await self.untouched(lost)

    async def test_restart_only_delays(self) -> None:
        """After a restart the first step comes again."""
        lost = await self.abandoned()
        await self.passes(2)
        self.sweep = self.make_sweep()
        await self.passes(2)
        await self.untouched(lost)
        await self.passes(2)
        assert self.aside() == lost

    async def test_named_between_the_passes(self) -> None:
        """A blob that has got its name by the second pass is left alone."""
        body = Feed()
        self.store.steps.hold("CreateFile")
        arrival = self.store.steps.arrival("CreateFile")
        create = started(self.filesystem.create_file(ALICE, "/slow", upload(body)))
        body.give(b"slow")
        body.give(None)
        await arrival
        await self.passes(2)
        self.store.steps.release("CreateFile")
        await create
        await self.passes(2, 2)
        assert await self.content("/slow") == b"slow"
        assert self.aside() == set()

    async def test_named_between_look_and_command(self) -> None:
        """A blob that gets its name after the second look and before it is condemned is left alone."""
        self.store.steps.hold("CreateFile")
        arrival = self.store.steps.arrival("CreateFile")
        create = started(self.create("/slow", b"slow"))
        await arrival
        await self.passes(2)
        self.age(2)
        self.store.steps.hold("Condemn")
        condemning = self.store.steps.arrival("Condemn")
        second = started(self.sweep.run())
        await condemning
        self.store.steps.release("CreateFile")
        await create
        self.store.steps.release("Condemn")
        await second
        assert await self.content("/slow") == b"slow"
        assert self.aside() == set()

    async def test_condemned_before_it_is_named(self) -> None:
        """An upload that is later than the sweep is refused: never a file without bytes."""
        self.store.steps.hold("CreateFile")
        arrival = self.store.steps.arrival("CreateFile")
        create = started(self.create("/slow", b"slow"))
        await arrival
        await self.passes(2, 2)
        assert len(self.aside()) == 1
        self.store.steps.release("CreateFile")
        await self.refused(Conflict, create)
        assert set(await self.blob_ids()) == self.kept

    async def test_garbage_has_its_own_way(self) -> None:
        """What the garbage queue holds isn't the sweep's."""
        await self.put("/kept/0", b"new")
        await self.passes(2, 2, 2)
        assert self.kept < set(await self.blob_ids())
        assert self.aside() == set()


class TestFaults(SweepCase):
    async def test_store_fails(self) -> None:
        """Wherever the store fails, nothing is touched, and a later pass does the work."""
        lost = await self.abandoned()
        await self.passes(2)
        self.age(2)
        for step in ("named_blobs", "Condemn"):
            self.store.steps.fail(step, MetadataUnavailable("down"))
            await self.refused(MetadataUnavailable, self.sweep.run())
            await self.untouched(lost | self.kept)
        await self.sweep.run()
        assert self.aside() == lost

    async def test_condemned_or_not(self) -> None:
        """When it isn't known whether the command happened nothing is touched, and a later pass goes on."""
        lost = await self.abandoned()
        await self.passes(2)
        self.age(2)
        self.store.steps.fail("applied Condemn", OutcomeUnknown("lost"))
        await self.refused(OutcomeUnknown, self.sweep.run())
        await self.untouched(lost)
        await self.sweep.run()
        assert self.aside() == lost

    async def test_cannot_be_set_aside(self) -> None:
        """What can't be set aside stays where it is, condemned, and is set aside by a later pass."""
        lost = await self.abandoned()
        self.backend.steps.fail("set_aside", OSError(30, "read-only"))
        await self.passes(2, 2)
        self.flushLoggedErrors(OSError)
        await self.untouched(lost)
        assert self.metrics.of["error", "janitor", "set_aside_failed"] == 1
        await self.passes(2)
        assert self.aside() == lost

    async def test_stopping(self) -> None:
        """A pass that is cut off has no effect."""
        lost = await self.abandoned()
        await self.passes(2)
        self.age(2)
        self.stopping = True
        await self.sweep.run()
        await self.untouched(lost)
        assert self.metrics.of["sweep_passes",] == 1


class TestWrongStore(SweepCase):
    async def test_empty(self) -> None:
        """An empty store costs no byte: the sweep stops with an alarm, pass after pass, for weeks."""
        await self.swap("empty.sqlite3")
        for _ in range(3):
            await self.passes(2, 24, 24 * 8)
            await self.untouched(self.kept)
            assert self.metrics.alarm is True
        assert self.metrics.of["error", "janitor", "sweep_alarm"] == 9

    async def test_foreign(self) -> None:
        """A store of other files costs no byte."""
        await self.swap("foreign.sqlite3")
        for number in range(5):
            await self.put(f"/other/{number}")
        await self.passes(2, 24, 24 * 8)
        await self.untouched(self.kept)
        assert self.metrics.alarm is True

    async def test_restored(self) -> None:
        """An old copy of the store costs no byte of what was written after it: the newer copy finds all of it."""
        old = await self.snapshot("old.sqlite3")
        for number in range(20):
            await self.put(f"/later/{number}", b"%d" % number)
        new = await self.snapshot("new.sqlite3")
        everything = set(await self.blob_ids())
        await self.swap(old)
        await self.passes(2, 24, 24 * 8)
        await self.untouched(everything)
        assert self.metrics.alarm is True
        await self.swap(new)
        self.sweep = self.make_sweep()
        await self.passes(2, 24, 24 * 8)
        assert self.metrics.alarm is False
        for number in range(20):
            assert await self.content(f"/later/{number}") == b"%d" % number

    async def test_set_aside_by_an_old_copy(self) -> None:
        """What an old copy of a large store had set aside goes back as soon as a copy that names it is in use."""
        old = await self.snapshot("old.sqlite3")
        before = set(await self.blob_ids())
        await self.put("/later", b"written after the copy")
        new = await self.snapshot("new.sqlite3")
        await self.swap(old)
        await self.passes(2, 24)
        assert len(self.aside()) == 1
        assert set(await self.blob_ids()) == before
        await self.swap(new)
        self.sweep = self.make_sweep()
        await self.passes(24 * 30)
        assert self.aside() == set()
        assert await self.content("/later") == b"written after the copy"
        assert self.metrics.of["sweep", "put_back"] == 1
        assert self.metrics.of["sweep", "purged"] == 0

    async def test_put_back_fails(self) -> None:
        """As long as it can't be put back it isn't purged."""
        old = await self.snapshot("old.sqlite3")
        await self.put("/later", b"written after the copy")
        new = await self.snapshot("new.sqlite3")
        await self.swap(old)
        await self.passes(2, 24)
        await self.swap(new)
        self.backend.steps.fail("put_back", OSError(30, "read-only"))
        self.age(24 * 30)
        await self.refused(OSError, self.sweep.run())
        assert len(self.aside()) == 1
        await self.sweep.run()
        assert await self.content("/later") == b"written after the copy"

    async def test_restored_in_a_small_store(self) -> None:
        """A few files written after the copy are not touched either, though a crash may as well have left them."""
        old = await self.snapshot("old.sqlite3")
        for number in range(HANDFUL):
            await self.put(f"/later/{number}")
        everything = set(await self.blob_ids())
        await self.swap(old)
        await self.passes(2, 24, 24 * 8)
        await self.untouched(everything)
        assert self.metrics.alarm is False

    async def test_what_is_aside_stays_aside(self) -> None:
        """While the store is doubted nothing that was set aside before is deleted."""
        lost = await self.abandoned()
        await self.passes(2, 2)
        await self.swap("empty.sqlite3")
        await self.passes(24 * 8, 24 * 8)
        assert self.aside() == lost
        assert set(await self.blob_ids()) == self.kept

    async def test_little_by_little(self) -> None:
        """A wrong store can't take 1 % with every pass: what was set aside counts."""
        first = await self.abandoned(3)
        await self.passes(2, 2)
        assert self.aside() == first
        second = await self.abandoned(3)
        await self.passes(2, 2, 2)
        assert self.aside() == first
        assert second <= set(await self.blob_ids())

    async def snapshot(self, name: str) -> str:
        """A copy of the store as it is."""
        await self.store.inner.close()
        for path in self.folder.glob("metadata.sqlite3*"):
            shutil.copy(path, self.folder / path.name.replace("metadata.sqlite3", name))
        self.store.inner = await self.open_store("metadata.sqlite3")
        return name

    async def swap(self, name: str) -> None:
        """Use another store."""
        await self.store.inner.close()
        self.store.inner = await self.open_store(name)


class TestSmallStore(SweepCase):
    files = 3

    async def test_leftover(self) -> None:
        """In a store with few files a leftover stays where it is, without an alarm, until there are many."""
        lost = await self.abandoned()
        await self.passes(2, 2)
        await self.untouched(lost)
        assert self.metrics.alarm is False
        for number in range(100):
            await self.put(f"/many/{number}")
        await self.passes(2, 2)
        assert self.aside() == lost


class TestJudgement:
    @pytest.mark.parametrize(
        ("judged", "unnamed", "verdict"),
        [
            (0, 0, Verdict.SOUND),
            (1, 1, Verdict.DOUBTFUL),
            (99, 1, Verdict.DOUBTFUL),
            (100, 1, Verdict.SOUND),
            (10, 10, Verdict.DOUBTFUL),
            (11, 11, Verdict.ALARMING),
            (1099, 11, Verdict.ALARMING),
            (1100, 11, Verdict.SOUND),
            (1_000_000, 10_000, Verdict.SOUND),
            (1_000_000, 10_001, Verdict.ALARMING),
        ],
    )
    def test_verdicts(self, judged: int, unnamed: int, verdict: Verdict) -> None:
        """Up to 1 % is believed; above it a handful is left alone quietly, more with an alarm."""
        assert judge(judged, unnamed) is verdict


class TestAge:
    def test_both_must_be_old(self) -> None:
        """Neither an old id with new bytes nor new id with old bytes is old, nor what isn't named like a blob."""
        blob = BlobStat(id=new_blob_id(START_AT, bytes), size=1, modified_at=START_AT)
        assert is_old(blob, START_AT + 1)
        assert not is_old(blob, START_AT)
        assert not is_old(msgspec.structs.replace(blob, modified_at=START_AT + 1), START_AT + 1)
        late = msgspec.structs.replace(blob, id=new_blob_id(START_AT + int(DAY_SECONDS * 1_000_000), bytes))
        assert not is_old(late, START_AT + 1)
        assert not is_old(msgspec.structs.replace(blob, id="README"), START_AT + 1)
