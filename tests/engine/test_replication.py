"""Second copies: made by the write itself, or in the background from the durable queue."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import FirstError

from callfs.engine.filesystem import ExpectedDigest
from callfs.engine.janitor import Janitor
from callfs.engine.replication import (
    FIRST_RETRY_SECONDS,
    HASTY_PAGE,
    INTERVAL_SECONDS,
    KICK_SECONDS,
    LAST_RETRY_SECONDS,
    REPORT_SECONDS,
    Replicator,
    retry_seconds,
)
from callfs.engine.settings import JanitorSettings
from callfs.errors import (
    ChecksumMismatch,
    Conflict,
    InsufficientStorage,
    InternalError,
    MetadataUnavailable,
    OutcomeUnknown,
    PeerUnavailable,
)
from callfs.metadata.commands import PostponeReplication
from callfs.metadata.interfaces import ReplicationBacklog
from tests.support.engine import ALICE, NODE, Feed, chunks, settled, started, turns, upload
from tests.support.nodes import NODES, S3, SECOND, THIRD, NodesCase


class Crash(BaseException):
    """The process ends here."""


class TestRequired(NodesCase):
    """ha.require_replica_success."""

    options = {"replica_backend": "s3", "require_replica_success": True}

    async def test_both(self) -> None:
        """A write makes both copies, each with an id of its own and the same content, and orders none."""
        await self.put_at(NODE, "/f", b"content")
        first, second = (await self.blob_of("/f")).copies()
        assert (first.placement, second.placement) == (self.on(NODE), S3)
        assert first.id != second.id
        assert (first.size, first.sha256) == (second.size, second.sha256)
        assert await self.store.replication_backlog() == []
        assert await self.ids_at(self.s3) == [second.id]
        assert self.ordered == 0

    async def test_replaced_and_removed(self) -> None:
        """Overwriting makes both anew and both old ones garbage; so does removing."""
        await self.put_at(NODE, "/f", b"one")
        await self.put_at(THIRD, "/f", b"two")
        assert await self.places_of("/f") == [self.on(NODE), S3]
        assert (await self.store.statistics()).garbage == 2
        await self.filesystem.remove(ALICE, "/f")
        assert (await self.store.statistics()).garbage == 4

    async def test_same_backend(self) -> None:
        """Of a file on S3 there is no second copy on S3."""
        await self.put_at(NODE, "/f", backend="s3")
        assert await self.places_of("/f") == [S3]
        assert await self.store.replication_backlog() == []

    async def test_on_local_disk(self) -> None:
        """Of a file on S3 the copy can be on the disk of the node that writes."""
        self.nodes[SECOND] = self.make_node(SECOND, settings=self.settings(SECOND, replica_backend="localfs"))
        await self.put_at(SECOND, "/f", backend="s3")
        assert await self.places_of("/f") == [S3, self.on(SECOND)]
        assert await self.read_at(THIRD, "/f") == b"content"

    async def fails(self, error: type[Exception], **options: Any) -> None:
        """The write fails whole: the old content stays, nothing else is anywhere."""
        body = options.pop("body", chunks(b"new ", b"content"))
        await self.refused(error, self.filesystem.put_file(ALICE, "/f", upload(body, **options)))
        assert await self.read_at(SECOND, "/f") == b"old"
        await self.all_named()

    async def test_faults(self) -> None:
        """Whatever fails in one of the places, at whatever step, fails the write, and leaves nothing in either."""
        await self.put_at(NODE, "/f", b"old")
        for place in (self.backend, self.s3):
            for step in ("stage", "write", "commit"):
                place.steps.fail(step, InsufficientStorage("full"))
                await self.fails(InsufficientStorage)
        self.s3.steps.fail("commit", OSError(5, "input/output error"))
        await self.fails(OSError)
        await self.fails(ConnectionError, body=chunks(b"half", ConnectionError("gone")))
        await self.fails(ChecksumMismatch, digests=(ExpectedDigest("sha512", b"x" * 64),))
        for refusal in (MetadataUnavailable("down"), Conflict("condemned")):
            self.store.steps.fail("PutFile", refusal)
            await self.fails(type(refusal))

    async def test_copies_that_differ(self) -> None:
        """Two copies that aren't the same are none."""
        await self.put_at(NODE, "/f", b"old")

        def lose(point: str) -> None:
            if point == "write.body_complete":
                for stage in self.s3.stages:
                    started(_more(stage))

        self.at_point = lose
        await self.fails(InternalError)

    async def test_both_fail(self) -> None:
        """With both places failing the first one's error is the answer."""
        await self.put_at(NODE, "/f", b"old")
        self.backend.steps.fail("commit", InsufficientStorage("full"))
        self.s3.steps.fail("commit", PeerUnavailable("gone"))
        await self.fails(InsufficientStorage)

    async def test_back_pressure(self) -> None:
        """No further piece is asked for before both places have taken the one before it."""
        body = Feed()
        self.s3.steps.hold("write")
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"1")
        body.give(b"2")
        assert body.asked == 1
        self.s3.steps.release("write")
        assert body.asked == 3
        body.give(None)
        await write
        assert await self.read_at(SECOND, "/f") == b"12"

    async def test_without_s3(self) -> None:
        """A node that can't reach the place of the second copy can't write."""
        self.nodes[NODE] = self.make_node(NODE, backends={"localfs": self.backend})
        await self.refused(PeerUnavailable, self.put_at(NODE, "/f"))
        await self.all_named()

    async def test_moved_meanwhile(self) -> None:
        """New content follows a file that moves during the body; the copy that is right already stays."""
        await self.put_at(NODE, "/f", b"old")
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"new")
        await self.move_at(SECOND, "/f", "/f", instance=THIRD)
        before = self.s3.steps.passed["stage"]
        body.give(None)
        await write
        assert self.s3.steps.passed["stage"] == before
        assert await self.places_of("/f") == [self.on(THIRD), S3]
        assert await self.read_at(NODE, "/f") == b"new"
        await self.all_named()

    async def test_moved_to_the_second_copy_s_backend(self) -> None:
        """When the file has moved to where the second copy is that one is the first, and no other is wanted."""
        await self.put_at(NODE, "/f", b"old")
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"new")
        await self.move_at(SECOND, "/f", "/f", backend="s3")
        body.give(None)
        await write
        assert await self.places_of("/f") == [S3]
        assert await self.read_at(NODE, "/f") == b"new"
        await self.all_named()

    async def test_outcome_unknown(self) -> None:
        """When nobody knows whether the command happened neither copy is touched."""
        self.store.steps.fail("applied PutFile", OutcomeUnknown("lost"))
        await self.refused(OutcomeUnknown, self.put_at(NODE, "/f"))
        assert await self.read_at(SECOND, "/f") == b"content"
        assert await self.places_of("/f") == [self.on(NODE), S3]

    async def test_relocated(self) -> None:
        """Relocation keeps the second copy; to where it is it becomes the first, and stays behind as the second."""
        await self.put_at(NODE, "/f")
        replica = (await self.blob_of("/f")).replicas[0]
        await self.move_at(NODE, "/f", "/f", instance=THIRD)
        assert await self.places_of("/f") == [self.on(THIRD), S3]
        await self.move_at(NODE, "/f", "/f", backend="s3")
        assert (await self.blob_of("/f")).copies() == (replica,)
        await self.move_at(NODE, "/f", "/f", instance=SECOND)
        assert await self.places_of("/f") == [self.on(SECOND), S3]
        assert (await self.blob_of("/f")).replicas == (replica,)
        assert await self.ids_at(self.s3) == [replica.id]
        await self.all_named()

    async def test_a_second_copy_is_not_trusted_unread(self) -> None:
        """A second copy that has changed doesn't become the first: it is made anew from the one that is whole."""
        await self.put_at(NODE, "/f", b"content")
        replica = (await self.blob_of("/f")).replicas[0]
        await self.damage(self.s3, replica.id, b"CONTENT")
        await self.move_at(NODE, "/f", "/f", backend="s3")
        assert await self.places_of("/f") == [S3]
        assert (await self.blob_of("/f")).id != replica.id
        assert await self.read_at(THIRD, "/f") == b"content"
        assert self.metrics.of["error", "engine", "blob_checksum_mismatch"] == 1

    async def test_copied_from_the_whole_copy(self) -> None:
        """Of two copies of which one has changed the other one is copied."""
        await self.put_at(NODE, "/f", b"content")
        await self.damage(self.backend, (await self.blob_of("/f")).id, b"CONTENT")
        await self.move_at(NODE, "/f", "/f", instance=THIRD)
        assert await self.read_at(THIRD, "/f") == b"content"
        assert await self.places_of("/f") == [self.on(THIRD), S3]


