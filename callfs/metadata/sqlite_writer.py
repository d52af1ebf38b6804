"""
The one writer of the SQLite store: a thread that commits all waiting commands together.

While one transaction is on its way to the disk the next commands gather, so a commit's one fsync is shared by as
many as have come (group commit). A refused command has written nothing and doesn't touch the others; should one
fail otherwise, all are begun anew, each under a savepoint of its own. Nobody is answered before the COMMIT has
succeeded.

A command is in one of three states, changed under one lock: *waiting*, from which it can be withdrawn (it was in
the queue for longer than it may, or nobody wants it any more) and is then certain never to be applied; *taken*,
from where its outcome is awaited; *answered*. The transaction is begun before commands are taken, so whoever can't
be served because another process holds the database's lock is still waiting.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.errors import CallFSError, InternalError, MetadataUnavailable, OutcomeUnknown
from callfs.metadata.commands import Command
from callfs.metadata.sqlite_errors import (
    is_contended,
    is_damaged,
    is_environmental,
    is_full,
    stopped_short,
    translated,
)
from callfs.metadata.sqlite_transaction import Transaction

MAX_BATCH = 512
"""Commands in one transaction, so that the first of many doesn't wait for all."""

_CHECKPOINT_AFTER_CHANGES = 2000
_RESTART_AFTER_FRAMES = 16_384
_SETTLING_ATTEMPTS = 3

Outcome = Any
"""A result, or a Failure."""


class StoreObserver(Protocol):
    """Who is told what happens in the store; called on the reactor's thread."""

    def metadata_group_commit(self) -> None:
        """A transaction with one or more commands was committed."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong that its operator should know."""


class _Waiting:
    """A command in the queue."""

    __slots__ = ("command", "deferred", "taken", "timeout")

    def __init__(self, command: Command[Any], deferred: Deferred[Any]) -> None:
        self.command = command
        self.deferred = deferred
        self.taken = False
        self.timeout: IDelayedCall | None = None


