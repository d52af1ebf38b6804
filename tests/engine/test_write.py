"""Writing files."""

from __future__ import annotations

import hashlib

from twisted.internet.defer import CancelledError, gatherResults

from callfs.engine.filesystem import ExpectedDigest
from callfs.engine.settings import EngineSettings
from callfs.errors import (
    BadRequest,
    ChecksumMismatch,
    Conflict,
    FileAlreadyExists,
    InsufficientStorage,
    InternalError,
    MetadataUnavailable,
    NotAFile,
    OutcomeUnknown,
    ParentNotADirectory,
    PayloadTooLarge,
    PeerUnavailable,
    PermissionDenied,
    PreconditionFailed,
    ResourceLocked,
)
from callfs.model import LocalPlacement, Preconditions
from tests.support.engine import (
    ADMIN,
    ALICE,
    BOB,
    NODE,
    EngineCase,
    Feed,
    chunks,
    outcome,
    settled,
    started,
    upload,
)

ONLY_NEW = Preconditions(if_none_match=("*",))


class TestWhatIsStored(EngineCase):
    async def test_a_new_file(self) -> None:
        """PUT where nothing is makes a file of the caller's, with size, digest, placement and type."""
        written = await self.put("/a/b", b"hello world", content_type="text/plain")
        inode = written.inode
        assert written.created
        assert inode.owner == "alice"
        assert inode.content_type == "text/plain"
        assert inode.generation == 1
        assert inode.blob.size == 11
        assert inode.blob.sha256 == hashlib.sha256(b"hello world").digest()
        assert inode.blob.placement == LocalPlacement(NODE)
        assert await self.content("/a/b") == b"hello world"
        parent = await self.filesystem.stat(ALICE, "/a")
        assert parent.is_directory
        assert parent.owner == "alice"
        await self.nothing_left()

    async def test_new_content(self) -> None:
        """PUT on a file keeps its id and owner; generation and entity tag change; the janitor is told."""
        first = (await self.put("/f", b"one")).inode
        written = await self.put("/f", b"two", principal=ADMIN)
        assert not written.created
        assert written.inode.id == first.id
        assert written.inode.owner == "alice"
        assert written.inode.generation == 2
        assert written.inode.etag != first.etag
        assert await self.content("/f") == b"two"
        assert self.kicks == 1

    async def test_an_empty_file(self) -> None:
        """A body without a byte is a file of no bytes."""
        written = await self.put("/empty", b"", declared_size=0)
        assert written.inode.size == 0
        assert await self.content("/empty") == b""

    async def test_deep_path(self) -> None:
        """All missing parents come with the file, however many."""
        path = "/x" * 200
        await self.create(path, b"deep")
        assert await self.content(path) == b"deep"

    async def test_counted(self) -> None:
        """Each write is counted by what it did and where the bytes went."""
        await self.create("/f")
        await self.put("/f")
        assert self.metrics.of["file", "create", "localfs"] == 1
        assert self.metrics.of["file", "update", "localfs"] == 1

    async def test_failpoints_come_in_order(self) -> None:
        """A write passes its named points in the order of the flow."""
        await self.put("/f")
        assert self.reached == [
            "write.body_complete",
            "write.committed",
            "write.before_command",
            "write.after_command",
        ]


class TestDecidedBeforeTheBody(EngineCase):
    async def check(self, error: type[Exception], path: str, *, new: bool = False, **options: object) -> Exception:
        """The refusal comes although nobody sends a byte, and leaves nothing."""
        body = Feed()
        principal = options.pop("principal", ALICE)
        write = self.filesystem.create_file if new else self.filesystem.put_file
        refusal = await self.refused(error, write(principal, path, upload(body, **options)))
        assert body.asked == 0
        assert self.backend.steps.passed["commit"] == 0
        await self.nothing_left()
        return refusal

    async def test_create_over_a_file(self) -> None:
        """POST on a file is refused, and says what is there."""
        await self.filesystem.create_directory(ALICE, "/d")
        refusal = await self.check(FileAlreadyExists, "/d", new=True)
        assert refusal.details["existing_path"] == "/d"

    async def test_create_over_the_root(self) -> None:
        """POST on the root is refused."""
        await self.check(FileAlreadyExists, "/", new=True)

    async def test_put_on_a_directory(self) -> None:
        """PUT on a directory is refused."""
        await self.filesystem.create_directory(ALICE, "/d")
        await self.check(NotAFile, "/d")
        await self.check(NotAFile, "/")

    async def test_unknown_backend(self) -> None:
        """A backend that isn't there is refused, for new files and for old."""
        await self.check(BadRequest, "/f", backend="s3")

    async def test_declared_too_large(self) -> None:
        """A body that announces more than is allowed is refused at once."""
        await self.check(PayloadTooLarge, "/f", declared_size=11, max_size=10)

    async def test_if_match_without_a_file(self) -> None:
        """If-Match fails where nothing is."""
        await self.check(PreconditionFailed, "/f", preconditions=Preconditions(if_match=('"x"',)))

    async def test_unknown_digest(self) -> None:
        """A digest that can't be computed isn't ignored."""
        await self.check(BadRequest, "/f", digests=(ExpectedDigest("crc32", b"1234"),))

    async def test_no_room(self) -> None:
        """A backend without room refuses at once."""
        self.backend.steps.fail("stage", InsufficientStorage("full"))
        await self.check(InsufficientStorage, "/f", declared_size=10)