async def _more(stage: Any) -> None:
    await stage.write(b"more")


class BackgroundCase(NodesCase):
    """Second copies on S3, made by the worker of the node that has the first."""

    options = {"replica_backend": "s3"}

    async def setUp(self) -> None:
        await super().setUp()
        self.replicator = self.make_replicator()

    def _ordered(self) -> None:
        super()._ordered()
        self.replicator.kick()

    async def stopped(self, replicator: Replicator) -> None:
        """Stop."""
        await replicator.stopService()

    async def backlog(self) -> list[ReplicationBacklog]:
        """What waits."""
        return list(await self.store.replication_backlog())

    async def copied(self, *paths: str) -> None:
        """Wait until files have their second copy and nothing waits."""
        await settled(lambda: self.metrics.of["replicated", "made"] >= len(paths))
        while await self.backlog():
            await turns(1)
        for path in paths:
            assert await self.places_of(path) == [self.on(NODE), S3]


class TestBackground(BackgroundCase):
    async def test_ordered_with_the_write(self) -> None:
        """The order is there as soon as the file is, for the node with the first copy, whoever got the write."""
        await self.put_at(SECOND, "/f")
        await self.put_at(NODE, "/f", b"newer")
        assert await self.places_of("/f") == [self.on(SECOND)]
        (backlog,) = await self.backlog()
        assert (backlog.by, backlog.waiting, backlog.failing) == (SECOND, 1, 0)

    async def test_made_at_start(self) -> None:
        """What an earlier process left is made at once, and readable when the node of the first copy is down."""
        for number in range(5):
            await self.put_at(NODE, f"/{number}", b"content %d" % number)
        self.replicator.startService()
        await self.copied(*(f"/{number}" for number in range(5)))
        self.network.down.add(NODE)
        assert await self.read_at(THIRD, "/3") == b"content 3"
        assert self.metrics.of["replicated", "failed"] == 0
        await self.all_named()

    async def test_kicked(self) -> None:
        """A write has its copy made shortly after, without waiting for the next turn."""
        self.replicator.startService()
        await turns()
        await self.put_at(NODE, "/f")
        await turns()
        assert await self.places_of("/f") == [self.on(NODE)]
        self.advance(KICK_SECONDS)
        await self.copied("/f")

    async def test_by_the_clock(self) -> None:
        """What another node's write ordered is found at the next turn."""
        self.replicator.startService()
        await self.put_at(NODE, "/f", b"old")
        self.advance(KICK_SECONDS)
        await self.copied("/f")
        self.nodes[SECOND] = self.make_node(SECOND, copies_ordered=lambda: None)
        await self.put_at(SECOND, "/f", b"new")
        self.advance(INTERVAL_SECONDS)
        await settled(lambda: self.metrics.of["replicated", "made"] == 2)
        await self.copied("/f")

    async def test_from_s3_to_the_local_disk(self) -> None:
        """Of files on S3 the copy goes to the disk of the node that wrote them, which makes it."""
        self.options = {"replica_backend": "localfs"}
        self.nodes[SECOND] = self.make_node(SECOND)
        await self.put_at(SECOND, "/f", backend="s3")
        (backlog,) = await self.backlog()
        assert backlog.by == SECOND
        self.make_replicator(SECOND).startService()
        await settled(lambda: self.counts[SECOND].of["replicated", "made"] == 1)
        assert await self.places_of("/f") == [S3, self.on(SECOND)]
        await self.put_at(SECOND, "/local", backend="localfs")
        assert await self.backlog() == []

    async def test_of_other_nodes(self) -> None:
        """A node makes its own copies alone."""
        await self.put_at(SECOND, "/f")
        self.replicator.startService()
        self.advance(INTERVAL_SECONDS)
        await settled(lambda: self.metrics.backlog is not None)
        await turns()
        assert await self.places_of("/f") == [self.on(SECOND)]
        assert self.metrics.backlog == (0, 0, 0.0)

    async def test_replaced_before(self) -> None:
        """Content that is replaced before its copy is made is forgotten; the new one is copied."""
        await self.put_at(NODE, "/f", b"old")
        await self.put_at(NODE, "/f", b"new")
        assert [backlog.waiting for backlog in await self.backlog()] == [1]
        self.replicator.startService()
        await self.copied("/f")
        self.network.down.add(NODE)
        assert await self.read_at(THIRD, "/f") == b"new"

    async def test_replaced_meanwhile(self) -> None:
        """Content that is replaced while it is copied: the stale copy goes, and the new content is copied."""
        await self.put_at(NODE, "/f", b"old")
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        self.replicator.startService()
        await arrival
        await self.put_at(NODE, "/f", b"new")
        self.s3.steps.release("commit")
        self.advance(KICK_SECONDS)
        await self.copied("/f")
        assert len(await self.ids_at(self.s3)) == 1
        await self.all_named()

    async def test_removed_meanwhile(self) -> None:
        """A file that is removed while it is copied leaves no copy and no order."""
        await self.put_at(NODE, "/f", b"old")
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        self.replicator.startService()
        await arrival
        await self.filesystem.remove(ALICE, "/f")
        self.s3.steps.release("commit")
        await turns()
        assert await self.ids_at(self.s3) == []
        assert await self.backlog() == []
        assert self.metrics.of["replicated", "failed"] == 0

    async def test_overwrites_and_deletes_reach_the_copy(self) -> None:
        """The copies of replaced and removed content are deleted on S3 by any node's janitor."""
        await self.put_at(NODE, "/f", b"old")
        self.replicator.startService()
        await self.copied("/f")
        await self.put_at(SECOND, "/f", b"new")
        await self.filesystem.remove(ALICE, "/f")
        janitor = Janitor(
            metadata=self.store,
            backends={"localfs": self.disks[THIRD], "s3": self.s3},
            settings=JanitorSettings(instance_id=THIRD),
            now=self.now,
            clock=self.clock,
            metrics=self.counts[THIRD],
            locks=self.locks,
        )
        self.addCleanup(lambda: janitor.stopService())
        janitor.startService()
        await turns()
        assert len(await self.ids_at(self.s3)) == 1
        self.advance(3601)
        await settled(lambda: self.counts[THIRD].of["garbage_deleted", "s3"] == 1)
        assert await self.ids_at(self.s3) == []


