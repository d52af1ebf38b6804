"""The consistency check and its repairs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.memory import MemoryBackend
from callfs.engine.filesystem import MoveRequest
from callfs.engine.fsck import ConsistencyCheck, Finding, FindingKind, Progress, Repair, TooManyUnnamed
from callfs.errors import FileNotFound, OutcomeUnknown, PeerUnavailable
from callfs.metadata.commands import DropGarbage
from tests.support.engine import ADMIN, ALICE, HOUR_SECONDS, NODE, EngineCase, Feed, started, turns, upload
from tests.support.nodes import NODES, S3, SECOND, THIRD, NodesCase


class FsckCase(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        for name in ("a", "b", "d/c", "empty"):
            await self.put(f"/{name}", b"" if name == "empty" else name.encode())

    def check(self, **options: object) -> ConsistencyCheck:
        """A check of the test's node."""
        arguments: dict[str, object] = {
            "metadata": self.store,
            "backends": {"localfs": self.backend},
            "instance_id": NODE,
            "now": self.now,
        }
        return ConsistencyCheck(**{**arguments, **options})  # type: ignore[arg-type]

    def repair(self) -> Repair:
        """Repairs on the test's node."""
        return Repair(metadata=self.store, backends={"localfs": self.backend}, now=self.now, metrics=self.metrics)

    async def findings(self, **options: object) -> list[Finding]:
        """All that a whole check finds."""
        check = self.check(**options)
        found: list[Finding] = []
        for report in (check.store(), check.files(), check.blobs()):
            found += [each async for each in report if isinstance(each, Finding)]
        return found

    async def only_finding(self, **options: object) -> Finding:
        """The one thing that a whole check finds."""
        found = await self.findings(**options)
        assert len(found) == 1, found
        return found[0]

    async def blob_id(self, path: str) -> str:
        """The blob of a file."""
        inode = await self.filesystem.stat(ALICE, path)
        assert inode.blob is not None
        return inode.blob.id

    async def change_bytes(self, path: str, data: bytes) -> None:
        """Put other bytes into a file's blob."""
        blob_id = await self.blob_id(path)
        inner: IBlobBackend = self.backend.inner
        await inner.delete(blob_id)
        staged = await inner.stage(blob_id)
        await staged.write(data)
        await staged.commit()

    async def abandoned(self, count: int = 1) -> None:
        """Leave blobs behind as a crash between commit and command does."""
        for _ in range(count):
            self.store.steps.fail("CreateFile", OutcomeUnknown("crash"))
            await self.refused(OutcomeUnknown, self.create("/abandoned"))


