"""Writing files whose bytes are in memory before anything is decided."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.defer import CancelledError

from callfs.backends.memory import MemoryBackend
from callfs.engine.filesystem import ExpectedDigest, Upload
from callfs.engine.settings import EngineSettings
from callfs.errors import (
    BadRequest,
    CallFSError,
    ChecksumMismatch,
    Conflict,
    ContentMoved,
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
from callfs.model import Preconditions, S3Placement
from tests.support.engine import (
    ALICE,
    BOB,
    MAX_SIZE,
    NODE,
    EngineCase,
    SteppedBackend,
    chunks,
    outcome,
    settled,
    started,
)

WRONG_DIGEST = (ExpectedDigest("sha256", hashlib.sha256(b"other").digest()),)
UNKNOWN_DIGEST = (ExpectedDigest("crc32", b"1234"),)


def at_hand(data: bytes, **options: Any) -> Upload:
    """An upload of bytes that are there."""
    return Upload(**{"body": data, "max_size": MAX_SIZE, **options})


class TestWithoutAsking(EngineCase):
    async def test_created(self) -> None:
        """A new file is stored with one command and no question."""
        for write, path in ((self.filesystem.create_file, "/a/b"), (self.filesystem.put_file, "/a/c")):
            written = await write(ALICE, path, at_hand(b"content", declared_size=7, content_type="text/plain"))
            assert (written.created, written.inode.content_type) == (True, "text/plain")
            assert self.store.steps.passed["get_chain"] == 0
            assert await self.content(path) == b"content"
        await self.nothing_left()

    async def test_replaced(self) -> None:
        """New content is stored with one command and no question."""
        await self.put("/f", b"old")
        asked = self.store.steps.passed["get_chain"]
        assert not (await self.filesystem.put_file(ALICE, "/f", at_hand(b"new"))).created
        assert self.store.steps.passed["get_chain"] == asked
        assert await self.content("/f") == b"new"
        await self.nothing_left()

    async def test_empty(self) -> None:
        """No byte at all is content, too."""
        assert (await self.filesystem.put_file(ALICE, "/f", at_hand(b"", declared_size=0))).inode.size == 0
        assert await self.content("/f") == b""

    async def test_digests(self) -> None:
        """What was announced is verified."""
        right = tuple(ExpectedDigest(name, hashlib.new(name, b"new").digest()) for name in ("sha256", "md5"))
        await self.filesystem.put_file(ALICE, "/f", at_hand(b"new", digests=right))
        assert await self.content("/f") == b"new"

    async def test_preconditions_are_decided_first(self) -> None:
        """A failed precondition costs no blob; one that holds lets the write happen."""
        await self.put("/f", b"old")
        for failing in (Preconditions(if_none_match=("*",)), Preconditions(if_match=('"other"',))):
            stages = self.backend.steps.passed["stage"]
            upload = at_hand(b"new", preconditions=failing)
            await self.refused(PreconditionFailed, self.filesystem.put_file(ALICE, "/f", upload))
            assert self.backend.steps.passed["stage"] == stages
        upload = at_hand(b"new", preconditions=Preconditions(if_match=("*",)))
        await self.filesystem.put_file(ALICE, "/f", upload)
        assert await self.content("/f") == b"new"


class TestRefusals(EngineCase):
    """What is refused, and as what, doesn't depend on when the bytes arrive."""

    async def setUp(self) -> None:
        await super().setUp()
        await self.put("/f", b"old")
        await self.filesystem.create_directory(ALICE, "/d")

    async def same(self, error: type[CallFSError], path: str, *, new: bool = False, **options: Any) -> None:
        """Bytes that are there and bytes on their way are refused with the same words, and leave nothing."""
        principal = options.pop("principal", ALICE)
        data = options.pop("data", b"new")
        write = self.filesystem.create_file if new else self.filesystem.put_file
        on_its_way = Upload(**{"body": chunks(data), "max_size": MAX_SIZE, **options})
        expected = await self.refused(error, write(principal, path, on_its_way))
        refusal = await self.refused(error, write(principal, path, at_hand(data, **options)))
        assert (refusal.message, refusal.details) == (expected.message, expected.details)
        assert await self.content("/f") == b"old"
        await self.nothing_left()

    async def test_what_is_there(self) -> None:
        """A file, a directory, the root, or a file above."""
        for path in ("/f", "/d", "/"):
            await self.same(FileAlreadyExists, path, new=True)
        for path in ("/d", "/"):
            await self.same(NotAFile, path)
        for new in (True, False):
            await self.same(ParentNotADirectory, "/f/x/y", new=new)

    async def test_of_another(self) -> None:
        """What belongs to somebody else."""
        await self.same(PermissionDenied, "/f", principal=BOB)

    async def test_the_upload_itself(self) -> None:
        """Too long, as announced or not; another length than announced; a backend or digest nobody has heard of."""
        for new in (True, False):
            await self.same(PayloadTooLarge, "/new", new=new, max_size=2, declared_size=3)
            await self.same(PayloadTooLarge, "/new", new=new, max_size=2)
            await self.same(BadRequest, "/new", new=new, declared_size=2)
            await self.same(BadRequest, "/new", new=new, backend="s3")
            await self.same(BadRequest, "/new", new=new, digests=UNKNOWN_DIGEST)
            await self.same(ChecksumMismatch, "/new", new=new, digests=WRONG_DIGEST)

    async def test_order(self) -> None:
        """Of several reasons the same one is given: the names come before the upload, and that before its bytes."""
        wrongs: tuple[dict[str, Any], ...] = (
            {"max_size": 2, "declared_size": 3},
            {"max_size": 2},
            {"declared_size": 2},
            {"backend": "s3"},
            {"digests": UNKNOWN_DIGEST},
            {"digests": WRONG_DIGEST},
        )
        for wrong in wrongs:
            await self.same(FileAlreadyExists, "/f", new=True, **wrong)
            await self.same(NotAFile, "/d", **wrong)
            await self.same(ParentNotADirectory, "/f/x", **wrong)
            await self.same(PermissionDenied, "/f", principal=BOB, **wrong)
        await self.same(PayloadTooLarge, "/new", max_size=2, declared_size=3, digests=UNKNOWN_DIGEST)

    async def test_no_room(self) -> None:
        """A backend that takes nothing refuses what nothing else does."""
        for step in ("stage", "write", "commit"):
            for error, path, principal in ((PermissionDenied, "/f", BOB), (InsufficientStorage, "/f", ALICE)):
                self.backend.steps.fail(step, InsufficientStorage("full"))
                await self.refused(error, self.filesystem.put_file(principal, path, at_hand(b"new")))
                await self.nothing_left()
        assert await self.content("/f") == b"old"

    async def test_locked(self) -> None:
        """A lock that isn't got in time refuses the write, unless there is a better reason."""
        (lease,) = await self.locks.inner.acquire(("/f",), 0)
        for error, principal in ((ResourceLocked, ALICE), (PermissionDenied, BOB)):
            write = started(self.filesystem.put_file(principal, "/f", at_hand(b"new")))
            self.advance(10.1)
            await self.refused(error, write)
            await self.nothing_left()
        await lease.release()


