"""
What a decision may ask, and what it may order.

A store gathers :class:`Facts` and carries out effects, both inside one transaction; between the two stands
``callfs.metadata.decisions``, which is pure. So all stores give the same refusals in the same order. A store
without interactive transactions asks for the facts beforehand and carries the effects out on the condition that
the facts still hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from callfs.model import BlobRef, Inode, Instance, Link, Replication


class TreeFacts(msgspec.Struct, frozen=True):
    """
    What lies below a directory, itself not counted.

    :param count: how many inodes.
    :param foreign: how many of them belong to somebody other than the user who was asked about.
    """

    count: int
    foreign: int


class Holdings(msgspec.Struct, frozen=True):
    """
    What the store has to do with one node.

    :param copies: whether a file has a copy on its local disk.
    :param replications: whether the replication queue has an entry that it has to make, or that leads to it.
    :param garbage: how many entries of the garbage queue are on its local disk.
    """

    copies: bool
    replications: bool
    garbage: int


class Facts(Protocol):
    """The state of the store as one transaction sees it."""

    def inode(self, inode_id: str) -> Inode | None:
        """The inode with this id."""

    def chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors, the root first."""

    def has_children(self, directory_id: str) -> bool:
        """Whether anything is in the directory."""

    def tree(self, directory: str, user: str) -> TreeFacts:
        """What lies below ``directory``, and how much of it isn't ``user``'s."""

    def longest_path_bytes(self, directory: str) -> int:
        """The length of the longest path below ``directory``; 0 when there is none."""

    def any_condemned(self, blob_ids: Sequence[str]) -> bool:
        """Whether one of the blobs is condemned."""

    def link(self, token_hash: bytes) -> Link | None:
        """The link with this hash."""

    def instance(self, instance_id: str) -> Instance | None:
        """The node with this id."""

    def holdings(self, instance_id: str) -> Holdings:
        """What there is on the node, or waits for it."""

    def unfinished_import(self) -> str | None:
        """The import that was begun and not finished; ``None`` where none is."""

    def is_empty(self) -> bool:
        """Whether nothing but the root is there: no inode, no link, nothing queued or condemned, no node."""


class Retention(msgspec.Struct, frozen=True):
    """
    When bytes that lost their name may be deleted.

    :param local_at: those on a node's own disk: at once, because an open descriptor keeps its reader going.
    :param elsewhere_at: all others: later, for readers that are still on them.
    """

    local_at: int
    elsewhere_at: int


class AddInode(msgspec.Struct, frozen=True):
    """A new inode, with its blob."""

    inode: Inode


class ChangeInode(msgspec.Struct, frozen=True):
    """The inode with this id becomes this, its blob aside; what lies below it isn't touched."""

    inode: Inode


class TouchDirectory(msgspec.Struct, frozen=True):
    """
    Children came, went, or changed their names: as POSIX says, mtime and ctime of the directory become ``at``,
    and since that is a change its generation grows. New content of a child isn't such a change.
    """

    directory_id: str
    at: int


class ReplaceBlob(msgspec.Struct, frozen=True):
    """
    The inode's blob and its replicas become garbage, ``blob`` takes their place; what the replication queue has for
    the inode goes.

    :param old: the blob that the inode has.
    """

    inode_id: str
    old: BlobRef
    blob: BlobRef
    retention: Retention


class RemoveInode(msgspec.Struct, frozen=True):
    """
    The inode goes with its links and what the replication queue has for it; its blob and replicas become garbage.
    It has no children (any more).
    """

    inode: Inode
    retention: Retention


class ReplaceCopies(msgspec.Struct, frozen=True):
    """
    The inode's content has these copies from now on, by the same rows where they are the same; none becomes garbage
    by this. What the replication queue has for the inode goes.
    """

    inode_id: str
    blob: BlobRef


class QueueReplication(msgspec.Struct, frozen=True):
    """A new entry in the replication queue, which has none for this inode."""

    replication: Replication


class RemoveTree(msgspec.Struct, frozen=True):
    """Everything below ``directory`` goes, as by :class:`RemoveInode`; the directory itself stays."""

    directory: str
    retention: Retention


class MoveTree(msgspec.Struct, frozen=True):
    """
    Every path below ``source`` comes to be below ``destination``, where nothing is.

    What is moved along keeps generation and times: nothing of its own has changed.
    """

    source: str
    destination: str


class AddLink(msgspec.Struct, frozen=True):
    """A new link."""

    link: Link


class UseLink(msgspec.Struct, frozen=True):
    """The link is used up."""

    token_hash: bytes
    at: int


class PutInstance(msgspec.Struct, frozen=True):
    """The node is written down, in the place of what was known of it."""

    instance: Instance


class ForgetNode(msgspec.Struct, frozen=True):
    """The node is forgotten, with what the garbage queue has for its local disk."""

    instance_id: str


class ReplaceRoot(msgspec.Struct, frozen=True):
    """The root directory becomes this; its id and path are what they are in every store."""

    inode: Inode


class AddGarbage(msgspec.Struct, frozen=True):
    """A new entry at the end of the garbage queue."""

    blob: BlobRef
    not_before_at: int


class AddCondemned(msgspec.Struct, frozen=True):
    """A blob is condemned."""

    blob_id: str
    condemned_at: int


class MarkImport(msgspec.Struct, frozen=True):
    """This import is the one under way, in the place of any other."""

    import_id: str


class TakeIdentity(msgspec.Struct, frozen=True):
    """The store has this identity from now on, and no import is under way."""

    store_id: str


Effect = (
    AddInode
    | ChangeInode
    | TouchDirectory
    | ReplaceBlob
    | ReplaceCopies
    | QueueReplication
    | RemoveInode
    | RemoveTree
    | MoveTree
    | AddLink
    | UseLink
    | PutInstance
    | ForgetNode
    | ReplaceRoot
    | AddGarbage
    | AddCondemned
    | MarkImport
    | TakeIdentity
)


class Decision(msgspec.Struct, frozen=True):
    """
    A command that isn't refused.

    :param result: what applying it returns.
    :param effects: what the store has to do, in this order, whole or not at all.
    """

    result: Any
    effects: tuple[Effect, ...] = ()