class TestFindings(FsckCase):
    async def test_clean(self) -> None:
        """Nothing is found where nothing is wrong, however deep one looks."""
        self.advance(2 * HOUR_SECONDS)
        assert await self.findings() == []
        assert await self.findings(deep=True) == []
        await self.nothing_left()

    async def test_missing(self) -> None:
        """A file without its blob is found, by its path."""
        await self.backend.inner.delete(await self.blob_id("/d/c"))
        finding = await self.only_finding()
        assert (finding.kind, finding.path) == (FindingKind.MISSING_BLOB, "/d/c")
        assert (await self.only_finding(deep=True)).kind is FindingKind.MISSING_BLOB

    async def test_wrong_size(self) -> None:
        """A blob of another size is found without reading it."""
        await self.change_bytes("/a", b"longer")
        assert (await self.only_finding()).kind is FindingKind.WRONG_SIZE

    async def test_wrong_content(self) -> None:
        """Other bytes of the same size are found by a deep check alone."""
        await self.change_bytes("/a", b"x")
        assert await self.findings() == []
        finding = await self.only_finding(deep=True)
        assert (finding.kind, finding.path) == (FindingKind.WRONG_CHECKSUM, "/a")
        assert self.backend.readers == set()

    async def test_unreadable(self) -> None:
        """A blob that can't be read is found and doesn't end the check."""
        self.backend.steps.fail("read", PeerUnavailable("input/output error"))
        assert (await self.only_finding(deep=True)).kind is FindingKind.UNREADABLE_BLOB
        assert self.backend.readers == set()

    async def test_elsewhere(self) -> None:
        """Files whose bytes another node holds are no findings: they are checked there."""
        self.backend.inner = MemoryBackend(now=self.now, name="localfs")
        assert await self.findings(instance_id="node-2") == []
        assert await self.findings(instance_id="node-2", deep=True) == []

    async def test_unnamed(self) -> None:
        """A blob without a name is found when its grace period is over."""
        await self.abandoned()
        assert await self.findings() == []
        self.advance(2 * HOUR_SECONDS)
        finding = await self.only_finding()
        assert (finding.kind, finding.path, finding.backend) == (FindingKind.UNNAMED_BLOB, None, "localfs")
        assert finding.blob_id in await self.blob_ids()

    async def test_store(self) -> None:
        """What the store finds wrong in itself is passed on."""

        class Broken:
            """A store that isn't well."""

            async def verify(self) -> list[str]:
                return ["the parent of /x is missing"]

        report = self.check(metadata=Broken()).store()
        assert [each.detail async for each in report if isinstance(each, Finding)] == [
            "the parent of /x is missing"
        ]

    async def test_progress(self) -> None:
        """Every part says how far it is, and ends at the whole."""

        async def last(report: AsyncIterator[object]) -> Progress:
            return [each async for each in report if isinstance(each, Progress)][-1]

        for deep in (False, True):
            check = self.check(deep=deep)
            assert await last(check.files()) == Progress(4, 4)
            assert await last(check.blobs()) == Progress(4, None)


class TestBesideADaemon(FsckCase):
    async def test_under_way(self) -> None:
        """Staged files, queued garbage and condemned blobs are no findings."""
        body = Feed()
        put = started(self.filesystem.put_file(ALICE, "/slow", upload(body)))
        body.give(b"half")
        await self.put("/a", b"new")
        await self.filesystem.remove(ALICE, "/b")
        await self.abandoned()
        self.advance(2 * HOUR_SECONDS)
        unnamed = await self.only_finding()
        self.backend.steps.fail("set_aside", OSError(30, "read-only"))
        assert await self.repair().set_aside([unnamed], judged=1) == []
        self.flushLoggedErrors(OSError)
        assert await self.findings() == []
        body.give(None)
        await put
        assert await self.findings(deep=True) == []

    async def test_replaced_after_its_page_was_read(self) -> None:
        """A file that is replaced while it is looked at is no finding, and a renamed one is found where it is."""
        old = await self.blob_id("/a")
        lost = await self.blob_id("/b")
        self.backend.steps.hold("open")
        arrival = self.backend.steps.arrival("open")
        report = self.check(deep=True).files()
        checking = started(_collected(report))
        await arrival
        await self.put("/a", b"new")
        await self.filesystem.move(ALICE, MoveRequest(source="/b", destination="/renamed"))
        await self.backend.inner.delete(old)
        await self.backend.inner.delete(lost)
        self.backend.steps.release("open")
        found = await checking
        assert [(each.kind, each.path) for each in found] == [(FindingKind.MISSING_BLOB, "/renamed")]
        await turns()

    async def test_removed_after_the_blobs_were_listed(self) -> None:
        """A blob that is removed and deleted between the look at the disk and the store's answer is no finding."""
        removed = await self.blob_id("/a")
        self.advance(2 * HOUR_SECONDS)
        self.store.steps.hold("named_blobs")
        arrival = self.store.steps.arrival("named_blobs")
        checking = started(_collected(self.check().blobs()))
        await arrival
        await self.filesystem.remove(ALICE, "/a")
        row = (await self.store.garbage(self.now(), "localfs", NODE))[0]
        await self.backend.delete(removed)
        await self.store.apply(DropGarbage(at=self.now(), ids=(row.id,)))
        self.store.steps.release("named_blobs")
        assert await checking == []


async def _collected(report: AsyncIterator[object]) -> list[Finding]:
    return [each async for each in report if isinstance(each, Finding)]