class CommandWriter:
    """
    The writer's thread and its queue. All methods are called on the reactor's thread.

    :param connection: for this thread alone, from :meth:`start` on; closed by it.
    :param reactor: carries answers back.
    :param clock: measures how long a command has waited.
    :param op_timeout_seconds: how long a command may wait in the queue.
    :param reached: called on the writer's thread at the named steps of a commit.
    """

    _log = Logger()

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        reactor: IReactorFromThreads,
        clock: IReactorTime,
        op_timeout_seconds: float,
        observer: StoreObserver,
        reached: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._reactor = reactor
        self._clock = clock
        self._op_timeout_seconds = op_timeout_seconds
        self._observer = observer
        self._reached = reached
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._failed = False
        self._batch: list[_Waiting] = []
        self._stopped: Deferred[None] = Deferred()
        self._changes_at_checkpoint = 0

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="callfs-metadata-writer", daemon=True).start()

    def submit(self, command: Command[Any]) -> Deferred[Any]:
        """
        Queue a command.

        :return: fires with its result once it is durable. Cancelled while the command waits, it is withdrawn.
        """
        deferred: Deferred[Any] = Deferred(lambda _: self._cancelled(waiting))
        waiting = _Waiting(command, deferred)
        with self._changed:
            if self._stopping:
                deferred.errback(MetadataUnavailable("the metadata store is closed"))
                return deferred
            self._queue.append(waiting)
            self._changed.notify()
        waiting.timeout = self._clock.callLater(self._op_timeout_seconds, self._expire, waiting)
        return deferred

    def check(self) -> None:
        """
        See whether the thread is well.

        :raises callfs.errors.MetadataUnavailable: it has met a fault that it couldn't go on after.
        """
        if self._failed:
            raise MetadataUnavailable("the metadata store takes no changes: restart the daemon", 60)

    def stop(self) -> Deferred[None]:
        """Take no more commands, finish those that are there, close the connection."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        return self._stopped

    def _cancelled(self, waiting: _Waiting) -> None:
        self._withdraw(waiting)

    def _withdraw(self, waiting: _Waiting) -> bool:
        """Take a command back; false when the writer has it already."""
        with self._changed:
            if waiting.taken:
                return False
            self._queue.remove(waiting)
        if waiting.timeout is not None and waiting.timeout.active():
            waiting.timeout.cancel()
        return True

    def _expire(self, waiting: _Waiting) -> None:
        if self._withdraw(waiting):
            self._observer.error("metadata", "timeout")
            waiting.deferred.errback(
                MetadataUnavailable("the metadata store didn't get to this change in time; nothing was changed")
            )

    def _answer(self, batch: list[_Waiting], outcomes: list[Outcome], committed: bool) -> None:
        """On the reactor's thread."""
        if committed:
            self._observer.metadata_group_commit()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.timeout is not None and waiting.timeout.active():
                waiting.timeout.cancel()
            if not waiting.deferred.called:
                waiting.deferred.callback(outcome)

    # From here on the writer's thread.

    def _run(self) -> None:
        try:
            while self._wait():
                self._commit_waiting()
        except BaseException:
            self._log_failure("the metadata writer failed: no more changes are taken until a restart")
            self._give_up()
        finally:
            self._connection.close()
            self._reactor.callFromThread(self._stopped.callback, None)

    def _give_up(self) -> None:
        """Leave nobody waiting for a thread that is gone."""
        with self._changed:
            self._stopping = self._failed = True
        taken, waiting = self._batch, []
        while batch := self._take():
            waiting += batch
        lost = Failure(OutcomeUnknown("the metadata store failed while it stored this change"))
        refused = Failure(MetadataUnavailable("the metadata store takes no changes", 60))
        self._reactor.callFromThread(self._answer, taken, [lost for _ in taken], False)
        self._reactor.callFromThread(self._answer, waiting, [refused for _ in waiting], False)

    def _log_failure(self, sentence: str, **fields: str) -> None:
        self._reactor.callFromThread(self._log.failure, sentence, Failure(), **fields)

    def _wait(self) -> bool:
        """Wait for commands; false when there are none and will be none."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            return bool(self._queue)

    def _take(self) -> list[_Waiting]:
        with self._changed:
            batch = [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]
            for waiting in batch:
                waiting.taken = True
        self._batch = batch
        return batch

    def _commit_waiting(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            # Another process has the lock: it was waited for, and is again as long as somebody wants to write.
            if not is_contended(error):
                self._fail(self._take(), translated(error), error)
            return
        batch = self._take()
        try:
            outcomes = self._outcomes([waiting.command for waiting in batch])
        except sqlite3.Error as error:
            self._roll_back()
            self._fail(batch, translated(error), error)
            self._make_room_after(error)
            return
        self._commit(batch, outcomes)

    def _outcomes(self, commands: list[Command[Any]]) -> list[Outcome]:
        """
        Apply commands in the transaction that is open.

        :raises sqlite3.Error: disk, memory or locks failed; the whole transaction is to be given up.
        """
        try:
            return self._together(commands)
        except Exception as error:
            _raise_environmental(error)
            # One command is to blame, and is to have no effect; the others are to have theirs.
            self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            return [self._alone(command) for command in commands]

    def _together(self, commands: list[Command[Any]]) -> list[Outcome]:
        transaction = Transaction(self._connection)
        transaction.expect(commands)
        outcomes: list[Outcome] = []
        for command in commands:
            try:
                outcomes.append(transaction.apply(command))
            except CallFSError:
                outcomes.append(Failure())
        transaction.settle()
        return outcomes

    def _alone(self, command: Command[Any]) -> Outcome:
        """Apply one command under a savepoint of its own."""
        self._connection.execute("SAVEPOINT command")
        transaction = Transaction(self._connection)
        try:
            result = transaction.apply(command)
            transaction.settle()
        except CallFSError:
            outcome: Outcome = Failure()
        except Exception as error:
            _raise_environmental(error)
            self._log_failure("metadata command {name} failed", name=type(command).__name__)
            outcome = Failure(InternalError("the metadata store couldn't apply this change; nothing was changed"))
        else:
            self._connection.execute("RELEASE command")
            return result
        self._connection.execute("ROLLBACK TO command")
        self._connection.execute("RELEASE command")
        return outcome

    def _commit(self, batch: list[_Waiting], outcomes: list[Outcome]) -> None:
        self._reached("metadata.before_commit")
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if self._settled() or stopped_short(error):
                self._fail(batch, translated(error), error)
            else:
                self._fail(batch, OutcomeUnknown("the metadata store failed while it stored this change"), error)
            self._make_room_after(error)
            return
        self._reached("metadata.after_commit")
        self._reactor.callFromThread(self._answer, batch, outcomes, True)
        self._checkpoint_if_due()

    def _roll_back(self) -> None:
        """Some errors have rolled back already."""
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._log_failure("rollback of a metadata transaction failed")

    def _settled(self) -> bool:
        """
        Make sure that a commit which failed has not happened and never will.

        SQLite takes it as rolled back, but its frames may be in the write-ahead log, last one included, and would
        come to life when the log is read after a crash. The next commit is written over them.
        """
        for _ in range(_SETTLING_ATTEMPTS):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute("UPDATE store SET settled = settled + 1")
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()
            else:
                return True
        return False

    def _fail(self, batch: list[_Waiting], answer: CallFSError, cause: sqlite3.Error) -> None:
        self._reactor.callFromThread(self._report, cause)
        self._reactor.callFromThread(self._answer, batch, [Failure(answer) for _ in batch], False)

    def _report(self, cause: sqlite3.Error) -> None:
        report_fault(self._log, self._observer, cause)

    def _checkpoint_if_due(self) -> None:
        """
        Bring the log's frames into the database file, which readers never do; after the answers, so that nobody
        waits for it. When readers have kept the log from starting over for long, insist for a moment.
        """
        if self._connection.total_changes - self._changes_at_checkpoint >= _CHECKPOINT_AFTER_CHANGES:
            self._checkpoint()

    def _make_room_after(self, error: sqlite3.Error) -> None:
        """
        On a full disk the log can't grow. Begun anew it needs no room but its own, so that what frees the disk, the
        removal of files above all, isn't refused for ever.
        """
        if is_full(error):
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._changes_at_checkpoint = self._connection.total_changes
        try:
            frames = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0][1]
            if frames > _RESTART_AFTER_FRAMES:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            self._reactor.callFromThread(self._report, error)


def _raise_environmental(error: Exception) -> None:
    if isinstance(error, sqlite3.Error) and is_environmental(error):
        raise error


def report_fault(log: Logger, observer: StoreObserver, cause: sqlite3.Error) -> None:
    """Tell the operator of a fault of the store; on the reactor's thread."""
    name = getattr(cause, "sqlite_errorname", type(cause).__name__)
    observer.error("metadata", name)
    if is_damaged(cause):
        log.critical(
            "the metadata database is DAMAGED ({error}): stop the daemon, keep a copy, restore a backup",
            error=str(cause),
            code=name,
        )
    else:
        log.error("the metadata database failed: {error}", error=str(cause), code=name)
