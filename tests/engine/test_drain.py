"""Draining a node before it is taken away."""

from __future__ import annotations

import gc

from twisted.internet.defer import CancelledError

from callfs.engine.filesystem import DrainProgress, MoveRequest
from callfs.engine.presence import ALIVE_SECONDS
from callfs.errors import BadRequest, Conflict, InsufficientStorage, MetadataUnavailable
from callfs.metadata.commands import RegisterInstance
from callfs.model import Placement
from tests.support.engine import ADMIN, NODE, settled, started, turns
from tests.support.nodes import NODES, S3, SECOND, THIRD, NodesCase


class Crash(BaseException):
    """The process ends here."""


class DrainCase(NodesCase):
    """The second node is drained by the first."""

    files = 10

    async def setUp(self) -> None:
        await super().setUp()
        for number in range(self.files):
            await self.put_at(SECOND, f"/d/{number}", b"content %d" % number)
        await self.put_at(THIRD, "/third")
        await self.put_at(NODE, "/s3", backend="s3")

    async def drain(
        self, target: Placement | None, limit: int = 4, by: str = NODE, node: str = SECOND
    ) -> DrainProgress:
        """One whole pass; all of its batches together."""
        batches: list[DrainProgress] = []
        after: str | None = ""
        while after is not None:
            batches.append(await self.nodes[by].drain_batch(node, target, after, limit))
            after = batches[-1].after
        return DrainProgress(
            moved=sum(batch.moved for batch in batches),
            bytes=sum(batch.bytes for batch in batches),
            skipped=sum(batch.skipped for batch in batches),
            failed=tuple(failed for batch in batches for failed in batch.failed),
            after=None,
        )

    async def empty(self, node: str = SECOND) -> None:
        """Check that nothing is named on the node any more, and every file is readable without it."""
        assert await self.store.list_blobs("", 1000, node) == []
        self.network.down.add(node)
        for number in range(self.files):
            reader = next(name for name in NODES if name != node)
            assert await self.read_at(reader, f"/d/{number}") == b"content %d" % number
        await self.all_named()


class TestDrain(DrainCase):
    async def test_to_s3(self) -> None:
        """All that is on the node goes to S3, nothing else anywhere; in batches that count what they do."""
        first = await self.filesystem.drain_batch(SECOND, S3, "", 4)
        assert (first.moved, first.bytes, first.skipped, first.failed) == (4, 36, 0, ())
        assert first.after is not None
        rest = await self.drain(S3)
        assert rest.moved == self.files - 4
        await self.empty()
        assert await self.places_of("/third") == [self.on(THIRD)]
        assert await self.drain(S3) == DrainProgress(0, 0, 0, (), None)
        assert self.kicks

    async def test_to_another_node(self) -> None:
        """All goes to the node that is named, whichever node does it, the drained one included."""
        done = await self.drain(self.on(THIRD), by=SECOND)
        assert done.moved == self.files
        await self.empty()
        assert {tuple(await self.places_of(f"/d/{number}")) for number in range(self.files)} == {(self.on(THIRD),)}

    async def test_spread(self) -> None:
        """Without a target the other nodes share what there is; one that is full or down is left out."""
        for number in range(20):
            await self.put_at(SECOND, f"/more/{number}")
        self.disks[THIRD].steps.fail("stage", InsufficientStorage("full"))
        done = await self.drain(None)
        assert (done.moved, done.failed) == (self.files + 20, ())
        assert len(await self.ids_at(self.disks[NODE])) > 5
        assert len(await self.ids_at(self.disks[THIRD])) > 5
        await self.empty()

    async def test_one_of_the_others_is_down(self) -> None:
        """What a node that is down would have got goes to another one."""
        self.network.down.add(THIRD)
        done = await self.drain(None)
        assert (done.moved, done.failed) == (self.files, ())
        assert len(await self.ids_at(self.disks[NODE])) == self.files

    async def test_of_all_users_and_names(self) -> None:
        """Whoever owns a file, and whatever it is called by now."""
        page = await self.store.list_blobs("", 1000, SECOND)
        await self.filesystem.move(ADMIN, _rename(page[0][1], "/renamed"))
        assert (await self.drain(S3)).moved == self.files
        assert await self.places_of("/renamed") == [S3]

    async def test_wrong_targets(self) -> None:
        """The node itself, nodes that nobody knows, S3 where there is none: refused."""
        for target in (self.on(SECOND), self.on("node-9")):
            await self.refused(BadRequest, self.filesystem.drain_batch(SECOND, target))
        without = self.make_node(THIRD, backends={"localfs": self.disks[THIRD]})
        await self.refused(BadRequest, without.drain_batch(SECOND, S3))
        for name in (NODE, THIRD):
            del self.network.disks[name]
        await self.refused(BadRequest, self.filesystem.drain_batch(SECOND, None))

    async def test_unknown_node(self) -> None:
        """A node that nobody knows is a mistake, unless files have copies there; with nothing on it, it is done."""
        await self.refused(BadRequest, self.filesystem.drain_batch("node-9", S3))
        del self.network.disks[SECOND]
        assert len((await self.drain(S3)).failed) == self.files
        assert (await self.drain(S3, node=NODE, by=THIRD)).moved == 0

    async def test_store_down(self) -> None:
        """Without a store nothing happens, and that is said."""
        self.store.steps.fail("Relocate", *[MetadataUnavailable("the store is down")] * self.files)
        done = await self.drain(S3)
        assert len(done.failed) == self.files
        assert {reason for _, reason in done.failed} == {"the store is down"}
        assert await self.ids_at(self.s3) == [(await self.blob_of("/s3")).id]