class TestRepair(FsckCase):
    async def test_set_aside_with_a_name(self) -> None:
        """Bytes that an older copy of the store had set aside aren't lost: they are found, and put back."""
        aside = await self.blob_id("/a")
        await self.backend.set_aside(aside)
        finding = await self.only_finding(deep=True)
        assert (finding.kind, finding.path) == (FindingKind.SET_ASIDE_BLOB, "/a")
        assert await self.repair().put_back() == [aside]
        assert await self.findings(deep=True) == []

    async def test_set_aside(self) -> None:
        """Unnamed blobs are taken out of sight, and only deleted by the janitor a week later."""
        await self.abandoned(2)
        self.advance(2 * HOUR_SECONDS)
        found = await self.findings()
        aside = await self.repair().set_aside(found, judged=6)
        assert sorted(aside) == sorted(str(each.blob_id) for each in found)
        assert await self.findings() == []
        assert await self.backend.inner.purge_set_aside(self.now() - int(HOUR_SECONDS)) == 0
        await self.nothing_left()

    async def test_named_meanwhile(self) -> None:
        """What has a name is never set aside, whatever the findings say."""
        named = Finding(
            kind=FindingKind.UNNAMED_BLOB, detail="", blob_id=await self.blob_id("/a"), backend="localfs"
        )
        assert await self.repair().set_aside([named], judged=100) == []
        assert await self.content("/a") == b"a"

    async def test_too_many(self) -> None:
        """When much looks unnamed nothing is set aside unless that is insisted on."""
        await self.abandoned(12)
        self.advance(2 * HOUR_SECONDS)
        found = await self.findings()
        with pytest.raises(TooManyUnnamed, match="12 of 16"):
            await self.repair().set_aside(found, judged=16)
        assert len(await self.findings()) == 12
        await self.repair().set_aside(found, judged=16, force=True)
        assert await self.findings() == []

    async def test_remove_file(self) -> None:
        """A file whose bytes are lost is removed when that is asked for."""
        await self.backend.inner.delete(await self.blob_id("/a"))
        finding = await self.only_finding()
        assert await self.repair().remove_file(finding)
        await self.refused(FileNotFound, self.filesystem.stat(ALICE, "/a"))
        assert not await self.repair().remove_file(finding)

    async def test_file_that_is_well_again(self) -> None:
        """A file that has other content by now, or is no file, isn't removed."""
        await self.backend.inner.delete(await self.blob_id("/a"))
        finding = await self.only_finding()
        await self.put("/a", b"new")
        assert not await self.repair().remove_file(finding)
        assert await self.content("/a") == b"new"
        assert not await self.repair().remove_file(Finding(kind=FindingKind.STORE, detail="", path="/d"))
        assert not await self.repair().remove_file(Finding(kind=FindingKind.UNNAMED_BLOB, detail=""))