class TestDecidedBeforeTheBodyOfAReplacement(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"old")

    async def check(self, error: type[Exception], path: str, **options: object) -> None:
        """The refusal comes although nobody sends a byte, and the old content stays."""
        body = Feed()
        principal = options.pop("principal", ALICE)
        await self.refused(error, self.filesystem.put_file(principal, path, upload(body, **options)))
        assert body.asked == 0
        assert await self.content("/f") == b"old"
        await self.nothing_left()

    async def test_below_a_file(self) -> None:
        """Nothing can be below a file."""
        await self.check(ParentNotADirectory, "/f/x")
        await self.check(ParentNotADirectory, "/f/x/y/z")
        await self.refused(ParentNotADirectory, self.filesystem.create_file(ALICE, "/f/x", upload(Feed())))

    async def test_of_another(self) -> None:
        """Only owner and administrators write."""
        await self.check(PermissionDenied, "/f", principal=BOB)

    async def test_only_new(self) -> None:
        """If-None-Match: * fails where something is."""
        await self.check(PreconditionFailed, "/f", preconditions=ONLY_NEW)

    async def test_another_tag(self) -> None:
        """If-Match fails where other content is."""
        await self.check(PreconditionFailed, "/f", preconditions=Preconditions(if_match=('"other"',)))

    async def test_unreachable_holder(self) -> None:
        """What is on a node that can't be reached can't be replaced through this one."""
        self.filesystem = self.make_filesystem(settings=EngineSettings(instance_id="node-2"))
        body = Feed()
        await self.refused(PeerUnavailable, self.filesystem.put_file(ALICE, "/f", upload(body)))
        assert body.asked == 0

    async def test_the_right_tag(self) -> None:
        """If-Match with the current tag lets the write happen."""
        etag = (await self.filesystem.stat(ALICE, "/f")).etag
        await self.put("/f", b"new", preconditions=Preconditions(if_match=(etag,)))
        assert await self.content("/f") == b"new"


class TestBodies(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"old")

    async def check(self, error: type[Exception], body: object, **options: object) -> None:
        """The upload fails, the old content stays, nothing else remains."""
        await self.refused(error, self.filesystem.put_file(ALICE, "/f", upload(body, **options)))
        assert await self.content("/f") == b"old"
        await self.nothing_left()

    async def test_client_gone(self) -> None:
        """A body that breaks off fails as it says."""
        await self.check(ConnectionError, chunks(b"half", ConnectionError("gone")))
        await self.check(BadRequest, chunks(BadRequest("short")))

    async def test_too_long(self) -> None:
        """A body that grows over the limit is stopped there."""
        await self.check(PayloadTooLarge, chunks(b"12345", b"678901"), max_size=10)

    async def test_as_long_as_allowed(self) -> None:
        """The limit itself is allowed."""
        await self.put("/f", b"1234567890", max_size=10)
        assert await self.content("/f") == b"1234567890"

    async def test_shorter_or_longer_than_declared(self) -> None:
        """A body of another length than announced is refused."""
        await self.check(BadRequest, chunks(b"12345"), declared_size=6)
        await self.check(BadRequest, chunks(b"1234567"), declared_size=6)

    async def test_digests(self) -> None:
        """Every announced digest has to be right: one wrong among right ones is enough."""
        right = [ExpectedDigest(name, hashlib.new(name, b"new").digest()) for name in ("sha256", "sha512", "md5")]
        for name in ("sha256", "sha512", "md5"):
            wrong = ExpectedDigest(name, hashlib.new(name, b"other").digest())
            await self.check(ChecksumMismatch, chunks(b"new"), digests=(*right, wrong))
        await self.put("/f", b"new", digests=tuple(right))
        assert await self.content("/f") == b"new"

    async def test_disk_fills_up(self) -> None:
        """A write that fails half-way leaves nothing."""
        self.backend.steps.fail("write", None, InsufficientStorage("full"))
        await self.check(InsufficientStorage, chunks(b"1", b"2", b"3"))

    async def test_commit_fails(self) -> None:
        """A commit that fails leaves nothing."""
        self.backend.steps.fail("commit", InsufficientStorage("full"))
        await self.check(InsufficientStorage, chunks(b"new"))
        self.backend.steps.fail("commit", OSError(5, "input/output error"))
        await self.check(OSError, chunks(b"new"))

    async def test_back_pressure(self) -> None:
        """No further piece is asked for before the one before it has been taken."""
        body = Feed()
        self.backend.steps.hold("write")
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"1")
        body.give(b"2")
        assert body.asked == 1
        self.backend.steps.release("write")
        assert body.asked == 3
        body.give(None)
        await write
        assert await self.content("/f") == b"12"


