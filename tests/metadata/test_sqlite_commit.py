"""The writer of the SQLite store: group commit, time limits, and failing commits."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from callfs.errors import InsufficientStorage, InternalError, MetadataUnavailable, OutcomeUnknown
from callfs.metadata.sqlite import SqliteStore
from callfs.metadata.sqlite_writer import CommandWriter
from tests.contract.metadata_base import failure
from tests.metadata.processes import DatabaseUser
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.support.commands import Commands

TIMEOUT = 5.0


class Observer:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.commits = 0
        self.errors: list[tuple[str, str]] = []

    def metadata_group_commit(self) -> None:
        """A transaction was committed."""
        self.commits += 1

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""
        self.errors.append((component, error_type))


class CommitTests(SqliteBinding, TestCase):
    """Commands on their way to the disk."""

    base_folder = TMPFS

    async def setUp(self) -> None:
        self.make = Commands()
        self.path = self.folder() / "callfs.sqlite3"
        self.clock = Clock()
        self.observer = Observer()
        self.steps: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.addCleanup(self.gate.set)
        self.store: SqliteStore = await self.opened(
            self.path,
            clock=self.clock,
            op_timeout_seconds=TIMEOUT,
            observer=self.observer,
            reached=self.reached,
        )

    def reached(self, step: str) -> None:
        """On the writer's thread: note the step, and wait before a commit when the test says so."""
        self.steps.append(step)
        if step == "metadata.before_commit":
            self.gate.wait()

    def locked(self) -> DatabaseUser:
        """Another process that has the write lock."""
        user = DatabaseUser(self.path, "BEGIN IMMEDIATE")
        self.addCleanup(user.end)
        return user

    async def test_waiting_commands_share_a_commit(self) -> None:
        """All that waits is committed together, with one fsync, in the order of its coming."""
        user = self.locked()
        waiting = [self.store.apply(self.make.create(f"/{number}")) for number in range(200)]
        user.end()
        written = await gatherResults(waiting)
        assert self.observer.commits == 1
        assert self.steps == ["metadata.before_commit", "metadata.after_commit"]
        assert [result.inode.path for result in written] == [f"/{number}" for number in range(200)]

    async def test_nobody_is_answered_before_the_commit(self) -> None:
        """As long as the commit is under way there is no answer and nothing to be seen."""
        self.gate.clear()
        done = self.store.apply(self.make.create("/f"))
        await self.until(lambda: "metadata.before_commit" in self.steps)
        assert not done.called
        assert await self.store.get("/f") is None
        self.gate.set()
        await done
        assert await self.store.get("/f") is not None

    async def test_a_command_that_waits_too_long_is_withdrawn(self) -> None:
        """Locked out by another process, a command fails in time, and isn't applied when the lock is free."""
        user = self.locked()
        waiting = self.store.apply(self.make.create("/late"))
        self.clock.advance(TIMEOUT - 1)
        assert not waiting.called
        later = self.store.apply(self.make.create("/in-time"))
        self.clock.advance(1)
        await failure(waiting, MetadataUnavailable)
        assert self.observer.errors == [("metadata", "timeout")]
        assert await self.store.get("/") is not None
        user.end()
        await later
        assert await self.store.get("/late") is None

    async def test_a_command_that_the_writer_has_is_awaited(self) -> None:
        """Once it is on its way to the disk its outcome is waited for, however long it takes."""
        self.gate.clear()
        done = self.store.apply(self.make.create("/f"))
        await self.until(lambda: "metadata.before_commit" in self.steps)
        self.clock.advance(100 * TIMEOUT)
        assert not done.called
        self.gate.set()
        assert (await done).created

    async def test_a_cancelled_command_is_withdrawn(self) -> None:
        """Cancelled while it waits, a command is never applied; others aren't touched."""
        user = self.locked()
        first, second = (self.store.apply(self.make.create(path)) for path in ("/a", "/b"))
        first.cancel()
        await failure(first, CancelledError)
        user.end()
        await second
        assert await self.store.get("/a") is None
        assert self.clock.getDelayedCalls() == []

    async def test_a_command_cancelled_too_late_goes_on(self) -> None:
        """Cancelled when the writer has it, a command goes to its end, and the store stays well."""
        self.gate.clear()
        done = self.store.apply(self.make.create("/f"))
        await self.until(lambda: "metadata.before_commit" in self.steps)
        done.cancel()
        await failure(done, CancelledError)
        self.gate.set()
        await self.store.apply(self.make.create("/g"))
        assert await self.store.get("/f") is not None

    async def test_closing_finishes_what_waits(self) -> None:
        """A store that is closed first applies what it was given."""
        waiting = [self.store.apply(self.make.create(f"/{number}")) for number in range(20)]
        await self.store.close()
        assert all(result.created for result in await gatherResults(waiting))

    async def test_a_command_that_can_not_be_applied_harms_no_other(self) -> None:
        """A command that breaks the store's own rules fails alone, and is logged."""
        blob = self.make.blob()
        results = [
            self.store.apply(command)
            for command in (
                self.make.create("/a", blob=blob),
                self.make.create("/b", blob=blob),
                self.make.create("/c"),
            )
        ]
        assert (await results[0]).created
        await failure(results[1], InternalError)
        assert (await results[2]).created
        assert await self.store.verify() == []
        assert len(self.flushLoggedErrors(sqlite3.IntegrityError)) == 1

    async def test_the_log_does_not_grow_without_end(self) -> None:
        """The write-ahead log is brought into the database as it goes, also while a reader is open."""
        await self.opened(self.path, read_only=True)
        log = self.path.with_name(self.path.name + "-wal")
        largest = 0
        for round_number in range(30):
            await gatherResults(
                [self.store.apply(self.make.create(f"/{round_number}/{number}")) for number in range(300)]
            )
            largest = max(largest, log.stat().st_size)
        assert largest < 16 * 1024 * 1024

    async def until(self, condition: Any) -> None:
        """Let the reactor run until something holds."""
        while not condition():
            await deferLater(reactor, 0.001)


