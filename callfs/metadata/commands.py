"""
The commands: every change of metadata is one frozen value, applied atomically or not at all.

A command carries its own timestamp and all new ids, so that applying it reads no clock and makes nothing up:
the same commands in the same order give the same state on any store. Each checks everything again that the
engine checked before it (who may, what must be there, generation as expected), because the state may have
changed since.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from callfs.model import NO_PRECONDITIONS, BlobRef, Inode, Link, Preconditions, Principal, ReplicaOrder

R = TypeVar("R")


class Command(
    msgspec.Struct, Generic[R], frozen=True, kw_only=True, tag_field="command", forbid_unknown_fields=True
):
    """
    Base of all commands; ``R`` is what applying it returns.

    :param at: the instant of the change, taken by whoever made the command.
    """

    at: int


class Written(msgspec.Struct, frozen=True):
    """
    A path was written.

    :param created: whether it is new.
    """

    inode: Inode
    created: bool


class CreateFile(Command[Written], frozen=True, kw_only=True, tag="create_file"):
    """
    A new file; missing parents are created as the principal's.

    :param parent_ids: inode ids for missing parents, at least as many as the path has ancestors.
    :param replicate: queue the making of a second copy in the same transaction.
    :raises callfs.errors.FileAlreadyExists: something is there (``details`` name it).
    :raises callfs.errors.ParentNotADirectory: an ancestor is a file.
    :raises callfs.errors.Conflict: the blob is condemned.
    """

    principal: Principal
    path: str
    inode_id: str
    content_id: str
    blob: BlobRef
    content_type: str | None
    parent_ids: tuple[str, ...]
    preconditions: Preconditions = NO_PRECONDITIONS
    replicate: ReplicaOrder | None = None


class PutFile(Command[Written], frozen=True, kw_only=True, tag="put_file"):
    """
    A new file, or new content for the one that is there, which keeps its id, owner and mode.

    The blob that is replaced, and its replicas, become garbage in the same transaction.

    :param garbage_not_before_at: when bytes of a replaced blob that aren't on a local disk may be deleted.
    :param replicate: queue the making of a second copy in the same transaction.
    :raises callfs.errors.PermissionDenied: the file is another's.
    :raises callfs.errors.PreconditionFailed: as it says.
    :raises callfs.errors.NotAFile: a directory is there.
    :raises callfs.errors.ParentNotADirectory: an ancestor is a file.
    :raises callfs.errors.Conflict: the blob is condemned.
    :raises callfs.errors.ContentMoved: the file's bytes have moved to a node or backend other than the new blob's,
        so that the write has to be done again there.
    """

    principal: Principal
    path: str
    inode_id: str
    content_id: str
    blob: BlobRef
    content_type: str | None
    parent_ids: tuple[str, ...]
    garbage_not_before_at: int
    preconditions: Preconditions = NO_PRECONDITIONS
    replicate: ReplicaOrder | None = None


class CreateDirectory(Command[Written], frozen=True, kw_only=True, tag="create_directory"):
    """
    A directory, with its missing parents; one that is there already stays as it is (``created`` false).

    :raises callfs.errors.FileAlreadyExists: a file is there.
    :raises callfs.errors.ParentNotADirectory: an ancestor is a file.
    """

    principal: Principal
    path: str
    inode_id: str
    parent_ids: tuple[str, ...]
    preconditions: Preconditions = NO_PRECONDITIONS


class Removed(msgspec.Struct, frozen=True):
    """How many inodes went, the named one included."""

    count: int


class Remove(Command[Removed], frozen=True, kw_only=True, tag="remove"):
    """
    Remove a file, an empty directory, or with ``recursive`` a whole tree; blobs become garbage.

    :param directory_expected: the client said "directory" with a trailing slash.
    :raises callfs.errors.FileNotFound: nothing is there.
    :raises callfs.errors.NotADirectory: ``directory_expected`` and it is a file.
    :raises callfs.errors.BadRequest: the root.
    :raises callfs.errors.PermissionDenied: it, or anything inside, is another's; nothing was removed.
    :raises callfs.errors.DirectoryNotEmpty: it has children and ``recursive`` is false.
    :raises callfs.errors.PreconditionFailed: as it says.
    """

    principal: Principal
    path: str
    garbage_not_before_at: int
    recursive: bool = False
    directory_expected: bool = False
    preconditions: Preconditions = NO_PRECONDITIONS


class AttributeChanges(msgspec.Struct, frozen=True):
    """
    What a PATCH sets besides the path; ``None`` leaves it.

    :param owner: administrators only.
    """

    mode: int | None = None
    mtime: int | None = None
    content_type: str | None = None
    owner: str | None = None

    def any(self) -> bool:
        """Whether anything is to be changed."""
        return self != AttributeChanges()


class Moved(msgspec.Struct, frozen=True):
    """The inode as it is after the change."""

    inode: Inode


class Move(Command[Moved], frozen=True, kw_only=True, tag="move"):
    """
    Rename or move a file or a whole tree, and set attributes, in one step.

    ``destination`` equal to ``source`` only sets attributes. What is overwritten becomes garbage.

    :param directory_expected: the client said "directory" with a trailing slash at the source.
    :raises callfs.errors.FileNotFound: no source.
    :raises callfs.errors.NotADirectory: ``directory_expected`` and the source is a file.
    :raises callfs.errors.BadRequest: the root; a directory into itself; nothing to change; a missing parent
        without ``create_parents``; a content type for a directory.
    :raises callfs.errors.InvalidPath: a path in the tree would become too long.
    :raises callfs.errors.PermissionDenied: not the source's owner, no write access to the destination's parent,
        no right to delete what is overwritten, or ``owner`` set by no administrator.
    :raises callfs.errors.FileAlreadyExists: the destination is there and ``overwrite`` is false, or it is of
        the other type.
    :raises callfs.errors.DirectoryNotEmpty: the destination is a directory with children.
    :raises callfs.errors.ParentNotADirectory: an ancestor of the destination is a file.
    :raises callfs.errors.PreconditionFailed: as it says, of the source.
    """

    principal: Principal
    source: str
    destination: str
    parent_ids: tuple[str, ...]
    garbage_not_before_at: int
    overwrite: bool = False
    create_parents: bool = False
    directory_expected: bool = False
    attributes: AttributeChanges = AttributeChanges()
    preconditions: Preconditions = NO_PRECONDITIONS


class Purged(msgspec.Struct, frozen=True):
    """How many rows were met."""

    count: int


class Relocated(msgspec.Struct, frozen=True):
    """The inode with its copies as they are now."""

    inode: Inode


class Relocate(Command[Relocated], frozen=True, kw_only=True, tag="relocate"):
    """
    The same content in other places: bytes were copied, and the copies take their names.

    Compare-and-set: it happens only when the file's copies are still those that were there when the copying began,
    whatever its path is by now. Copies that are no longer named become garbage. Content id, mtime and ctime stay;
    the generation grows. The entry that the replication queue has for the file goes: the copy was made, or there is
    another first copy now, or ``replicate`` takes its place.

    :param expected_blob_ids: the ids of the copies that the file has to have, the first copy's first.
    :param blob: the copies that it has from now on: kept ones, and new ones.
    :param replicate: queue the making of a second copy of ``blob`` in the same transaction.
    :raises callfs.errors.FileNotFound: there is no file of this id.
    :raises callfs.errors.PermissionDenied: the file is another's.
    :raises callfs.errors.Conflict: the file has other copies by now; a new copy is condemned; or size or digest
        aren't those of the content, or the place of a kept copy isn't where it is.
    """

    principal: Principal
    inode_id: str
    expected_blob_ids: tuple[str, ...]
    blob: BlobRef
    garbage_not_before_at: int
    replicate: ReplicaOrder | None = None


class PostponeReplication(Command[Purged], frozen=True, kw_only=True, tag="postpone_replication"):
    """
    Making a copy failed: try again at ``due_at``. Entries that aren't there any more are no error.

    :param by: hand it to this node; ``None`` leaves it with the one that has it.
    """

    blob_id: str
    due_at: int
    by: str | None = None


class IssueLink(Command[Link], frozen=True, kw_only=True, tag="issue_link"):
    """
    Store a link for the file that is at ``path`` now.

    :raises callfs.errors.FileNotFound: nothing is there, or another inode than ``inode_id``.
    """

    principal: Principal
    path: str
    inode_id: str
    token_hash: bytes
    expires_at: int


class ConsumeLink(Command[Link], frozen=True, kw_only=True, tag="consume_link"):
    """
    Use a link up: of any number of these for one link, exactly one succeeds.

    :raises callfs.errors.LinkNotFound: no such link, or its file is gone.
    :raises callfs.errors.LinkExpired: at ``at`` its time was over (asked before whether it was used).
    :raises callfs.errors.LinkUsed: another was first.
    """

    token_hash: bytes


class PurgeLinks(Command[Purged], frozen=True, kw_only=True, tag="purge_links"):
    """
    Forget links that expired before ``expired_before_at`` or were used before ``used_before_at``.

    :param limit: at most so many at once, so that the step stays short.
    """

    expired_before_at: int
    used_before_at: int
    limit: int = 1000


class DropGarbage(Command[Purged], frozen=True, kw_only=True, tag="drop_garbage"):
    """Take rows out of the garbage queue: their blobs are deleted. Ids that aren't there are no error."""

    ids: tuple[int, ...]