class TestTheCommand(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"old")

    async def check(self, error: type[Exception]) -> None:
        """The write fails, the old content stays, and its blob has gone again."""
        await self.refused(error, self.put("/f", b"new"))
        assert await self.content("/f") == b"old"
        await self.nothing_left()

    async def test_store_down(self) -> None:
        """Without a store nothing remains."""
        self.store.steps.fail("PutFile", MetadataUnavailable("down"))
        await self.check(MetadataUnavailable)

    async def test_condemned(self) -> None:
        """A refused name takes its blob along."""
        self.store.steps.fail("PutFile", Conflict("condemned"))
        await self.check(Conflict)

    async def test_decided_again(self) -> None:
        """What changed during a long body counts: here the file has become another's."""
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"new")
        await self.filesystem.remove(ADMIN, "/f")
        await self.put("/f", b"another's", principal=BOB)
        body.give(None)
        await self.refused(PermissionDenied, write)
        assert await self.content("/f") == b"another's"

    async def test_condition_checked_again(self) -> None:
        """Of two uploads that are to be the first, one is."""
        bodies = [Feed(), Feed()]
        writes = [
            started(self.filesystem.put_file(ALICE, "/new", upload(body, preconditions=ONLY_NEW)))
            for body in bodies
        ]
        for number, body in enumerate(bodies):
            body.give(b"%d" % number)
        bodies[1].give(None)
        await writes[1]
        bodies[0].give(None)
        await self.refused(PreconditionFailed, writes[0])
        assert await self.content("/new") == b"1"

    async def test_locked(self) -> None:
        """A lock that isn't got in time refuses the write, and nothing remains."""
        (lease,) = await self.locks.inner.acquire(("/f",), 0)
        write = started(self.put("/f", b"new"))
        self.advance(9.9)
        assert not write.called
        self.advance(0.2)
        await self.refused(ResourceLocked, write)
        await self.nothing_left()
        await lease.release()
        await self.put("/f", b"new")

    async def test_another_path_is_not_locked(self) -> None:
        """The lock is on the path alone."""
        (lease,) = await self.locks.inner.acquire(("/f",), 0)
        await self.put("/g", b"new")
        await lease.release()

    async def test_locked_for_the_command_alone(self) -> None:
        """A long body holds no lock."""
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"new")
        assert self.locks.held == []
        body.give(None)
        await write

    async def test_a_blob_that_cannot_be_taken_back(self) -> None:
        """Where the refused blob can't be deleted the refusal is still what is answered; the sweep has the rest."""
        self.store.steps.fail("PutFile", Conflict("condemned"))
        self.backend.steps.fail("delete", OSError(30, "read-only"))
        await self.refused(Conflict, self.put("/f", b"new"))
        self.flushLoggedErrors(OSError)
        assert self.metrics.of["error", "engine", "discard_failed"] == 1
        assert len(await self.blob_ids()) == 2

    async def test_lock_that_cannot_be_given_back(self) -> None:
        """What was done stands, whatever becomes of the lease."""
        self.locks.steps.fail("release", ConnectionError("lost"))
        await self.put("/f", b"new")
        self.flushLoggedErrors(ConnectionError)
        assert await self.content("/f") == b"new"