class FailingConnection(sqlite3.Connection):
    """
    A connection whose disk fails at a commit.

    :ivar failures: what the next commits fail with: an SQLite result code, or 0 for success.
    """

    failures: list[int]

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        """Run a statement, or fail."""
        if sql == "COMMIT" and self.failures:
            code = self.failures.pop(0)
            if code:
                error = sqlite3.OperationalError("disk failed")
                error.sqlite_errorcode = code
                raise error
        return super().execute(sql, *args)


class FailedCommitTests(SqliteBinding, TestCase):
    """What becomes of commands when a COMMIT fails."""

    base_folder = TMPFS

    async def setUp(self) -> None:
        self.make = Commands()
        self.path = self.folder() / "callfs.sqlite3"
        store = self.sqlite_store(self.path)
        await store.open()
        await store.close()
        self.connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, factory=FailingConnection
        )
        self.connection.failures = []
        self.observer = Observer()
        self.writer = CommandWriter(
            self.connection,
            reactor=reactor,
            clock=Clock(),
            op_timeout_seconds=TIMEOUT,
            observer=self.observer,
            reached=lambda step: None,
        )
        self.writer.start()

    async def reopened(self) -> SqliteStore:
        """The store as it is after the writer's end."""
        await self.writer.stop()
        return await self.opened(self.path)

    async def fails_with(self, error: type[Exception], *codes: int) -> None:
        """Two commands fail, with this error, when commits fail with these codes; nothing of them remains."""
        self.connection.failures = list(codes)
        waiting: list[Deferred[Any]] = [self.writer.submit(self.make.create(f"/{n}")) for n in range(2)]
        for deferred in waiting:
            await failure(deferred, error)
        assert self.connection.failures == []
        await self.writer.submit(self.make.create("/after"))
        store = await self.reopened()
        assert [inode.path for inode in await store.walk("/")] == ["/after"]
        self.flushLoggedErrors()

    async def test_a_failed_fsync_that_was_overwritten(self) -> None:
        """When a further commit succeeds, the failed one is certain not to have happened."""
        await self.fails_with(MetadataUnavailable, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_FSYNC, 0)
        assert self.observer.errors
        assert self.observer.commits == 1

    async def test_a_failed_fsync_that_stays(self) -> None:
        """When no further commit succeeds, it can't be told what a crash would bring back."""
        await self.fails_with(OutcomeUnknown, *[sqlite3.SQLITE_IOERR_FSYNC] * 4)

    async def test_a_full_disk(self) -> None:
        """A log that couldn't be written to its end has no commit in it."""
        await self.fails_with(InsufficientStorage, *[sqlite3.SQLITE_FULL] * 4)

    async def test_a_failed_write(self) -> None:
        """The same for any error of a write."""
        await self.fails_with(MetadataUnavailable, *[sqlite3.SQLITE_IOERR_WRITE] * 4)


class FailedWriterTests(SqliteBinding, TestCase):
    """A writer that meets a fault of the program itself."""

    base_folder = TMPFS

    async def test_nobody_waits_for_a_writer_that_is_gone(self) -> None:
        """What it had is of unknown outcome, what comes later is refused, readiness says so, reads go on."""

        def reached(step: str) -> None:
            raise RuntimeError(f"fault at {step}")

        make = Commands()
        store = await self.opened(self.folder() / "callfs.sqlite3", reached=reached)
        await failure(store.apply(make.create("/f")), OutcomeUnknown)
        await failure(store.apply(make.create("/g")), MetadataUnavailable)
        await failure(store.check(), MetadataUnavailable)
        assert await store.get("/") is not None
        assert len(self.flushLoggedErrors(RuntimeError)) == 1
