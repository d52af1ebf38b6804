"""The reads that the stores upon SQLite have in common: which query answers which question."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from callfs.metadata import sqlite_queries as queries
from callfs.metadata.interfaces import ReplicationBacklog, StoreStatistics
from callfs.metadata.sqlite_verify import verify
from callfs.model import BlobRef, Garbage, Inode, Instance, Link, Replication

R = TypeVar("R")


class SqliteReads(ABC):
    """The reading half of :class:`callfs.metadata.interfaces.IMetadataStore`; a store says how a query is run."""

    @abstractmethod
    def _inline(self, query: Callable[..., R], *args: Any) -> Deferred[R]:
        """Run a query that takes no longer than handing it to a thread would."""

    @abstractmethod
    def _threaded(self, query: Callable[..., R], *args: Any, limited: bool = True) -> Deferred[R]:
        """Run a query on a thread; ``limited``: within the time limit of reads."""

    @abstractmethod
    def _page(self, limit: int, query: Callable[..., Sequence[R]], *args: Any) -> Deferred[Sequence[R]]:
        """Run a query for at most ``limit`` rows, where that suits their number."""

    def get(self, path: str) -> Deferred[Inode | None]:
        """The inode at a canonical path."""
        return self._inline(queries.get, path)

    def get_by_id(self, inode_id: str) -> Deferred[Inode | None]:
        """The inode with this id."""
        return self._inline(queries.get_by_id, inode_id)

    def get_chain(self, path: str) -> Deferred[Sequence[Inode]]:
        """What exists of ``path`` and its ancestors, the root first."""
        return self._inline(queries.get_chain, path)

    def list_children(
        self, directory_id: str, after_name: str = "", limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of a directory's own entries."""
        return self._page(limit, queries.list_children, directory_id, after_name)

    def walk(
        self, directory: str, after_path: str = "", max_depth: int | None = None, limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of everything below a directory."""
        return self._page(limit, queries.walk, directory, after_path, max_depth)

    def get_link(self, token_hash: bytes) -> Deferred[Link | None]:
        """The link with this hash."""
        return self._inline(queries.get_link, token_hash)

    def garbage(
        self, now: int, placement_kind: str, instance_id: str | None, limit: int = 1000
    ) -> Deferred[Sequence[Garbage]]:
        """A page of the garbage queue."""
        return self._page(limit, queries.garbage, now, placement_kind, instance_id)

    def named_blobs(self, blob_ids: Sequence[str]) -> Deferred[frozenset[str]]:
        """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
        return self._threaded(queries.named_blobs, blob_ids)

    def condemned_blobs(self, before_at: int, after_id: str = "", limit: int = 1000) -> Deferred[Sequence[str]]:
        """A page of the condemned blobs."""
        return self._page(limit, queries.condemned_blobs, before_at, after_id)

    def list_blobs(
        self, after_id: str = "", limit: int = 1000, instance_id: str | None = None
    ) -> Deferred[Sequence[tuple[BlobRef, str]]]:
        """A page of all blobs that inodes name, or of those on one node."""
        return self._page(limit, queries.list_blobs, after_id, instance_id)

    def replications(self, now: int, by: str, limit: int = 1000) -> Deferred[Sequence[Replication]]:
        """A page of the replication queue."""
        return self._page(limit, queries.replications, now, by)

    def replication_backlog(self) -> Deferred[Sequence[ReplicationBacklog]]:
        """What waits in the replication queue, by node, without a time limit."""
        return self._threaded(queries.replication_backlog, limited=False)

    def instances(self) -> Deferred[Sequence[Instance]]:
        """All nodes that ever registered."""
        return self._inline(queries.instances)

    def statistics(self) -> Deferred[StoreStatistics]:
        """Counts over the whole store, without a time limit."""
        return self._threaded(queries.statistics, limited=False)

    def verify(self) -> Deferred[Sequence[str]]:
        """Check this node's database and everything in it, without a time limit."""
        return self._threaded(verify, limited=False)