class Condemned(msgspec.Struct, frozen=True):
    """Of the blobs that were asked for, those that are condemned now."""

    ids: tuple[str, ...]


class Condemn(Command[Condemned], frozen=True, kw_only=True, tag="condemn"):
    """
    Second step of the sweep: from now on a command that names one of these blobs is refused.

    Blobs that an inode names, or that the garbage queue holds, are left out.
    """

    blob_ids: tuple[str, ...]


class ForgetCondemned(Command[Purged], frozen=True, kw_only=True, tag="forget_condemned"):
    """Forget condemnations older than ``before_at``: their bytes are deleted and the ids are never used again."""

    before_at: int


class RegisterInstance(Command[None], frozen=True, kw_only=True, tag="register_instance"):
    """
    Write down this node, its root folder and where peers reach it; repeated as the heartbeat.

    :raises callfs.errors.Conflict: the id is registered with another root folder and ``replace_root`` is false; or
        an import into the store isn't finished.
    """

    instance_id: str
    root_id: str | None
    api_endpoint: str
    replace_root: bool = False


class ForgetInstance(Command[Purged], frozen=True, kw_only=True, tag="forget_instance"):
    """
    A node was taken away for good: forget it, and what waits in the garbage queue for its disk.

    An id that isn't registered is no error. It is one step: where very much waits, :class:`DropGarbage` takes it
    out in parts before.

    :return: how many entries of the garbage queue went.
    :raises callfs.errors.Conflict: a file has a copy on that node still (drain it first), or a replication is
        queued there.
    """

    instance_id: str
