"""Metadata in an SQLite database: the store of a single node, and each node's copy under raft."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from callfs.deferreds import returns_deferred
from callfs.errors import MetadataUnavailable
from callfs.identifiers import TokenBytes
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import IMetadataStore, UnfinishedImport
from callfs.metadata.sqlite_file import DatabaseFile, FileLock
from callfs.metadata.sqlite_readers import Readers
from callfs.metadata.sqlite_reads import SqliteReads
from callfs.metadata.sqlite_writer import CommandWriter, StoreObserver
from callfs.metadata.transfer import Record

R = TypeVar("R")

_WRITER_BUSY_SECONDS = 0.1
"""How long one attempt to begin a transaction waits for another process; attempts follow each other."""


class Unobserved:
    """An observer that doesn't look."""

    def metadata_group_commit(self) -> None:
        """A transaction was committed."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""


@implementer(IMetadataStore)
class SqliteStore(SqliteReads):
    """
    The store in one database file.

    :param path: of the file, made if missing; its folder must exist. Beside it come ``-wal``, ``-shm``, ``-lock``.
    :param reactor: on whose thread all methods are called; point reads run there.
    :param pool: threads for what takes longer; it must run from :meth:`open` until :meth:`close` has fired.
    :param token_bytes: makes the identity of a new store.
    :param op_timeout_seconds: how long a command may wait for the writer, and how long a read may take.
    :param clock: measures that; the reactor when ``None``.
    :param read_only: for a tool beside a running daemon: no lock is taken and every command refused.
    :param observer: is told of commits and faults.
    :param reached: called, on the writer's thread, with the name of a step when a commit reaches it:
        ``metadata.before_commit``, ``metadata.after_commit``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        reactor: IReactorFromThreads,
        pool: ThreadPool,
        token_bytes: TokenBytes,
        op_timeout_seconds: float,
        clock: IReactorTime | None = None,
        read_only: bool = False,
        observer: StoreObserver | None = None,
        reached: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.store_id = ""
        self.was_empty = False
        self._reactor = reactor
        self._pool = pool
        self._token_bytes = token_bytes
        self._op_timeout_seconds = op_timeout_seconds
        self._clock = IReactorTime(reactor) if clock is None else clock
        self._observer: StoreObserver = Unobserved() if observer is None else observer
        self._reached = reached
        self._file = DatabaseFile(Path(path), read_only, op_timeout_seconds)
        self._lock = FileLock(Path(path))
        self._readers: Readers | None = None
        self._writer: CommandWriter | None = None

    @returns_deferred
    async def open(self, importing: bool = False) -> None:
        """
        Take the lock, make or upgrade the database, and start.

        :param importing: open also a store with an unfinished import.
        :raises callfs.metadata.interfaces.StoreUnusable: as its message says; nothing is held then.
        """
        try:
            writing = await deferToThreadPool(self._reactor, self._pool, self._prepare, importing)
            self._readers = self._new_readers()
        except BaseException:
            self._lock.release()
            raise
        if writing is not None:
            self._writer = self._new_writer(writing)
            self._writer.start()

    def _new_readers(self) -> Readers:
        return Readers(
            self._file.reader,
            reactor=self._reactor,
            clock=self._clock,
            pool=self._pool,
            op_timeout_seconds=self._op_timeout_seconds,
            observer=self._observer,
        )

    def _new_writer(self, connection: sqlite3.Connection) -> CommandWriter:
        return CommandWriter(
            connection,
            reactor=self._reactor,
            clock=self._clock,
            op_timeout_seconds=self._op_timeout_seconds,
            observer=self._observer,
            reached=self._reached,
        )

    def _prepare(self, importing: bool) -> sqlite3.Connection | None:
        """On a thread of the pool: all that may take long. The writer's connection, unless read-only."""
        if not self._file.read_only:
            self._file.check_place()
            self._lock.acquire()
        self._file.check_write_ahead_log()
        self._file.prepare(self._token_bytes)
        connection = self._file.reader(may_wait=True)
        try:
            self.store_id = connection.execute("SELECT id FROM store").fetchall()[0][0]
            self.was_empty = queries.is_empty(connection)
            if not importing and queries.unfinished_import(connection) is not None:
                raise UnfinishedImport
        finally:
            connection.close()
        return None if self._file.read_only else self._file.writer(_WRITER_BUSY_SECONDS)

    @returns_deferred
    async def close(self) -> None:
        """Finish the commands under way, cut reads short, close the file, give the lock back."""
        readers, self._readers = self._readers, None
        writer, self._writer = self._writer, None
        # The writer goes last: the last connection to close brings the log into the database file.
        if readers is not None:
            await readers.close()
        if writer is not None:
            await writer.stop()
        self._lock.release()

    @returns_deferred
    async def check(self) -> None:
        """
        Fires when the database can be read and its writer is well.

        :raises callfs.errors.MetadataUnavailable: otherwise.
        """
        if self._writer is not None:
            self._writer.check()
        await self._inline(_probe)

    def apply(self, command: Command[R]) -> Deferred[R]:
        """
        Apply a command: durable when the Deferred fires.

        Cancelled while it waits for the writer, or there for longer than the time limit, it is withdrawn; once the
        writer has it, it goes on to its end.
        """
        if self._writer is None:
            reason = "was opened for reading only" if self._file.read_only else "isn't open"
            return fail(MetadataUnavailable(f"the metadata store {reason}"))
        return self._writer.submit(command)

    def export(self, consume: Callable[[Sequence[Record]], None]) -> Deferred[None]:
        """Give out everything, in one view, also beside a daemon; ``consume`` is called on a thread of the pool."""
        return self._threaded(queries.export, consume, limited=False)

    def _inline(self, query: Callable[..., R], *args: Any) -> Deferred[R]:
        return _not_open() if self._readers is None else self._readers.inline(query, *args)

    def _threaded(self, query: Callable[..., R], *args: Any, limited: bool = True) -> Deferred[R]:
        return _not_open() if self._readers is None else self._readers.threaded(query, *args, limited=limited)

    def _page(self, limit: int, query: Callable[..., Sequence[R]], *args: Any) -> Deferred[Sequence[R]]:
        return _not_open() if self._readers is None else self._readers.page(limit, query, *args)


def _probe(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT id FROM store").fetchall()


def _not_open() -> Deferred[Any]:
    return fail(MetadataUnavailable("the metadata store isn't open"))