class TestOutcomeUnknown(EngineCase):
    async def test_it_happened(self) -> None:
        """The answer got lost: the file is there whole, for its blob wasn't touched."""
        self.store.steps.fail("applied PutFile", OutcomeUnknown("lost"))
        await self.refused(OutcomeUnknown, self.put("/f", b"new"))
        assert await self.content("/f") == b"new"
        await self.nothing_left()

    async def test_it_did_not_happen(self) -> None:
        """The blob is left to the sweep."""
        self.store.steps.fail("CreateFile", OutcomeUnknown("lost"))
        await self.refused(OutcomeUnknown, self.create("/f", b"new"))
        assert len(await self.blob_ids()) == 1
        assert self.locks.held == []

    async def test_unexpected_error(self) -> None:
        """An error that no store promises says nothing of the outcome: 504, and the blob isn't touched."""
        self.store.steps.fail("applied PutFile", RuntimeError("bug"))
        await self.refused(OutcomeUnknown, self.put("/f", b"new"))
        assert await self.content("/f") == b"new"
        assert self.metrics.of["error", "engine", "outcome_unknown"] == 1

    async def test_internal_error(self) -> None:
        """A fault of the store is passed on as it is, and the blob isn't touched."""
        self.store.steps.fail("applied PutFile", InternalError("fault"))
        await self.refused(InternalError, self.put("/f", b"new"))
        assert await self.content("/f") == b"new"


class TestCancelled(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"old")

    async def test_while_staging(self) -> None:
        """A client that goes while the stage is being made leaves none."""
        self.backend.steps.hold("stage")
        write = started(self.put("/f", b"new"))
        write.cancel()
        await self.refused(CancelledError, write)
        self.backend.steps.release("stage")
        await settled(lambda: not self.backend.stages)
        await self.nothing_left()

    async def test_while_staging_that_then_fails(self) -> None:
        """A stage that fails after its client has gone bothers nobody."""
        self.backend.steps.hold("stage")
        self.backend.steps.fail("stage", InsufficientStorage("full"))
        write = started(self.put("/f", b"new"))
        write.cancel()
        await self.refused(CancelledError, write)
        self.backend.steps.release("stage")
        await self.nothing_left()

    async def test_while_the_body_comes(self) -> None:
        """A client that goes during its body leaves nothing."""
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"half")
        write.cancel()
        await self.refused(CancelledError, write)
        assert await self.content("/f") == b"old"
        await self.nothing_left()

    async def test_while_a_piece_is_written(self) -> None:
        """A client that goes during a write leaves nothing, and its stage is aborted once."""
        self.backend.steps.hold("write")
        write = started(self.put("/f", b"new"))
        write.cancel()
        await self.refused(CancelledError, write)
        self.backend.steps.release("write")
        assert self.backend.steps.passed["abort"] == 1
        await self.nothing_left()

    async def test_twice_while_aborting(self) -> None:
        """A second cancellation doesn't interrupt the clearing up."""
        self.backend.steps.hold("abort")
        write = started(self.filesystem.put_file(ALICE, "/f", upload(Feed())))
        write.cancel()
        write.cancel()
        await self.refused(CancelledError, write)
        assert self.backend.stages
        self.backend.steps.release("abort")
        await self.nothing_left()

    async def goes_on(self, steps: object, step: str, new: str = "/f") -> None:
        """A client that goes at a step after its body has no effect on the write."""
        steps.hold(step)
        arrival = steps.arrival(step)
        write = started(self.put(new, b"new"))
        await arrival
        write.cancel()
        await self.refused(CancelledError, write)
        assert await outcome(self.filesystem.stat(ALICE, "/f")) is not None
        steps.release(step)
        await settled(lambda: self.reached[-1] == "write.after_command")
        assert await self.content(new) == b"new"

    async def test_while_committing(self) -> None:
        """Once the body is complete the write goes on: through the commit."""
        await self.goes_on(self.backend.steps, "commit")

    async def test_while_waiting_for_the_lock(self) -> None:
        """Once the body is complete the write goes on: through the lock."""
        await self.goes_on(self.locks.steps, "acquire")

    async def test_before_the_command(self) -> None:
        """Once the body is complete the write goes on: to the command."""
        await self.goes_on(self.store.steps, "PutFile")

    async def test_after_the_command(self) -> None:
        """Once the body is complete the write goes on: past the command."""
        await self.goes_on(self.store.steps, "applied PutFile")
        await settled(lambda: not self.locks.held)

    async def test_waited_for_at_the_end(self) -> None:
        """A node that stops can wait for the writes whose clients have gone."""
        await self.filesystem.settled()
        self.store.steps.hold("PutFile")
        arrival = self.store.steps.arrival("PutFile")
        write = started(self.put("/f", b"new"))
        await arrival
        write.cancel()
        await self.refused(CancelledError, write)
        settling = started(self.filesystem.settled())
        assert not settling.called
        self.store.steps.release("PutFile")
        await settling
        assert await self.content("/f") == b"new"
        assert self.locks.held == []

    async def test_fault_after_the_client_went(self) -> None:
        """A fault that nobody hears of any more is logged."""
        self.backend.steps.hold("commit")
        self.backend.steps.fail("commit", OSError(5, "input/output error"))
        write = started(self.put("/f", b"new"))
        write.cancel()
        await self.refused(CancelledError, write)
        self.backend.steps.release("commit")
        await self.filesystem.settled()
        assert len(self.flushLoggedErrors(OSError)) == 1
        await self.nothing_left()

    async def test_failing_after_the_client_went(self) -> None:
        """A write that fails when nobody waits any more still clears up."""
        self.store.steps.hold("PutFile")
        self.store.steps.fail("PutFile", MetadataUnavailable("down"))
        arrival = self.store.steps.arrival("PutFile")
        write = started(self.put("/f", b"new"))
        await arrival
        write.cancel()
        await self.refused(CancelledError, write)
        self.store.steps.release("PutFile")
        await settled(lambda: not self.locks.held)
        assert await self.content("/f") == b"old"
        await self.nothing_left()