class TestFaults(DrainCase):
    async def test_some_fail(self) -> None:
        """What can't be relocated is named with path and reason; the rest goes; the next pass tries again."""
        self.s3.steps.fail(
            "commit", None, InsufficientStorage("the bucket is full"), OSError(5, "input/output error")
        )
        done = await self.drain(S3)
        self.flushLoggedErrors(OSError)
        assert done.moved == self.files - 2
        assert {reason for _, reason in done.failed} == {"the bucket is full", "an internal error: OSError"}
        for path, _ in done.failed:
            assert await self.places_of(path) == [self.on(SECOND)]
        assert (await self.drain(S3)).moved == 2
        await self.empty()

    async def test_lost_bytes(self) -> None:
        """A file whose bytes are lost, or have changed, is reported, not moved."""
        await self.disks[SECOND].inner.delete((await self.blob_of("/d/1")).id)
        await self.damage(self.disks[SECOND], (await self.blob_of("/d/2")).id, b"CONTENT 2")
        done = await self.drain(S3)
        assert {path for path, _ in done.failed} == {"/d/1", "/d/2"}
        assert done.moved == self.files - 2

    async def test_node_is_down(self) -> None:
        """Of a node that is down nothing can be drained that isn't elsewhere."""
        self.network.down.add(SECOND)
        done = await self.drain(S3)
        assert len(done.failed) == self.files
        assert done.moved == 0

    async def test_target_is_down(self) -> None:
        """A target that is down takes nothing."""
        self.network.down.add(THIRD)
        done = await self.drain(self.on(THIRD))
        assert len(done.failed) == self.files
        await self.all_named()

    async def test_replaced_removed_and_renamed_meanwhile(self) -> None:
        """New content of a file is drained instead; a file that has gone is skipped; a renamed one is found."""
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        draining = started(self.filesystem.drain_batch(SECOND, S3, "", 100))
        await arrival
        page = await self.store.list_blobs("", 1000, SECOND)
        replaced, removed, renamed = (page[index][1] for index in (0, 1, 9))
        await self.put_at(NODE, replaced, b"newer")
        await self.filesystem.remove(ADMIN, removed)
        await self.filesystem.move(ADMIN, _rename(renamed, "/renamed"))
        self.s3.steps.release("commit")
        done = await draining
        assert (done.moved, done.skipped, done.failed) == (self.files - 1, 1, ())
        assert await self.read_at(NODE, replaced) == b"newer"
        assert await self.places_of(replaced) == await self.places_of("/renamed") == [S3]
        await self.all_named()

    async def test_client_gone(self) -> None:
        """Whoever drains and goes away leaves nothing half done, and nothing more is begun."""
        self.s3.steps.hold("write")
        arrival, stages = self.s3.steps.arrival("write"), self.s3.steps.passed["stage"]
        draining = started(self.filesystem.drain_batch(SECOND, S3, "", 100))
        await arrival
        begun = self.s3.steps.passed["stage"]
        assert stages < begun < stages + self.files
        draining.cancel()
        await self.refused(CancelledError, draining)
        self.s3.steps.release("write")
        await settled(lambda: not self.s3.stages)
        await turns()
        assert self.s3.steps.passed["stage"] == begun
        assert len(await self.store.list_blobs("", 1000, SECOND)) == self.files
        await self.all_named()

    async def test_resumed_after_a_crash(self) -> None:
        """A process that ends in the middle loses nothing: another one goes on, also from the same place."""

        def crash(point: str) -> None:
            if point == "relocate.copied" and len(self.reached) > 20:
                raise Crash

        self.at_point = crash
        dying = started(self.drain(S3))
        dying.addErrback(lambda failure: None)
        await dying
        gc.collect()
        self.flushLoggedErrors(Crash)
        self.at_point = lambda _: None
        for number in range(self.files):
            assert await self.read_at(THIRD, f"/d/{number}") == b"content %d" % number
        done = await self.drain(S3, by=THIRD)
        assert done.failed == ()
        assert await self.store.list_blobs("", 1000, SECOND) == []


