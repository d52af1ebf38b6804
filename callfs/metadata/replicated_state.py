"""
A node's copy of the replicated state: the log's commands are applied to an SQLite metadata store.

The applied index moves in the transaction that has the commands' effects. Commits needn't be durable, because the
log is: after a power failure the state is what it was at some earlier entry, and the log has the rest.
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from callfs.cluster.interfaces import (
    ISnapshot,
    IStateMachine,
    Outcome,
    SnapshotMeta,
    StateUnusable,
    Step,
)
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage, MetadataUnavailable
from callfs.identifiers import TokenBytes
from callfs.metadata.replicated_apply import Execution, Halted, StatePart, follows_from_state
from callfs.metadata.replicated_codec import COMMAND_VERSION
from callfs.metadata.replicated_file import STATE_FOLDER, StateFolder, SwitchFailed, record, recorded
from callfs.metadata.replicated_sessions import Sessions
from callfs.metadata.replicated_snapshot import SnapshotFolder
from callfs.metadata.sqlite_errors import is_damaged, is_full
from callfs.metadata.sqlite_file import DatabaseFile
from callfs.metadata.sqlite_readers import Readers
from callfs.metadata.sqlite_writer import StoreObserver, report_fault

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT)

_BUSY_SECONDS = 10.0
_RESTART_AFTER_FRAMES = 16_384
_RESTART_BUSY_MILLISECONDS = 100
_TIDY_AFTER = 8000
"""Pages in the write-ahead log, about: one an entry, and some more a commit."""
_WORTH_OF_A_COMMIT = 7


@implementer(IStateMachine)
class MetadataState:
    """
    The state machine of a cluster's metadata.

    :param folder: ``raft.data_dir``: the state and its copies are in folders of their own there.
    :param reactor: on whose thread all methods are called.
    :param pool: threads for applying and copying; not those of long queries.
    :param query_pool: threads for long queries.
    :param op_timeout_seconds: how long a read may take.
    :param retained_snapshots: how many copies that were made for other nodes are kept.
    :param parts: what else is replicated, by the first byte of its commands; the same on all nodes.
    :param reached: called on whatever thread at the named steps of an installation.
    :ivar readers: for reading the state as it is; ``None`` while another is put in place, see :meth:`reading`.
    """

    command_version = COMMAND_VERSION
    _log = Logger()

    def __init__(
        self,
        folder: Path,
        *,
        reactor: IReactorFromThreads,
        pool: ThreadPool,
        query_pool: ThreadPool,
        token_bytes: TokenBytes,
        op_timeout_seconds: float,
        observer: StoreObserver,
        retained_snapshots: int = 2,
        parts: Mapping[bytes, StatePart] | None = None,
        clock: IReactorTime | None = None,
        reached: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._reactor = reactor
        self._clock = IReactorTime(reactor) if clock is None else clock
        self._pool = pool
        self._query_pool = query_pool
        self._op_timeout_seconds = op_timeout_seconds
        self._observer = observer
        self._parts = dict(parts or {})
        schemas = tuple(part.schema for part in self._parts.values())
        self._folder = StateFolder(folder / STATE_FOLDER, token_bytes, _BUSY_SECONDS, schemas, reached)
        self._snapshots = SnapshotFolder(folder / "snapshots", token_bytes, retained_snapshots)
        self._file: DatabaseFile | None = None
        self._connection: sqlite3.Connection | None = None
        self._meta: SnapshotMeta | None = None
        self._log_at = 0
        self._untidied = 0
        self._broken = "the state isn't open"
        self._replacing = False
        self._want_readers: list[Deferred[Readers]] = []
        self.readers: Readers | None = None

    @returns_deferred
    async def open(self) -> SnapshotMeta:
        """See :meth:`IStateMachine.open`."""
        meta = await self._threaded(self._open)
        self._begin_reading()
        return meta

    def _open(self) -> SnapshotMeta:
        self._file = self._folder.open()
        self._snapshots.clean()
        return self._begin_writing()

    def _begin_writing(self) -> SnapshotMeta:
        assert self._file is not None
        connection = self._file.writer(_BUSY_SECONDS)
        connection.execute("PRAGMA synchronous = NORMAL")
        self._connection = connection
        self._untidied = 0
        self._meta = recorded(connection)
        self._log_at = connection.execute("SELECT log_at FROM raft_state").fetchall()[0][0]
        for part in self._parts.values():
            part.replaced(connection)
        return self._meta

    def _begin_reading(self) -> None:
        assert self._file is not None
        self.readers = Readers(
            self._file.reader,
            reactor=self._reactor,
            clock=self._clock,
            pool=self._query_pool,
            op_timeout_seconds=self._op_timeout_seconds,
            observer=self._observer,
        )
        self._tell_parts()

    def _tell_parts(self) -> None:
        for part in self._parts.values():
            try:
                part.committed()
            except Exception:
                # What was applied is applied, whatever becomes of the news.
                self._log.failure("a part of the replicated state couldn't be told of a change")

    def reading(self) -> Deferred[Readers]:
        """
        Fires with :attr:`readers`, should another state be put in place once that is done.

        :raises callfs.errors.MetadataUnavailable: the state isn't open, or has failed.
        """
        wanted: Deferred[Readers] = Deferred()
        self._want_readers.append(wanted)
        self._give_readers()
        return wanted

    def _give_readers(self) -> None:
        if self.readers is None and self._replacing:
            return
        wanting, self._want_readers = self._want_readers, []
        for wanted in wanting:
            if wanted.called:
                continue
            if self.readers is None:
                wanted.errback(MetadataUnavailable("this node's copy of the metadata isn't open"))
            else:
                wanted.callback(self.readers)

    @returns_deferred
    async def apply(self, steps: Sequence[Step]) -> Sequence[Outcome]:
        """See :meth:`IStateMachine.apply`."""
        outcomes = await self._threaded(self._apply, steps)
        self._tell_parts()
        return outcomes

    def _apply(self, steps: Sequence[Step]) -> list[Outcome]:
        connection, before = self._opened()
        if self._untidied >= _TIDY_AFTER:
            self._tidy(connection)
        try:
            outcomes = self._committed(connection, before, steps, one_by_one=False)
        except Exception as error:
            if not follows_from_state(error):
                raise
            # One command is to blame, and is to have no effect; the others are to have theirs.
            outcomes = self._committed(connection, before, steps, one_by_one=True)
        self._untidied += len(steps) + _WORTH_OF_A_COMMIT
        if self._untidied >= _TIDY_AFTER:
            self._tidy(connection)
        return outcomes

    def _committed(
        self, connection: sqlite3.Connection, before: SnapshotMeta, steps: Sequence[Step], one_by_one: bool
    ) -> list[Outcome]:
        for part in self._parts.values():
            part.begun()
        connection.execute("BEGIN IMMEDIATE")
        sessions = Sessions(connection, self._log_at)
        execution = Execution(connection, self._parts, self._report, one_by_one)
        outcomes: list[Outcome] = []
        try:
            meta = self._advanced(connection, before, steps)
            execution.expect(steps)
            for step in steps:
                outcomes.append(execution.outcome(sessions, step))
            execution.settle()
            sessions.store()
            record(connection, meta, sessions.log_at)
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and _no_room(error):
                # Much of what fills the disk may be the write-ahead log: what room comes is used to empty it first.
                self._untidied = _TIDY_AFTER
            raise
        self._meta, self._log_at = meta, sessions.log_at
        return outcomes

    def _report(self) -> None:
        self._reactor.callFromThread(self._log.failure, "a replicated command failed", Failure())

    def _advanced(
        self, connection: sqlite3.Connection, before: SnapshotMeta, steps: Sequence[Step]
    ) -> SnapshotMeta:
        """How far the state goes after these steps."""
        membership = before.membership
        for expected, step in enumerate(steps, before.index + 1):
            if step.index != expected:
                raise Halted(f"entry {step.index} of the log came after {expected - 1}")
            if step.membership is not None:
                if not membership.cluster_id:
                    # One cluster, one store: its identity is the same on all nodes.
                    connection.execute("UPDATE store SET id = ?", (store_id_of(step.membership.cluster_id),))
                membership = step.membership
        return SnapshotMeta(steps[-1].index, steps[-1].term, membership)

    def checkpoint(self) -> Deferred[int]:
        """See :meth:`IStateMachine.checkpoint`."""
        return self._threaded(self._checkpoint)

    def _checkpoint(self) -> int:
        """A commit that is synchronised makes all frames before its own durable as well."""
        connection, meta = self._opened()
        connection.execute("PRAGMA synchronous = FULL")
        try:
            connection.execute("UPDATE raft_state SET settled = settled + 1")
        finally:
            connection.execute("PRAGMA synchronous = NORMAL")
        self._tidy(connection)
        return meta.index

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Bring what is in the write-ahead log into the database, so that the former doesn't grow."""
        self._untidied = 0
        try:
            frames = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0][1]
            if frames > _RESTART_AFTER_FRAMES:
                # Waits for long reads, while nothing is applied: not for long.
                connection.execute(f"PRAGMA busy_timeout = {_RESTART_BUSY_MILLISECONDS}")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
        except sqlite3.Error as error:
            if not _no_room(error):  # without room it stays where it is, and is as durable there
                raise

    def snapshot(self) -> Deferred[ISnapshot]:
        """See :meth:`IStateMachine.snapshot`."""
        return self._threaded(self._copy)

    def _copy(self) -> ISnapshot:
        assert self._file is not None
        return self._snapshots.make(self._file, lambda work: deferToThreadPool(self._reactor, self._pool, work))

    @returns_deferred
    async def install(self, file: Path, meta: SnapshotMeta) -> None:
        """See :meth:`IStateMachine.install`."""
        assert self._file is not None
        try:
            replacement = await self._threaded(self._folder.replace, file, meta)
        except SwitchFailed as error:
            await self._break(str(error))
            raise
        except InsufficientStorage as error:
            raise StateUnusable("there is no room on the disk for the state that a peer sent") from error
        old, self._file = self._file, replacement
        self._replacing = True
        try:
            await self._stop()
            await self._threaded(self._folder.forget, old)
            await self._threaded(self._begin_writing)
            self._begin_reading()
        except Exception as error:
            await self._break(f"another state couldn't be put in place: {error}")
            raise
        finally:
            self._replacing = False
            self._give_readers()

    async def _break(self, reason: str) -> None:
        """Go on with no state rather than with one that may not be the one in force."""
        self._broken = reason
        await self._stop()

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`IStateMachine.close`."""
        try:
            await self._stop()
        finally:
            self._folder.close()

    async def _stop(self) -> None:
        readers, self.readers = self.readers, None
        if readers is not None:
            await readers.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._threaded(connection.close)

    def _opened(self) -> tuple[sqlite3.Connection, SnapshotMeta]:
        if self._connection is None or self._meta is None:
            raise Halted(self._broken)
        return self._connection, self._meta

    @returns_deferred
    async def _threaded(self, work: Callable[..., T], *args: Any) -> T:
        """Do work in the pool; faults become those of :class:`IStateMachine`."""
        try:
            result: T = await deferToThreadPool(self._reactor, self._pool, work, *args)
        except Halted as error:
            raise StateUnusable(str(error)) from error
        except sqlite3.Error as error:
            report_fault(self._log, self._observer, error)
            raise _meaning(error) from error
        except OSError as error:
            if error.errno in _FULL:
                raise InsufficientStorage("the disk of the metadata is full") from error
            raise StateUnusable(f"the disk of the replicated metadata failed: {error.strerror or error}") from error
        return result


def _meaning(error: sqlite3.Error) -> Exception:
    if _no_room(error):
        return InsufficientStorage("the disk of the metadata is full")
    if is_damaged(error):
        return StateUnusable(
            f"the replicated metadata of this node is damaged ({error}): remove the node from the cluster, empty "
            "its raft.data_dir, and join it again"
        )
    return StateUnusable(f"the replicated metadata of this node can't be used: {error}")


def _no_room(error: sqlite3.Error) -> bool:
    """Whether the disk is full; growing the index of the write-ahead log fails with a code of its own then."""
    return is_full(error) or getattr(error, "sqlite_errorcode", -1) == sqlite3.SQLITE_IOERR_SHMSIZE


def store_id_of(cluster_id: str) -> str:
    """The identity of the store that a cluster keeps, 32 hex digits."""
    return hashlib.sha256(b"callfs store of " + cluster_id.encode()).hexdigest()[:32]
