"""Metadata in PostgreSQL: the store of clusters that have such a server already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from callfs.deferreds import returns_deferred
from callfs.errors import CallFSError, MetadataUnavailable
from callfs.identifiers import TokenBytes
from callfs.metadata import postgres_queries as queries
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import (
    IMetadataStore,
    ReplicationBacklog,
    StoreStatistics,
    StoreUnusable,
    UnfinishedImport,
)
from callfs.metadata.lanes import Lanes
from callfs.metadata.postgres_applying import Applying
from callfs.metadata.postgres_attempts import Attempts, FaultObserver, pauses
from callfs.metadata.postgres_commit import forget_applied
from callfs.metadata.postgres_errors import lost_connection, may_come_up, text_of
from callfs.metadata.postgres_moving import Export
from callfs.metadata.postgres_pool import Attempt, ConnectionPool, ConnectionString
from callfs.metadata.postgres_schema import Opened, migrations, prepare
from callfs.metadata.transfer import Record
from callfs.model import BlobRef, Garbage, Inode, Instance, Link, Replication

R = TypeVar("R")

_FORGET_EVERY_SECONDS = 300.0
_FORGET_AT_ONCE = 10_000


class Unobserved:
    """An observer that doesn't look."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""


@implementer(IMetadataStore)
class PostgresStore:
    """
    The store in one schema of a PostgreSQL database, for any number of nodes.

    Reads go to the primary and see all that was committed before they began. A command that was lost on the way is
    tried again, and one whose COMMIT got no answer is looked up; both within time limits.

    :param dsn: what libpq understands, as it is: a URL or ``key=value`` pairs. Never shown.
    :param reactor: on whose thread all methods are called.
    :param token_bytes: makes the identity of a new store, and ids of commands.
    :param op_timeout_seconds: for an operation, the waiting for a connection included. A command whose COMMIT was
        sent by then is looked up for as long again.
    :param pool_size: connections at most, and threads. A quarter of them, at least one where there is more than
        one, is left to reads however many commands there are.
    :param clock: measures time; the reactor when ``None``.
    :param observer: is told of faults.
    :param reached: called, on a thread of the pool, with the name of a step when a commit reaches it:
        ``metadata.before_commit``, ``metadata.after_commit``.
    """

    _log = Logger()

    def __init__(
        self,
        dsn: str,
        *,
        reactor: IReactorFromThreads,
        token_bytes: TokenBytes,
        op_timeout_seconds: float,
        pool_size: int,
        clock: IReactorTime | None = None,
        observer: FaultObserver | None = None,
        reached: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.store_id = ""
        self.was_empty = False
        self._dsn = dsn
        self._reactor = reactor
        self._token_bytes = token_bytes
        self._op_timeout_seconds = op_timeout_seconds
        self._pool_size = pool_size
        self._clock = IReactorTime(reactor) if clock is None else clock
        self._observer: FaultObserver = Unobserved() if observer is None else observer
        self._reached = reached
        self._pool: ConnectionPool | None = None
        self._attempts: Attempts | None = None
        self._applying: Applying | None = None
        self._forgetting: IDelayedCall | None = None

    @returns_deferred
    async def open(self, importing: bool = False) -> None:
        """
        Connect, and make or upgrade the tables.

        :param importing: open also a store with an unfinished import.
        :raises StoreUnusable: as its message says; nothing is held then.
        :raises callfs.errors.MetadataUnavailable: the server can't be reached; its message is for the operator.
        """
        dsn = ConnectionString(self._dsn)
        pool = ConnectionPool(
            dsn, reactor=self._reactor, size=self._pool_size, op_timeout_seconds=self._op_timeout_seconds
        )
        pool.start()
        attempts = Attempts(
            pool,
            clock=self._clock,
            op_timeout_seconds=self._op_timeout_seconds,
            observer=self._observer,
            redacted=dsn.redacted,
        )
        try:
            opened = await self._prepared(attempts, dsn)
            if not (opened.is_whole or importing):
                raise UnfinishedImport
        except BaseException:
            await pool.close()
            raise
        self.store_id, self.was_empty = opened.store_id, opened.was_empty
        self._pool, self._attempts = pool, attempts
        self._applying = Applying(
            attempts,
            Lanes(max(1, self._pool_size - max(1, self._pool_size // 4))),
            names_key=opened.names_key,
            token_bytes=self._token_bytes,
            observer=self._observer,
            reached=self._reached,
        )
        self._forget_later()

    async def _prepared(self, attempts: Attempts, dsn: ConnectionString) -> Opened:
        """Making the tables may take as long as it takes; reaching the server may not."""
        deadline = attempts.deadline()
        for pause in pauses():
            attempt = Attempt()
            try:
                return await attempts.once(attempt, None, prepare, self._token_bytes, migrations())
            except psycopg.Error as error:
                reason = dsn.redacted(text_of(error)).strip()
                if not (lost_connection(error) and may_come_up(reason)):
                    raise StoreUnusable(f"can't use the PostgreSQL database: {reason}") from None
                if not await attempts.paused(pause, deadline):
                    raise MetadataUnavailable(f"can't reach the PostgreSQL database: {reason}") from None
        raise AssertionError

    @returns_deferred
    async def close(self) -> None:
        """Finish the commands under way, cut reads short, close the connections."""
        pool, self._pool = self._pool, None
        applying, self._applying = self._applying, None
        attempts, self._attempts = self._attempts, None
        if self._forgetting is not None and self._forgetting.active():
            self._forgetting.cancel()
        if attempts is not None:
            attempts.cut_reads()
        if applying is not None:
            await applying.finished()
        if pool is not None:
            await pool.close()

    def check(self) -> Deferred[None]:
        """
        Fires when the server answers and takes changes.

        :raises callfs.errors.MetadataUnavailable: otherwise.
        """
        return self._read(queries.probe)

    def apply(self, command: Command[R]) -> Deferred[R]:
        """
        Apply a command: durable when the Deferred fires.

        Cancelled before it has a connection it is withdrawn; later, it goes on to its end.
        """
        return _not_open() if self._applying is None else self._applying.submit(command)

    def get(self, path: str) -> Deferred[Inode | None]:
        """The inode at a canonical path."""
        return self._read(queries.get, path)

    def get_by_id(self, inode_id: str) -> Deferred[Inode | None]:
        """The inode with this id."""
        return self._read(queries.get_by_id, inode_id)

    def get_chain(self, path: str) -> Deferred[Sequence[Inode]]:
        """What exists of ``path`` and its ancestors."""
        return self._read(queries.get_chain, path)

    def list_children(
        self, directory_id: str, after_name: str = "", limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of a directory's own entries."""
        return self._read(queries.list_children, directory_id, after_name, limit)

    def walk(
        self, directory: str, after_path: str = "", max_depth: int | None = None, limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of everything below a directory."""
        return self._read(queries.walk, directory, after_path, max_depth, limit)

    def get_link(self, token_hash: bytes) -> Deferred[Link | None]:
        """The link with this hash."""
        return self._read(queries.get_link, token_hash)

    def garbage(
        self, now: int, placement_kind: str, instance_id: str | None, limit: int = 1000
    ) -> Deferred[Sequence[Garbage]]:
        """A page of the garbage queue."""
        return self._read(queries.garbage, now, placement_kind, instance_id, limit)

    def named_blobs(self, blob_ids: Sequence[str]) -> Deferred[frozenset[str]]:
        """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
        return self._read(queries.named_blobs, blob_ids)

    def condemned_blobs(self, before_at: int, after_id: str = "", limit: int = 1000) -> Deferred[Sequence[str]]:
        """A page of the condemned blobs."""
        return self._read(queries.condemned_blobs, before_at, after_id, limit)

    def list_blobs(
        self, after_id: str = "", limit: int = 1000, instance_id: str | None = None
    ) -> Deferred[Sequence[tuple[BlobRef, str]]]:
        """A page of all blobs that inodes name, or of those on one node."""
        return self._read(queries.list_blobs, after_id, instance_id, limit)

    def replications(self, now: int, by: str, limit: int = 1000) -> Deferred[Sequence[Replication]]:
        """A page of the replication queue."""
        return self._read(queries.replications, now, by, limit)

    def replication_backlog(self) -> Deferred[Sequence[ReplicationBacklog]]:
        """What waits in the replication queue, by node, without a time limit."""
        return self._read(queries.replication_backlog, limited=False)

    def instances(self) -> Deferred[Sequence[Instance]]:
        """All nodes that ever registered."""
        return self._read(queries.instances)

    def statistics(self) -> Deferred[StoreStatistics]:
        """Counts over the whole store, without a time limit."""
        return self._read(queries.statistics, limited=False)

    def verify(self) -> Deferred[Sequence[str]]:
        """Check everything that CallFS relies on, without a time limit."""
        return self._read(queries.verify, limited=False)

    @returns_deferred
    async def export(self, consume: Callable[[Sequence[Record]], None]) -> None:
        """Give out everything, in one view; ``consume`` is called on a thread of the pool."""
        export = Export(consume)
        await self._read(export.run, limited=False)
        if export.refused is not None:
            raise export.refused

    def _read(self, query: Callable[..., R], *args: Any, limited: bool = True) -> Deferred[R]:
        if self._attempts is None:
            return _not_open()
        return Deferred.fromCoroutine(self._attempts.read(query, *args, limited=limited))

    def _forget_later(self) -> None:
        self._forgetting = self._clock.callLater(_FORGET_EVERY_SECONDS, self._forget)

    @returns_deferred
    async def _forget(self) -> None:
        """Forget the ids of commands that nobody can ask about any more."""
        try:
            while self._attempts is not None:
                if await self._attempts.read(forget_applied, _FORGET_AT_ONCE) < _FORGET_AT_ONCE:
                    break
        except CallFSError:
            self._log.warn("old ids of metadata commands couldn't be forgotten just now; it is tried again")
        if self._attempts is not None:
            self._forget_later()


def _not_open() -> Deferred[Any]:
    return fail(MetadataUnavailable("the metadata store isn't open"))