class TestCopies(DrainCase):
    """With second copies on S3."""

    options = {"replica_backend": "s3", "require_replica_success": True}

    async def test_node_is_down(self) -> None:
        """What has a second copy elsewhere is drained though the node is down: to another node, or to that copy."""
        self.network.down.add(SECOND)
        first = await self.filesystem.drain_batch(SECOND, self.on(THIRD), "", 4)
        assert (first.moved, first.bytes) == (4, 36)
        rest = await self.drain(S3)
        assert (rest.moved, rest.bytes) == (self.files - 4, 0)
        places = [await self.places_of(f"/d/{number}") for number in range(self.files)]
        assert sorted(map(len, places)) == [1] * (self.files - 4) + [2] * 4
        assert [self.on(THIRD), S3] in places
        await self.empty()

    async def test_second_copies(self) -> None:
        """Second copies on the node go as well, and stay second copies; the first ones stay where they are."""
        self.options = {"replica_backend": "localfs", "require_replica_success": True}
        for name in NODES:
            self.nodes[name] = self.make_node(name)
        await self.put_at(SECOND, "/second", backend="s3")
        assert await self.places_of("/second") == [S3, self.on(SECOND)]
        assert (await self.drain(self.on(THIRD))).failed == ()
        assert await self.places_of("/second") == [S3, self.on(THIRD)]
        await self.empty()

    async def test_second_copies_to_where_the_first_is(self) -> None:
        """A second copy whose target has the first isn't needed there; another is ordered elsewhere."""
        self.options = {"replica_backend": "localfs", "require_replica_success": True}
        for name in NODES:
            self.nodes[name] = self.make_node(name)
        await self.put_at(SECOND, "/second", backend="s3")
        for by in (NODE, SECOND):
            await self.drain(S3, by=by)
            await self.put_at(SECOND, f"/by {by}", backend="s3")
        assert await self.places_of("/second") == [S3]
        backlog = {each.by: each.waiting for each in await self.store.replication_backlog()}
        assert NODE in backlog
        assert SECOND not in backlog


class TestQueue(DrainCase):
    """With second copies that are still to be made."""

    options = {"replica_backend": "localfs"}

    async def waiting(self) -> dict[str, int]:
        """How many second copies each node has to make."""
        return {each.by: each.waiting for each in await self.store.replication_backlog()}

    async def test_handed_over(self) -> None:
        """What the node was to copy to its disk another one copies to its own."""
        for number in range(5):
            await self.put_at(SECOND, f"/shared/{number}", backend="s3")
        before = await self.waiting()
        await self.drain(S3)
        after = await self.waiting()
        assert before[SECOND] == 5
        assert SECOND not in after
        self.make_replicator(NODE).startService()
        while await self.waiting():
            await turns(1)
        assert await self.places_of("/shared/0") == [S3, self.on(NODE)]


class TestForget(DrainCase):
    async def setUp(self) -> None:
        await super().setUp()
        for name in NODES:
            await self.store.apply(
                RegisterInstance(at=1, instance_id=name, root_id=None, api_endpoint=f"https://{name}.example")
            )

    async def test_after_the_drain(self) -> None:
        """A node can be forgotten when no file has a copy there; what was to be deleted there is forgotten, too."""
        await self.refused(Conflict, self.filesystem.forget_instance(SECOND))
        await self.drain(S3)
        assert await self.filesystem.forget_instance(SECOND) == self.files
        assert {each.id for each in await self.store.instances()} == {NODE, THIRD}
        assert await self.filesystem.forget_instance(SECOND) == 0
        assert await self.read_at(THIRD, "/d/1") == b"content 1"

    async def test_a_node_that_runs(self) -> None:
        """It would be back with its next heartbeat: refused until it is silent for a minute, unless forced."""
        await self.drain(S3)
        await self.drain(S3, node=THIRD)
        for name, ahead_seconds in ((SECOND, 0), (THIRD, 5)):
            at = self.now() + ahead_seconds * 1_000_000
            await self.store.apply(
                RegisterInstance(at=at, instance_id=name, root_id=None, api_endpoint=f"https://{name}.example")
            )
        self.advance(7)
        refusal = await self.refused(Conflict, self.filesystem.forget_instance(SECOND))
        assert "node-2 gave a sign of life 7 s ago" in refusal.message
        await self.refused(Conflict, self.filesystem.forget_instance(THIRD))
        assert {each.id for each in await self.store.instances()} == set(NODES)
        self.advance(ALIVE_SECONDS - 7)
        assert await self.filesystem.forget_instance(SECOND) == self.files
        await self.refused(Conflict, self.filesystem.forget_instance(THIRD))
        await self.filesystem.forget_instance(THIRD, although_alive=True)
        assert [each.id for each in await self.store.instances()] == [NODE]

    async def test_itself(self) -> None:
        """A node doesn't forget itself: it would be back with its next heartbeat."""
        await self.refused(BadRequest, self.filesystem.forget_instance(NODE))


def _rename(source: str, destination: str) -> MoveRequest:
    return MoveRequest(source=source, destination=destination)
