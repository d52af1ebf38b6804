"""What ``Relocate`` means, and how the making of a further copy is queued."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from callfs import access
from callfs.errors import Conflict, FileNotFound, PermissionDenied
from callfs.metadata.commands import Relocate, Relocated
from callfs.metadata.facts import (
    AddGarbage,
    ChangeInode,
    Decision,
    Effect,
    Facts,
    QueueReplication,
    ReplaceCopies,
)
from callfs.model import BlobRef, LocalPlacement, ReplicaOrder, Replication


def relocate(command: Relocate, facts: Facts) -> Decision:
    """
    Decide :class:`callfs.metadata.commands.Relocate`.

    Refusals in order: no such file, another's file, then what a simultaneous change has brought about.
    """
    inode = facts.inode(command.inode_id)
    if inode is None or inode.blob is None:
        raise FileNotFound("the file that was to be relocated is gone")
    if not access.may_write(command.principal, inode):
        raise PermissionDenied(f"{inode.path} belongs to another user")
    old = inode.blob
    if tuple(copy.id for copy in old.copies()) != command.expected_blob_ids:
        raise Conflict(f"{inode.path} has other content, or is elsewhere, by now")
    _check_copies(command.blob, old)
    new_ids = sorted({copy.id for copy in command.blob.copies()} - {copy.id for copy in old.copies()})
    if facts.any_condemned(new_ids):
        raise Conflict("the copy lay unfinished for so long that its bytes were given up: make it again")
    changed = msgspec.structs.replace(inode, generation=inode.generation + 1, blob=command.blob)
    effects = (
        ChangeInode(changed),
        ReplaceCopies(changed.id, command.blob),
        *_garbage(command, old),
        *queued(command.blob.id, changed.id, command.replicate, command.at),
    )
    return Decision(Relocated(changed), effects)


def queued(blob_id: str, inode_id: str, order: ReplicaOrder | None, at: int) -> tuple[Effect, ...]:
    """
    The making of a further copy, to begin at once.

    :param blob_id: the first copy of the file ``inode_id``.
    :param order: what is to be made; ``None``: nothing.
    """
    if order is None:
        return ()
    return (QueueReplication(Replication(blob_id, inode_id, order, queued_at=at, due_at=at)),)


def _check_copies(blob: BlobRef, old: BlobRef) -> None:
    """The same content, each copy named once, and what is kept stays where it is."""
    copies, places = blob.copies(), {copy.id: copy.placement for copy in old.copies()}
    if any((copy.size, copy.sha256) != (old.size, old.sha256) for copy in copies):
        raise Conflict("a copy hasn't the size and digest of the content")
    if any(places.get(copy.id, copy.placement) != copy.placement for copy in copies):
        raise Conflict("a copy that is kept can't be said to be elsewhere")
    if len({copy.id for copy in copies}) != len(copies) or any(copy.replicas for copy in blob.replicas):
        raise Conflict("a copy is named twice")


def _garbage(command: Relocate, old: BlobRef) -> Iterator[Effect]:
    """The copies that the file has no longer; those on a local disk go at once, as everywhere."""
    kept = {copy.id for copy in command.blob.copies()}
    for copy in sorted(old.copies(), key=lambda copy: copy.id):
        if copy.id not in kept:
            is_local = isinstance(copy.placement, LocalPlacement)
            at = command.at if is_local else command.garbage_not_before_at
            yield AddGarbage(msgspec.structs.replace(copy, replicas=()), at)