class TestFaults(EngineCase):
    async def check(self, error: type[Exception], blobs: int = 0) -> None:
        """The write fails with this, after one command and no question; so many blobs are left to the sweep."""
        await self.refused(error, self.filesystem.put_file(ALICE, "/f", at_hand(b"new")))
        assert self.store.steps.passed["PutFile"] == 1
        assert self.store.steps.passed["get_chain"] == 0
        assert len(await self.blob_ids()) == blobs
        assert self.backend.stages == set()

    async def test_store_down(self) -> None:
        """A store that doesn't answer isn't waited for twice."""
        self.store.steps.fail("PutFile", MetadataUnavailable("down"))
        await self.check(MetadataUnavailable)

    async def test_outcome_unknown(self) -> None:
        """A command that may have happened isn't repeated, and its blob isn't touched."""
        self.store.steps.fail("PutFile", OutcomeUnknown("lost"))
        await self.check(OutcomeUnknown, blobs=1)

    async def test_fault_of_the_store(self) -> None:
        """The same after any fault that says nothing about the outcome."""
        self.store.steps.fail("PutFile", InternalError("fault"))
        await self.check(InternalError, blobs=1)

    async def test_unexpected_fault_of_the_store(self) -> None:
        """The same after an error that no store promises."""
        self.store.steps.fail("PutFile", RuntimeError("bug"))
        await self.check(OutcomeUnknown, blobs=1)

    async def test_condemned(self) -> None:
        """A refusal that the decision beforehand doesn't know stands when it comes again."""
        self.store.steps.fail("PutFile", Conflict("condemned"), Conflict("condemned"))
        await self.refused(Conflict, self.filesystem.put_file(ALICE, "/f", at_hand(b"new")))
        assert self.store.steps.passed["PutFile"] == 2
        await self.nothing_left()

    async def test_came_back_meanwhile(self) -> None:
        """A file that was elsewhere when the command came, and is here by now, is replaced all the same."""
        self.store.steps.fail("PutFile", ContentMoved("it is elsewhere"))
        await self.filesystem.put_file(ALICE, "/f", at_hand(b"new"))
        assert await self.content("/f") == b"new"
        await self.nothing_left()

    async def test_disk_fails(self) -> None:
        """An error of the backend is passed on as it is."""
        self.backend.steps.fail("commit", OSError(5, "input/output error"))
        await self.refused(OSError, self.filesystem.put_file(ALICE, "/f", at_hand(b"new")))
        await self.nothing_left()

    async def test_client_gone_while_staging(self) -> None:
        """A client that goes before its bytes are committed leaves nothing, and nothing more is asked."""
        self.backend.steps.hold("stage")
        write = started(self.filesystem.put_file(ALICE, "/f", at_hand(b"new")))
        write.cancel()
        await self.refused(CancelledError, write)
        self.backend.steps.release("stage")
        await settled(lambda: not self.backend.stages)
        assert self.store.steps.passed["get_chain"] == 0
        await self.nothing_left()


