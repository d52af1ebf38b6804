"""A metadata store that counts and times what is asked of another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from callfs.deferreds import is_settled
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import IMetadataStore, ReplicationBacklog, StoreStatistics
from callfs.metadata.transfer import Record
from callfs.model import BlobRef, Garbage, Inode, Instance, Link, Replication

R = TypeVar("R")


class QueryObserver(Protocol):
    """Who is told of each operation."""

    def metadata_query(self, operation: str, seconds: float) -> None:
        """
        An operation has ended, well or not.

        :param operation: the method's name, or of a command its tag (``put_file``).
        """


@implementer(IMetadataStore)
class MeasuredStore:
    """
    ``store`` with its operations reported to ``observer``.

    :param clock: measures how long they take.
    """

    def __init__(self, store: IMetadataStore, observer: QueryObserver, clock: IReactorTime) -> None:
        self._store = store
        self._observer = observer
        self._clock = clock

    @property
    def store_id(self) -> str:
        """The store's random identity."""
        return self._store.store_id

    @property
    def was_empty(self) -> bool:
        """Whether nothing but the root was there."""
        return self._store.was_empty

    def open(self, importing: bool = False) -> Deferred[None]:
        """Open the store; not counted."""
        return self._store.open(importing)

    def close(self) -> Deferred[None]:
        """Close the store; not counted."""
        return self._store.close()

    def check(self) -> Deferred[None]:
        """Fires when the store answers."""
        return self._measured("check", self._clock.seconds(), self._store.check())

    def apply(self, command: Command[R]) -> Deferred[R]:
        """Apply a command, counted under its tag."""
        operation = str(command.__struct_config__.tag)
        return self._measured(operation, self._clock.seconds(), self._store.apply(command))

    def get(self, path: str) -> Deferred[Inode | None]:
        """The inode at a canonical path."""
        return self._measured("get", self._clock.seconds(), self._store.get(path))

    def get_by_id(self, inode_id: str) -> Deferred[Inode | None]:
        """The inode with this id."""
        return self._measured("get_by_id", self._clock.seconds(), self._store.get_by_id(inode_id))

    def get_chain(self, path: str) -> Deferred[Sequence[Inode]]:
        """What exists of ``path`` and its ancestors, the root first."""
        return self._measured("get_chain", self._clock.seconds(), self._store.get_chain(path))

    def list_children(
        self, directory_id: str, after_name: str = "", limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of a directory's own entries."""
        started = self._clock.seconds()
        return self._measured("list_children", started, self._store.list_children(directory_id, after_name, limit))

    def walk(
        self, directory: str, after_path: str = "", max_depth: int | None = None, limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """A page of everything below a directory."""
        started = self._clock.seconds()
        return self._measured("walk", started, self._store.walk(directory, after_path, max_depth, limit))

    def get_link(self, token_hash: bytes) -> Deferred[Link | None]:
        """The link with this hash."""
        return self._measured("get_link", self._clock.seconds(), self._store.get_link(token_hash))

    def garbage(
        self, now: int, placement_kind: str, instance_id: str | None, limit: int = 1000
    ) -> Deferred[Sequence[Garbage]]:
        """A page of the garbage queue."""
        started = self._clock.seconds()
        return self._measured("garbage", started, self._store.garbage(now, placement_kind, instance_id, limit))

    def named_blobs(self, blob_ids: Sequence[str]) -> Deferred[frozenset[str]]:
        """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
        return self._measured("named_blobs", self._clock.seconds(), self._store.named_blobs(blob_ids))

    def condemned_blobs(self, before_at: int, after_id: str = "", limit: int = 1000) -> Deferred[Sequence[str]]:
        """A page of the condemned blobs."""
        started = self._clock.seconds()
        return self._measured("condemned_blobs", started, self._store.condemned_blobs(before_at, after_id, limit))

    def list_blobs(
        self, after_id: str = "", limit: int = 1000, instance_id: str | None = None
    ) -> Deferred[Sequence[tuple[BlobRef, str]]]:
        """A page of all blobs that inodes name, or of those on one node."""
        started = self._clock.seconds()
        return self._measured("list_blobs", started, self._store.list_blobs(after_id, limit, instance_id))

    def replications(self, now: int, by: str, limit: int = 1000) -> Deferred[Sequence[Replication]]:
        """A page of the replication queue."""
        return self._measured("replications", self._clock.seconds(), self._store.replications(now, by, limit))

    def replication_backlog(self) -> Deferred[Sequence[ReplicationBacklog]]:
        """What waits in the replication queue, by node."""
        return self._measured("replication_backlog", self._clock.seconds(), self._store.replication_backlog())

    def instances(self) -> Deferred[Sequence[Instance]]:
        """All nodes that ever registered."""
        return self._measured("instances", self._clock.seconds(), self._store.instances())

    def statistics(self) -> Deferred[StoreStatistics]:
        """Counts over the whole store."""
        return self._measured("statistics", self._clock.seconds(), self._store.statistics())

    def verify(self) -> Deferred[Sequence[str]]:
        """Check the store."""
        return self._measured("verify", self._clock.seconds(), self._store.verify())

    def export(self, consume: Callable[[Sequence[Record]], None]) -> Deferred[None]:
        """Give out everything."""
        return self._measured("export", self._clock.seconds(), self._store.export(consume))

    def _measured(self, operation: str, started: float, deferred: Deferred[R]) -> Deferred[R]:
        def ended(result: R) -> R:
            self._observer.metadata_query(operation, self._clock.seconds() - started)
            return result

        if is_settled(deferred):
            self._observer.metadata_query(operation, self._clock.seconds() - started)
            return deferred
        return deferred.addBoth(ended)