class TestTriedAgain(BackgroundCase):
    async def test_until_done(self) -> None:
        """A copy that can't be made is tried again, later and later, until it is made; metrics show it."""
        await self.put_at(NODE, "/f")
        self.s3.steps.fail("commit", *[PeerUnavailable("s3 is down")] * 3)
        self.replicator.startService()
        for failures in (1, 2, 3):
            await settled(lambda failures=failures: self.metrics.of["replicated", "failed"] == failures)
            await settled(lambda: self.metrics.backlog is not None and self.metrics.backlog[:2] == (1, 1))
            assert await self.places_of("/f") == [self.on(NODE)]
            before = self.s3.steps.passed["commit"]
            self.advance(FIRST_RETRY_SECONDS * 2 ** (failures - 1) - 0.5)
            await turns()
            assert self.s3.steps.passed["commit"] == before
            self.advance(INTERVAL_SECONDS)
        await self.copied("/f")
        await settled(lambda: self.metrics.backlog == (0, 0, 0.0))
        await self.all_named()

    async def test_age(self) -> None:
        """While a copy can't be made its age is counted up, about every minute also when nothing else happens."""
        await self.put_at(NODE, "/f")
        self.s3.steps.fail("stage", *[PeerUnavailable("s3 is down")] * 100)
        self.replicator.startService()
        await settled(lambda: self.metrics.backlog is not None)
        for _ in range(20):
            await turns(2)
            self.advance(INTERVAL_SECONDS)
        await settled(lambda: self.metrics.backlog[2] >= 20 * INTERVAL_SECONDS - 2 * REPORT_SECONDS)
        assert self.metrics.backlog[:2] == (1, 1)

    async def test_back_off(self) -> None:
        """The waits double up to a limit."""
        waits = [retry_seconds(attempts) for attempts in range(12)]
        assert waits[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
        assert waits[-1] == retry_seconds(10_000) == LAST_RETRY_SECONDS

    async def postponed(self, count: int) -> None:
        """So many files whose copies have failed so often that they wait for minutes; the worker runs."""
        for number in range(count):
            await self.put_at(NODE, f"/{number}")
        due_at = self.now() + int(LAST_RETRY_SECONDS * 1_000_000)
        for entry in await self.store.replications(self.now(), NODE):
            for _ in range(8):
                await self.store.apply(PostponeReplication(at=self.now(), blob_id=entry.blob_id, due_at=due_at))
        self.replicator.startService()
        await turns()
        assert [(each.waiting, each.failing) for each in await self.backlog()] == [(count, count)]

    async def test_hurried(self) -> None:
        """When S3 is back all that waits is copied at once, a few at a time, not when each is due."""
        await self.postponed(10)
        self.s3.steps.hold("stage")
        arrival = self.s3.steps.arrival("stage")
        before = self.s3.steps.passed["stage"]
        self.replicator.hurry()
        self.replicator.hurry()
        self.advance(KICK_SECONDS)
        await arrival
        await turns()
        assert 0 < self.s3.steps.passed["stage"] - before <= HASTY_PAGE
        self.s3.steps.release("stage")
        await self.copied(*(f"/{number}" for number in range(10)))
        await settled(lambda: self.metrics.backlog == (0, 0, 0.0))

    async def test_hurried_in_vain(self) -> None:
        """If it fails again only a few copies have been tried, and not more often than the queue is looked at."""
        await self.postponed(10)
        self.s3.steps.fail("commit", *[PeerUnavailable("s3 is down")] * 100)
        for expected in (HASTY_PAGE, 2 * HASTY_PAGE):
            self.replicator.hurry()
            self.advance(KICK_SECONDS)
            await settled(lambda expected=expected: self.metrics.of["replicated", "failed"] == expected)
            self.replicator.hurry()
            self.advance(INTERVAL_SECONDS / 2)
            await turns()
            assert self.metrics.of["replicated", "failed"] == expected
            self.advance(INTERVAL_SECONDS / 2 - KICK_SECONDS)
        await self.all_named()

    async def test_hurried_past_one_that_stays(self) -> None:
        """A copy that can't be made for a reason of its own doesn't keep the others waiting."""
        await self.postponed(10)
        await self.backend.inner.delete((await self.blob_of("/0")).id)
        self.replicator.hurry()
        self.advance(KICK_SECONDS)
        await settled(lambda: self.metrics.of["replicated", "made"] == 9)
        await settled(lambda: self.metrics.backlog is not None and self.metrics.backlog[:2] == (1, 1))
        assert self.metrics.of["replicated", "failed"] == 1

    async def test_survives_a_restart(self) -> None:
        """What failed is remembered in the store: another process goes on with it, not before it is due."""
        await self.put_at(NODE, "/f")
        self.s3.steps.fail("write", PeerUnavailable("s3 is down"))
        self.replicator.startService()
        await settled(lambda: self.metrics.of["replicated", "failed"] == 1)
        await self.replicator.stopService()
        again = self.make_replicator()
        again.startService()
        await turns()
        assert await self.places_of("/f") == [self.on(NODE)]
        self.advance(INTERVAL_SECONDS)
        await self.copied("/f")

    async def test_one_does_not_stop_the_others(self) -> None:
        """A file whose bytes are lost is tried again by itself; the others get their copies."""
        for number in range(6):
            await self.put_at(NODE, f"/{number}")
        await self.backend.inner.delete((await self.blob_of("/0")).id)
        self.replicator.startService()
        await settled(lambda: self.metrics.of["replicated", "made"] == 5)
        assert self.metrics.of["replicated", "failed"] == 1
        (backlog,) = await self.backlog()
        assert (backlog.waiting, backlog.failing) == (1, 1)

    async def test_changed_bytes_are_not_spread(self) -> None:
        """Bytes that have changed on the disk don't become a second copy."""
        await self.put_at(NODE, "/f", b"content")
        await self.damage(self.backend, (await self.blob_of("/f")).id, b"CONTENT")
        self.replicator.startService()
        await settled(lambda: self.metrics.of["replicated", "failed"] == 1)
        assert self.metrics.of["error", "engine", "blob_checksum_mismatch"] == 1
        assert await self.ids_at(self.s3) == []

    async def test_store_down(self) -> None:
        """A store that doesn't answer loses nothing: neither at the switch, nor when the failure can't be noted."""
        await self.put_at(NODE, "/f")
        self.store.steps.fail("Relocate", MetadataUnavailable("down"))
        self.store.steps.fail("PostponeReplication", MetadataUnavailable("down"))
        self.replicator.startService()
        await settled(lambda: self.metrics.of["error", "replication", "MetadataUnavailable"] == 1)
        assert await self.ids_at(self.s3) == []
        await turns()
        self.advance(INTERVAL_SECONDS)
        await self.copied("/f")
        await self.all_named()

    async def test_store_lost_in_the_middle(self) -> None:
        """A change of which nobody knows whether it was applied is met again, without a fault in the log."""
        await self.put_at(NODE, "/f")
        self.store.steps.fail("Relocate", MetadataUnavailable("down"))
        self.store.steps.fail("applied PostponeReplication", OutcomeUnknown("lost"))
        self.replicator.startService()
        await settled(lambda: self.metrics.of["error", "replication", "OutcomeUnknown"] == 1)
        self.advance(LAST_RETRY_SECONDS)
        await self.copied("/f")
        await self.all_named()

    async def test_crash_between_copy_and_name(self) -> None:
        """A process that ends between copy and name leaves the order in the queue; the next one makes the copy."""
        await self.put_at(NODE, "/f")
        crashes: list[str] = []

        def crash(point: str) -> None:
            if point == "relocate.copied":
                crashes.append(point)
                raise Crash

        self.at_point = crash
        dying = Replicator(**self.parts_of(NODE), metrics=self.metrics)
        dying.startService()
        await settled(lambda: bool(crashes))
        await turns()
        await self.stopped(dying)
        assert len(self.flushLoggedErrors(FirstError)) == 1
        self.at_point = lambda _: None
        assert await self.places_of("/f") == [self.on(NODE)]
        assert len(await self.backlog()) == 1
        self.replicator.startService()
        await self.copied("/f")
        assert len(await self.ids_at(self.s3)) == 2


class TestStop(BackgroundCase):
    async def test_breaks_copies_off(self) -> None:
        """Stopping breaks off what is being copied; nothing is left of it, and the order stays as it was."""
        await self.put_at(NODE, "/f")
        self.s3.steps.hold("write")
        arrival = self.s3.steps.arrival("write")
        self.replicator.startService()
        await arrival
        await self.stopped(self.replicator)
        self.s3.steps.release("write")
        assert [(backlog.waiting, backlog.failing) for backlog in await self.backlog()] == [(1, 0)]
        await self.all_named()
        self.replicator.kick()
        self.replicator.hurry()
        self.advance(3600)
        assert await self.places_of("/f") == [self.on(NODE)]
        assert self.clock.getDelayedCalls() == []

    async def test_while_in_a_hurry(self) -> None:
        """What was to be tried soon isn't tried any more."""
        self.replicator.startService()
        await turns()
        self.replicator.kick()
        self.replicator.hurry()
        await self.stopped(self.replicator)
        assert self.clock.getDelayedCalls() == []

    async def test_waits_for_what_is_being_named(self) -> None:
        """Stopping waits for the command under way, so that the store can be closed then."""
        await self.put_at(NODE, "/f")
        self.store.steps.hold("Relocate")
        arrival = self.store.steps.arrival("Relocate")
        self.replicator.startService()
        await arrival
        stopping = started(self.stopped(self.replicator))
        assert not stopping.called
        self.store.steps.release("Relocate")
        await stopping
        assert await self.places_of("/f") == [self.on(NODE), S3]

    async def test_without_start_and_again(self) -> None:
        """Stopping what doesn't run does nothing; a stopped worker can be started again."""
        await self.stopped(self.replicator)
        self.replicator.startService()
        await self.stopped(self.replicator)
        await self.stopped(self.replicator)
        await self.put_at(NODE, "/f")
        self.replicator.startService()
        await self.copied("/f")


class TestMissing(NodesCase):
    """Files that are older than the wish for second copies."""

    async def setUp(self) -> None:
        await super().setUp()
        for number in range(7):
            await self.put_at(NODES[number % 3], f"/d/{number}", b"%d" % number)
        await self.put_at(NODE, "/s3", backend="s3")
        self.options = {"replica_backend": "s3"}
        for name in NODES:
            self.nodes[name] = self.make_node(name)

    async def scan(self, **options: Any) -> list[tuple[int, int, int]]:
        """All pages: files, lacking, queued."""
        pages, after = [], ""
        while True:
            page = await self.nodes[NODE].scan_replicas(after, 3, **options)
            pages.append((page.files, page.lacking, page.queued))
            if page.after is None:
                return pages
            after = page.after

    async def test_counted_and_queued(self) -> None:
        """They are counted, queued for the nodes that have them, copied, and not counted any more."""
        assert await self.scan() == [(2, 2, 0), (3, 3, 0), (3, 2, 0), (0, 0, 0)]
        assert await self.store.replication_backlog() == []
        assert sum(queued for _, _, queued in await self.scan(queue=True)) == 7
        assert self.ordered > 0
        assert {each.by: each.waiting for each in await self.store.replication_backlog()} == {
            NODE: 3,
            SECOND: 2,
            THIRD: 2,
        }
        await self.scan(queue=True)
        for name in NODES:
            self.make_replicator(name).startService()
            await settled(lambda name=name: self.counts[name].of["replicated", "made"] >= 2)
        while await self.store.replication_backlog():
            await turns(1)
        assert sum(lacking for _, lacking, _ in await self.scan()) == 0
        for number in range(7):
            assert S3 in await self.places_of(f"/d/{number}")

    async def test_without_the_wish(self) -> None:
        """Where no second copies are wanted no file lacks one."""
        self.options = {}
        self.nodes[NODE] = self.make_node(NODE)
        assert sum(lacking for _, lacking, _ in await self.scan(queue=True)) == 0

    async def test_changed_while_queueing(self) -> None:
        """A file that is replaced between the look and the order isn't ordered twice."""
        self.store.steps.fail("Relocate", Conflict("changed"))
        assert sum(queued for _, _, queued in await self.scan(queue=True)) == 6

    async def test_the_content_stays(self) -> None:
        """Queueing changes neither tag nor times of a file."""
        before = await self.store.get("/d/1")
        await self.scan(queue=True)
        after = await self.store.get("/d/1")
        assert msgspec.structs.replace(after, generation=before.generation) == before
