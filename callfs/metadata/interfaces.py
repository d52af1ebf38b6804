"""The port of metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from callfs.metadata.commands import Command
from callfs.metadata.transfer import Record
from callfs.model import BlobRef, Garbage, Inode, Instance, Link, Replication

R = TypeVar("R")


class StoreStatistics(msgspec.Struct, frozen=True):
    """
    Counts over the whole store.

    :param garbage: rows in the garbage queue.
    :param replications: rows in the replication queue.
    """

    files: int
    directories: int
    bytes: int
    links: int
    garbage: int
    replications: int


class ReplicationBacklog(msgspec.Struct, frozen=True):
    """
    What waits in the replication queue for one node.

    :param by: the node that has to make the copies.
    :param failing: how many of the ``waiting`` failed at least once.
    :param oldest_queued_at: an instant.
    """

    by: str
    waiting: int
    failing: int
    oldest_queued_at: int


class IMetadataStore(Interface):
    """
    Names, links and queues.

    **Atomicity**: a command happens whole or not at all; another client never sees the middle. **Durability**:
    when :meth:`apply` fires with a result, the change survives a crash. **Order**: commands have one order; reads
    are linearizable: what was acknowledged before a read began is seen by it.

    Every method can fail with :class:`callfs.errors.MetadataUnavailable` (nothing changed, try again), and
    :meth:`apply` with :class:`callfs.errors.OutcomeUnknown`.
    """

    store_id: str = Attribute("The store's random identity, 32 hex digits; known once it is open.")
    was_empty: bool = Attribute("Whether :meth:`open` made the store, or found nothing but the root in it.")

    def open(importing: bool = False) -> Deferred[None]:
        """
        Connect, bring the schema up to date, and make an empty store (which has the root directory) where there
        is none.

        :param importing: open also a store that an import was begun into and not finished.
        :raises UnfinishedImport: it is such a one, and ``importing`` is false.
        :raises StoreUnusable: what is there can't be used; the message says why and what to do.
        """

    def close() -> Deferred[None]:
        """End the store; commands under way are finished first."""

    def check() -> Deferred[None]:
        """Fires when the store answers, for readiness."""

    def apply(command: Command[R]) -> Deferred[R]:
        """
        Apply a command.

        :return: what the command says it returns.
        :raises callfs.errors.CallFSError: the refusals that the command's own documentation lists.
        """

    def get(path: str) -> Deferred[Inode | None]:
        """The inode at a canonical path."""

    def get_by_id(inode_id: str) -> Deferred[Inode | None]:
        """The inode with this id."""

    def get_chain(path: str) -> Deferred[Sequence[Inode]]:
        """
        What exists of ``path`` and its ancestors, the root first, in one consistent view.

        The last element's path equals ``path`` when it exists; otherwise it is the deepest ancestor that does.
        """

    def list_children(directory_id: str, after_name: str = "", limit: int = 1000) -> Deferred[Sequence[Inode]]:
        """A page of a directory's own entries, by name, bytewise, those after ``after_name``."""

    def walk(
        directory: str, after_path: str = "", max_depth: int | None = None, limit: int = 1000
    ) -> Deferred[Sequence[Inode]]:
        """
        A page of everything below a directory, by path, bytewise, those after ``after_path``.

        :param max_depth: the deepest shown; the directory's own children are at depth 0; ``None`` without limit.
        """

    def get_link(token_hash: bytes) -> Deferred[Link | None]:
        """The link with this hash, whatever its state."""

    def garbage(
        now: int, placement_kind: str, instance_id: str | None, limit: int = 1000
    ) -> Deferred[Sequence[Garbage]]:
        """
        A page of the garbage queue, oldest first: blobs of this kind of placement that may be deleted at ``now``.

        :param instance_id: for ``localfs`` the node that asks; else ``None``.
        """

    def named_blobs(blob_ids: Sequence[str]) -> Deferred[frozenset[str]]:
        """Those of ``blob_ids`` that an inode names or the garbage queue holds."""

    def condemned_blobs(before_at: int, after_id: str = "", limit: int = 1000) -> Deferred[Sequence[str]]:
        """A page of the condemned blobs, by id, those condemned before the instant."""

    def list_blobs(
        after_id: str = "", limit: int = 1000, instance_id: str | None = None
    ) -> Deferred[Sequence[tuple[BlobRef, str]]]:
        """
        A page of all blobs that inodes name, by id, those after ``after_id``, each with the path of its file.

        Replicas come as blobs of their own.

        :param instance_id: only what is on the local disk of this node.
        """

    def replications(now: int, by: str, limit: int = 1000) -> Deferred[Sequence[Replication]]:
        """A page of the replication queue: what ``by`` has to copy and is due at ``now``, the longest due first."""

    def replication_backlog() -> Deferred[Sequence[ReplicationBacklog]]:
        """What waits in the replication queue, by node; nodes for which nothing waits are left out."""

    def instances() -> Deferred[Sequence[Instance]]:
        """All nodes that ever registered."""

    def statistics() -> Deferred[StoreStatistics]:
        """Counts, for metrics and commands; may take a while on large stores."""

    def verify() -> Deferred[Sequence[str]]:
        """
        Check the store's own structure and what is relied on (every parent is there, every file has a blob ...).

        :return: what is wrong, a sentence each for the operator; empty when all is well. May take long.
        """

    def export(consume: Callable[[Sequence[Record]], None]) -> Deferred[None]:
        """
        Give out everything, in the order of :data:`callfs.metadata.transfer.Record`, inodes by their paths.

        It is one consistent view of the store. A store that can't hold one for so long fails when anything was
        changed meanwhile. It is never given out twice: when it can't be completed it fails. Meant for tools:
        ``consume`` may be called on any thread, and the store waits for it.

        :param consume: gets at most about a thousand records at a time; what it raises ends the export.
        :raises callfs.errors.MetadataUnavailable: besides the usual, something was changed meanwhile.
        """


class StoreUnusable(Exception):
    """
    The store can't be opened and waiting won't help: corrupt, of another program, of a newer version.

    The message is for the operator.
    """


class UnfinishedImport(StoreUnusable):
    """An import into the store was begun and not finished."""

    def __init__(self) -> None:
        super().__init__(
            "an import into this metadata store was begun and not finished, so it isn't whole: "
            "run 'callfs metadata import --again' with the exported file, or use another store"
        )