class TestSeveralBackends(NodesCase):
    """fsck where S3 is there, and copies."""

    options = {"replica_backend": "s3", "require_replica_success": True}

    def check(self, name: str, *, s3: bool = True, deep: bool = False) -> ConsistencyCheck:
        """A check of one node."""
        backends = {"localfs": self.disks[name]} | ({"s3": self.s3} if s3 else {})
        return ConsistencyCheck(
            metadata=self.store,
            backends=backends,
            instance_id=name,
            now=self.now,
            deep=deep,  # type: ignore[arg-type]
        )

    async def found(self, name: str, **options: bool) -> list[tuple[FindingKind, str | None, str | None]]:
        """What a check of one node finds."""
        check = self.check(name, **options)
        return [
            (each.kind, each.path, each.backend)
            for report in (check.files(), check.blobs())
            async for each in report
            if isinstance(each, Finding)
        ]

    async def test_each_node_its_own_and_all_share_s3(self) -> None:
        """A lost or changed copy is found on the node that has it, one on S3 by every node that has S3."""
        for name in NODES:
            await self.put_at(name, f"/{name}", name.encode())
        for name in NODES:
            assert await self.found(name, deep=True) == []
        first = (await self.blob_of(f"/{NODE}")).copies()
        await self.disks[NODE].inner.delete(first[0].id)
        second = (await self.blob_of(f"/{SECOND}")).copies()
        await self.damage(self.s3, second[1].id, b"Node-2")
        on_s3 = (FindingKind.WRONG_CHECKSUM, f"/{SECOND}", "s3")
        lost = (FindingKind.MISSING_BLOB, f"/{NODE}", "localfs")
        assert set(await self.found(NODE, deep=True)) == {lost, on_s3}
        assert await self.found(SECOND, deep=True) == [on_s3]
        assert await self.found(SECOND, deep=True, s3=False) == []

    async def test_s3_is_listed(self) -> None:
        """Files in S3 cost no request each; one that isn't in the list as it should be is looked at by itself."""
        for number in range(40):
            await self.put_at(NODE, f"/d/{number:02}", b"%d" % number)
        before = self.s3.steps.passed["list_blobs"]
        assert await self.found(NODE) == []
        assert self.s3.steps.passed["stat"] == 0
        assert self.s3.steps.passed["list_blobs"] - before == 4
        lost, longer = (await self.on_s3("/d/17"), await self.on_s3("/d/23"))
        await self.s3.inner.delete(lost)
        await self.damage(self.s3, longer, b"longer than it was")
        expected = {(FindingKind.MISSING_BLOB, "/d/17", "s3"), (FindingKind.WRONG_SIZE, "/d/23", "s3")}
        assert set(await self.found(SECOND)) == expected
        assert self.s3.steps.passed["stat"] == 2

    async def test_what_leaves_s3_before_it_is_listed(self) -> None:
        """Removed since the store was asked: no finding; what is lost and was renamed has its new name."""
        for name in ("removed", "lost", "kept"):
            await self.put_at(NODE, f"/{name}", b"content", backend="s3")
        removed, lost = await self.on_s3("/removed"), await self.on_s3("/lost")
        self.s3.steps.hold("list_blobs")
        arrival = self.s3.steps.arrival("list_blobs")
        checking = started(_collected(self.check(NODE).files()))
        await arrival
        await self.filesystem.remove(ADMIN, "/removed")
        await self.filesystem.move(ADMIN, MoveRequest(source="/lost", destination="/renamed"))
        await self.s3.inner.delete(removed)
        await self.s3.inner.delete(lost)
        self.s3.steps.release("list_blobs")
        assert [(each.kind, each.path) for each in await checking] == [(FindingKind.MISSING_BLOB, "/renamed")]

    async def test_a_list_that_is_refused(self) -> None:
        """Nothing is said about files in S3 then: the check fails."""
        await self.put_at(NODE, "/f")
        self.s3.steps.fail("list_blobs", PeerUnavailable("silent"))
        await self.refused(PeerUnavailable, _collected(self.check(NODE).files()))

    async def on_s3(self, path: str) -> str:
        """The blob of a file there."""
        return next(copy.id for copy in (await self.blob_of(path)).copies() if copy.placement == S3)

    async def test_unnamed_on_s3(self) -> None:
        """A blob on S3 that nothing names is found when it is old enough."""
        self.store.steps.fail("PutFile", OutcomeUnknown("crash"))
        await self.refused(OutcomeUnknown, self.put_at(NODE, "/f"))
        self.advance(2 * HOUR_SECONDS)
        assert await self.found(SECOND) == [(FindingKind.UNNAMED_BLOB, None, "s3")]

    async def test_a_lost_copy_of_two(self) -> None:
        """Where there is another copy, removing what is lost takes the name of the lost one alone."""
        await self.put_at(NODE, "/f", b"content")
        copies = (await self.blob_of("/f")).copies()
        repair = Repair(metadata=self.store, backends={}, now=self.now, metrics=self.metrics)  # type: ignore[arg-type]
        finding = Finding(
            kind=FindingKind.MISSING_BLOB, detail="lost", path="/f", blob_id=copies[0].id, backend="localfs"
        )
        assert await repair.remove_file(finding)
        assert await self.places_of("/f") == [S3]
        assert await self.read_at(THIRD, "/f") == b"content"
        assert not await repair.remove_file(finding)
