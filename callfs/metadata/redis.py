"""
Metadata in a Redis server, shared by any number of nodes.

How commands are decided and applied is in ``callfs.metadata.redis_commands``, the keys and records in
``schema/redis/common.lua``. Everything is read and written by scripts, each of which sees and leaves a whole state.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from callfs.deferreds import returns_deferred
from callfs.errors import CallFSError, InternalError, MetadataUnavailable
from callfs.identifiers import TokenBytes
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import IMetadataStore, ReplicationBacklog, StoreStatistics
from callfs.metadata.lanes import Lanes, footprint
from callfs.metadata.redis_commands import Commands
from callfs.metadata.redis_opening import open_store, warn_of_weak_persistence
from callfs.metadata.redis_reads import Reads
from callfs.metadata.transfer import Record
from callfs.model import BlobRef, Garbage, Inode, Instance, Link, Replication
from callfs.redis_errors import RedisFault, Refused, translated
from callfs.redis_pool import PoolObserver, RedisPool

R = TypeVar("R")


@implementer(IMetadataStore)
class RedisStore:
    """
    The store behind one Redis server.

    :param address: ``host:port``, ``[v6]:port`` or ``unix:/path``.
    :param token_bytes: makes the identity of a new store, and the ids of commands.
    :param op_timeout_seconds: how long one operation may take altogether.
    :param pool_size: how many connections.
    :param password: for ``AUTH``.
    :param db: the number of the server's database.
    :param key_prefix: what all keys begin with; stores with different ones share a server.
    :param clock: measures time; the reactor when ``None``.
    :param observer: is told of faults.
    """

    _log = Logger()

    def __init__(
        self,
        address: str,
        *,
        reactor: Any,
        token_bytes: TokenBytes,
        op_timeout_seconds: float,
        pool_size: int,
        password: str | None = None,
        db: int = 0,
        key_prefix: str = "callfs:",
        clock: IReactorTime | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        self.store_id = ""
        self.was_empty = False
        self._token_bytes = token_bytes
        self._observer = observer
        self._key = key_prefix + "{fs}:"
        self._new_pool: Callable[[], RedisPool] = lambda: RedisPool(
            address,
            reactor=reactor,
            clock=clock,
            size=pool_size,
            op_timeout_seconds=op_timeout_seconds,
            password=password,
            db=db,
            component="metadata",
            observer=observer,
        )
        self._pool: RedisPool | None = None
        self._reads: Reads | None = None
        self._commands: Commands | None = None
        self._lanes = Lanes()
        self._under_way: set[Deferred[Any]] = set()

    @returns_deferred
    async def open(self, importing: bool = False) -> None:
        """
        Connect, and find or make the store.

        :param importing: open also a store with an unfinished import.
        :raises callfs.metadata.interfaces.StoreUnusable: as its message says; nothing is held then.
        :raises callfs.errors.MetadataUnavailable: the server can't be reached; it may be tried again.
        """
        pool = self._new_pool()
        pool.start()
        try:
            self.store_id, self.was_empty = await open_store(pool, self._key, self._token_bytes, importing)
            await warn_of_weak_persistence(pool)
        except BaseException:
            await pool.stop()
            raise
        self._pool = pool
        self._reads = Reads(pool, self._key, self.store_id, self._meaning)
        self._commands = Commands(pool, self._key, self.store_id, self._token_bytes, self._meaning)

    @returns_deferred
    async def close(self) -> None:
        """Finish the commands under way, then disconnect."""
        self._commands = None
        if self._under_way:
            await DeferredList([_ended(each) for each in self._under_way])
        pool, self._pool, self._reads = self._pool, None, None
        if pool is not None:
            await pool.stop()

    @returns_deferred
    async def apply(self, command: Command[R]) -> R:
        """
        Apply a command: stored when the Deferred fires.

        Commands of this node that meet are applied in the order they were given, see
        ``callfs.metadata.lanes``. A cancelled one may have been applied.
        """
        commands, pool = self._commands, self._pool
        if commands is None or pool is None:
            raise MetadataUnavailable("the metadata store isn't open")
        deadline = pool.deadline()
        turn = self._lanes.enter(footprint(command))
        over: Deferred[None] = Deferred()
        self._under_way.add(over)
        try:
            await turn.come
            result: R = await commands.apply(command, deadline)
            return result
        finally:
            self._lanes.leave(turn)
            self._under_way.discard(over)
            over.callback(None)

    def check(self) -> Deferred[None]:
        """Fires when the server answers for this store."""
        return self._read(lambda reads: reads.check())

    def get(self, path: str) -> Deferred[Inode | None]:
        """The inode at a canonical path."""
        return self._read(lambda reads: reads.get(path))

    def get_by_id(self, inode_id: str) -> Deferred[Inode | None]:
        """The inode with this id."""
        return self._read(lambda reads: reads.get_by_id(inode_id))

    def get_chain(self, path: str) -> Deferred[Sequence[Inode]]:
        """What exists of ``path`` and its ancestors, the root first."""
        return self._read(lambda reads: reads.get_chain(path))

    def list_children(
        self, directory_id: str, after_name: str = "", limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of a directory's own entries."""
        return self._read(lambda reads: reads.list_children(directory_id, after_name, limit))

    def walk(
        self, directory: str, after_path: str = "", max_depth: int | None = None, limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of everything below a directory."""
        return self._read(lambda reads: reads.walk(directory, after_path, max_depth, limit))

    def get_link(self, token_hash: bytes) -> Deferred[Link | None]:
        """The link with this hash."""
        return self._read(lambda reads: reads.get_link(token_hash))

    def garbage(
        self, now: int, placement_kind: str, instance_id: str | None, limit: int = 1000
    ) -> Deferred[Sequence[Garbage]]:
        """A page of the garbage queue."""
        return self._read(lambda reads: reads.garbage(now, placement_kind, instance_id, limit))

    def named_blobs(self, blob_ids: Sequence[str]) -> Deferred[frozenset[str]]:
        """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
        return self._read(lambda reads: reads.named_blobs(blob_ids))

    def condemned_blobs(self, before_at: int, after_id: str = "", limit: int = 1000) -> Deferred[Sequence[str]]:
        """A page of the condemned blobs."""
        return self._read(lambda reads: reads.condemned_blobs(before_at, after_id, limit))

    def list_blobs(
        self, after_id: str = "", limit: int = 1000, instance_id: str | None = None
    ) -> Deferred[Sequence[tuple[BlobRef, str]]]:
        """A page of all blobs that inodes name, or of those on one node."""
        return self._read(lambda reads: reads.list_blobs(after_id, limit, instance_id))

    def replications(self, now: int, by: str, limit: int = 1000) -> Deferred[Sequence[Replication]]:
        """A page of the replication queue."""
        return self._read(lambda reads: reads.replications(now, by, limit))

    def replication_backlog(self) -> Deferred[Sequence[ReplicationBacklog]]:
        """What waits in the replication queue, by node."""
        return self._read(lambda reads: reads.replication_backlog())

    def instances(self) -> Deferred[Sequence[Instance]]:
        """All nodes that ever registered."""
        return self._read(lambda reads: reads.instances())

    def statistics(self) -> Deferred[StoreStatistics]:
        """Counts over the whole store."""
        return self._read(lambda reads: reads.statistics())

    def verify(self) -> Deferred[Sequence[str]]:
        """Check everything, in parts of which each has the usual time limit."""
        return self._read(lambda reads: reads.verify())

    def export(self, consume: Callable[[Sequence[Record]], None]) -> Deferred[None]:
        """Give out everything; ``consume`` is called on the reactor's thread. It fails when anything is changed."""
        return self._read(lambda reads: reads.export(consume))

    @returns_deferred
    async def _read(self, question: Callable[[Reads], Coroutine[Deferred[Any], Any, R]]) -> R:
        if self._reads is None:
            raise MetadataUnavailable("the metadata store isn't open")
        return await question(self._reads)

    def _meaning(self, fault: RedisFault) -> CallFSError:
        """What a fault means when nothing was changed; the operator is told."""
        meaning = translated(fault)
        kind = fault.code if isinstance(fault, Refused) else "timeout"
        if self._observer is not None:
            self._observer.error("metadata", kind)
        if isinstance(meaning, InternalError):
            self._log.critical("a script of the metadata store FAILED: {text}", text=str(fault), code=kind)
        elif isinstance(fault, Refused):
            self._log.error("the Redis server refuses metadata operations: {text}", text=str(fault), code=kind)
        return meaning


def _ended(deferred: Deferred[Any]) -> Deferred[Any]:
    """Fires with the other one."""
    ended: Deferred[Any] = Deferred()
    deferred.addBoth(ended.callback)
    return ended