class TestBytesElsewhere(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.s3 = SteppedBackend(MemoryBackend(now=self.now, name="s3"))
        self.filesystem = self.make_filesystem(backends={"localfs": self.backend, "s3": self.s3})
        await self.put("/f", b"old", backend="s3")

    async def test_the_bytes_go_where_the_file_is(self) -> None:
        """A file on another backend than new ones is replaced there, and no blob is left behind here."""
        for backend in (None, "localfs", "s3"):
            written = await self.filesystem.put_file(ALICE, "/f", at_hand(b"new", backend=backend))
            assert (written.created, written.inode.blob.placement) == (False, S3Placement())
            assert await self.content("/f") == b"new"
            assert await self.blob_ids() == []
            assert self.s3.stages == self.backend.stages == set()

    async def test_new_files_go_to_s3(self) -> None:
        """Where new files go to S3, S3 isn't asked about a file on the disk, nor about a write that is refused."""
        self.filesystem = self.make_filesystem(
            backends={"localfs": self.backend, "s3": self.s3},
            settings=EngineSettings(instance_id=NODE, default_backend="s3"),
        )
        await self.put("/local", b"old", backend="localfs")
        stages = self.s3.steps.passed["stage"]
        self.s3.steps.fail("stage", InternalError("denied"), InternalError("denied"))
        await self.filesystem.put_file(ALICE, "/local", at_hand(b"new"))
        assert await self.content("/local") == b"new"
        await self.refused(PermissionDenied, self.filesystem.put_file(BOB, "/f", at_hand(b"new")))
        await self.refused(FileAlreadyExists, self.filesystem.create_file(ALICE, "/f", at_hand(b"new")))
        assert self.s3.steps.passed["stage"] == stages

    async def test_fault_where_new_files_go(self) -> None:
        """A fault of the disk doesn't matter to a file that is elsewhere, nor to a write that is refused anyway."""
        for step in ("stage", "write", "commit"):
            self.backend.steps.fail(step, InternalError("fault"))
            await self.filesystem.put_file(ALICE, "/f", at_hand(b"new"))
            self.backend.steps.fail(step, InternalError("fault"))
            await self.refused(PermissionDenied, self.filesystem.put_file(BOB, "/f", at_hand(b"newer")))
            assert await self.content("/f") == b"new"
            assert await self.blob_ids() == []

    async def test_guessed_right(self) -> None:
        """A client that names the backend has its bytes stored once."""
        commits = self.s3.steps.passed["commit"]
        await self.filesystem.put_file(ALICE, "/f", at_hand(b"new", backend="s3"))
        assert (self.s3.steps.passed["commit"], self.backend.steps.passed["commit"]) == (commits + 1, 0)
        assert self.store.steps.passed["PutFile"] == 2

    async def test_no_room_where_new_files_go(self) -> None:
        """What is full doesn't matter to a file that is elsewhere."""
        self.backend.steps.fail("stage", InsufficientStorage("full"))
        await self.filesystem.put_file(ALICE, "/f", at_hand(b"new"))
        assert await self.content("/f") == b"new"

    async def test_moved_on_meanwhile(self) -> None:
        """A file that was somewhere else again at the second try is written at the third."""
        moved = ContentMoved("moved elsewhere meanwhile")
        self.store.steps.fail("PutFile", moved, moved)
        await self.filesystem.put_file(ALICE, "/f", at_hand(b"new"))
        assert await self.content("/f") == b"new"
        assert await self.blob_ids() == []

    async def test_conflict_for_good(self) -> None:
        """Only bytes that are elsewhere are followed: any other conflict is the answer, and leaves nothing."""

        class AnotherKind(Conflict):
            """A conflict that nobody knows yet."""

            code = "CONFLICT"

        for conflict in (Conflict("condemned"), AnotherKind("of another kind")):
            self.store.steps.fail("PutFile", conflict, conflict)
            assert await outcome(self.filesystem.put_file(ALICE, "/local", at_hand(b"new"))) is conflict
            assert await self.blob_ids() == []

    async def test_out_of_reach(self) -> None:
        """What is on a node that can't be reached can't be replaced through this one."""
        await self.put("/local", b"old")
        other = self.make_filesystem(settings=EngineSettings(instance_id="node-2"))
        await self.refused(PeerUnavailable, other.put_file(ALICE, "/local", at_hand(b"new")))
        assert await self.content("/local") == b"old"
        await self.nothing_left()