class TestFailpoints(EngineCase):
    async def test_before_the_command(self) -> None:
        """An error at a point before the command leaves nothing."""
        for point in ("write.body_complete", "write.committed", "write.before_command"):
            self.at_point = lambda reached, point=point: self.stop_at(reached, point)
            await self.refused(ZeroDivisionError, self.put("/f", b"new"))
            await self.nothing_left()
            assert await self.blob_ids() == []

    async def test_after_the_command(self) -> None:
        """An error after the command takes nothing back."""
        self.at_point = lambda reached: self.stop_at(reached, "write.after_command")
        await self.refused(ZeroDivisionError, self.put("/f", b"new"))
        assert await self.content("/f") == b"new"
        await self.nothing_left()

    def stop_at(self, reached: str, point: str) -> None:
        """Raise at a point."""
        if reached == point:
            raise ZeroDivisionError


class TestSideBySide(EngineCase):
    async def test_two_writers(self) -> None:
        """Two PUTs at once: one content whole, and two generations more."""
        await self.put("/f", b"old")
        bodies = [Feed(), Feed()]
        writes = [started(self.filesystem.put_file(ALICE, "/f", upload(body))) for body in bodies]
        for _ in range(5):
            for letter, body in zip((b"a", b"b"), bodies, strict=True):
                body.give(letter * 1000)
        for body in bodies:
            body.give(None)
        await gatherResults(writes)
        assert await self.content("/f") in (b"a" * 5000, b"b" * 5000)
        assert (await self.filesystem.stat(ALICE, "/f")).generation == 3

    async def test_hundreds(self) -> None:
        """Hundreds of uploads at once, to hundreds of paths and to one."""
        writes = [started(self.put(f"/d/{number % 300}", b"%d" % (number % 300))) for number in range(300)]
        writes += [started(self.put("/one", b"%d" % number)) for number in range(100)]
        await gatherResults(writes)
        for number in range(300):
            assert await self.content(f"/d/{number}") == b"%d" % number
        assert (await self.filesystem.stat(ALICE, "/one")).generation == 100
        assert self.locks.held == []
        assert self.backend.stages == set()

    async def test_one_creator(self) -> None:
        """Of many POSTs to one path, one creates."""
        creations = [started(outcome(self.create("/f", b"%d" % number))) for number in range(50)]
        results = await gatherResults(creations)
        refusals = [result for result in results if isinstance(result, Exception)]
        assert len(refusals) == 49
        assert {type(refusal) for refusal in refusals} == {FileAlreadyExists}
        await self.nothing_left()
