"""
A node's copy of the replicated state: the log's commands are applied to an SQLite metadata store.

The applied index moves in the transaction that has the commands' effects. Commits needn't be durable, because the
log is: after a power failure the state is what it was at some earlier entry, and the log has the rest.
"""

from __future__ import annotations

import errno
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
    IForesightedState,
    ISnapshot,
    Outcome,
    SnapshotMeta,
    StateUnusable,
    Step,
)
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage, MetadataUnavailable
from callfs.identifiers import TokenBytes
from callfs.metadata.own_thread import OwnThread
from callfs.metadata.replicated_apply import Halted, StatePart
from callfs.metadata.replicated_codec import COMMAND_VERSION
from callfs.metadata.replicated_file import STATE_FOLDER, StateFolder, SwitchFailed
from callfs.metadata.replicated_snapshot import SnapshotFolder
from callfs.metadata.replicated_writing import StateWriter, are_metadata, no_room
from callfs.metadata.sqlite_errors import is_damaged
from callfs.metadata.sqlite_file import DatabaseFile
from callfs.metadata.sqlite_readers import Readers
from callfs.metadata.sqlite_writer import StoreObserver, report_fault

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT)

_BUSY_SECONDS = 10.0


@implementer(IForesightedState)
class MetadataState:
    """
    The state machine of a cluster's metadata.

    :param folder: ``raft.data_dir``: the state and its copies are in folders of their own there.
    :param reactor: on whose thread all methods are called.
    :param pool: threads for copying; not those of long queries.
    :param query_pool: threads for long queries.
    :param op_timeout_seconds: how long a read may take.
    :param retained_snapshots: how many copies that were made for other nodes are kept.
    :param parts: what else is replicated, by the first byte of its commands; the same on all nodes.
    :param reached: called on whatever thread at the named steps of an installation, and of applying (see
        :class:`~callfs.metadata.replicated_writing.StateWriter`).
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
        self._reached = reached
        self._thread = OwnThread("callfs-raft-state", reactor)
        self._folder = StateFolder(folder / STATE_FOLDER, token_bytes, _BUSY_SECONDS, schemas, reached)
        self._snapshots = SnapshotFolder(folder / "snapshots", token_bytes, retained_snapshots)
        self._file: DatabaseFile | None = None
        self._writer: StateWriter | None = None
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
        try:
            self._writer = StateWriter(
                connection,
                busy_seconds=_BUSY_SECONDS,
                parts=self._parts,
                failed=self._report,
                reached=self._reached,
            )
        except BaseException:
            connection.close()
            raise
        return self._writer.meta

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

    def apply(self, steps: Sequence[Step]) -> Deferred[Sequence[Outcome]]:
        """See :meth:`IStateMachine.apply`."""
        return self._threaded(self._apply, steps).addCallback(self._told)

    def _apply(self, steps: Sequence[Step]) -> Sequence[Outcome]:
        return self._opened().apply(steps)

    def _told(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        self._tell_parts()
        return outcomes

    def prepare(self, steps: Sequence[Step]) -> Callable[[], Deferred[Sequence[Outcome] | None]]:
        """See :meth:`IForesightedState.prepare`."""
        return self._thread.begin(self._prepare, steps).result

    def _prepare(self, steps: Sequence[Step]) -> Sequence[Outcome] | None:
        writer = self._writer
        return None if writer is None else writer.prepare(steps)

    def can_wait(self, steps: Sequence[Step]) -> bool:
        """See :meth:`IForesightedState.can_wait`."""
        return are_metadata(steps)

    def _report(self) -> None:
        self._reactor.callFromThread(self._log.failure, "a replicated command failed", Failure())

    def checkpoint(self) -> Deferred[int]:
        """See :meth:`IStateMachine.checkpoint`."""
        return self._threaded(lambda: self._opened().checkpoint())

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
            self._thread.end()
            self._folder.close()

    async def _stop(self) -> None:
        readers, self.readers = self.readers, None
        if readers is not None:
            await readers.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            await self._threaded(writer.close)

    def _opened(self) -> StateWriter:
        if self._writer is None:
            raise Halted(self._broken)
        return self._writer

    def _threaded(self, work: Callable[..., T], *args: Any) -> Deferred[T]:
        """Do work in the state's thread; faults become those of :class:`IStateMachine`."""
        return self._thread.run(work, *args).addErrback(self._explained)

    def _explained(self, failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, Halted):
            raise StateUnusable(str(error)) from error
        if isinstance(error, sqlite3.Error):
            report_fault(self._log, self._observer, error)
            raise _meaning(error) from error
        if isinstance(error, OSError):
            if error.errno in _FULL:
                raise InsufficientStorage("the disk of the metadata is full") from error
            raise StateUnusable(f"the disk of the replicated metadata failed: {error.strerror or error}") from error
        return failure


def _meaning(error: sqlite3.Error) -> Exception:
    if no_room(error):
        return InsufficientStorage("the disk of the metadata is full")
    if is_damaged(error):
        return StateUnusable(
            f"the replicated metadata of this node is damaged ({error}): remove the node from the cluster, empty "
            "its raft.data_dir, and join it again"
        )
    return StateUnusable(f"the replicated metadata of this node can't be used: {error}")
