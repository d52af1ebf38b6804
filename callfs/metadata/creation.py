"""
What ``CreateFile``, ``PutFile`` and ``CreateDirectory`` mean.

All refuse in one order: ancestors and kind of what is there, existence, permission, preconditions, then what only a
simultaneous change can bring about (the bytes are elsewhere by now, the blob is condemned).
"""

from __future__ import annotations

import msgspec

from callfs import access
from callfs.errors import Conflict, ContentMoved, NotAFile, PermissionDenied
from callfs.metadata.commands import CreateDirectory, CreateFile, PutFile, Written
from callfs.metadata.facts import AddInode, ChangeInode, Decision, Facts, ReplaceBlob, Retention
from callfs.metadata.places import Place, already_there, check_parents, find_place, new_directory, new_parents
from callfs.metadata.preconditions import check_preconditions
from callfs.metadata.relocation import queued
from callfs.model import FILE_MODE, BlobRef, Inode, InodeType, Principal


def create_file(command: CreateFile, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.CreateFile`."""
    place = find_place(facts, command.path)
    check_parents(place)
    if place.inode is not None:
        raise already_there(place.inode)
    return _new_file(command, place, facts)


def put_file(command: PutFile, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.PutFile`."""
    place = find_place(facts, command.path)
    check_parents(place)
    if place.inode is None:
        return _new_file(command, place, facts)
    if place.inode.is_directory or place.inode.blob is None:
        raise NotAFile(f"{command.path} is a directory")
    if not access.may_write(command.principal, place.inode):
        raise PermissionDenied(f"{command.path} belongs to another user")
    check_preconditions(place.inode, command.preconditions)
    if place.inode.blob.placement != command.blob.placement:
        raise ContentMoved(f"the content of {command.path} has moved elsewhere meanwhile: try again")
    _check_not_condemned(command.blob, facts)
    return _new_content(command, place.inode, place.inode.blob)


def create_directory(command: CreateDirectory, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.CreateDirectory`."""
    place = find_place(facts, command.path)
    check_parents(place)
    if place.inode is not None:
        if not place.inode.is_directory:
            raise already_there(place.inode)
        check_preconditions(place.inode, command.preconditions)
        return Decision(Written(place.inode, created=False))
    _check_may_create(command.principal, place)
    check_preconditions(None, command.preconditions)
    effects, parent_id = new_parents(place, command.parent_ids, command.principal.user, command.at)
    inode = new_directory(command.path, command.inode_id, parent_id, command.principal.user, command.at)
    return Decision(Written(inode, created=True), (*effects, AddInode(inode)))


def _new_file(command: CreateFile | PutFile, place: Place, facts: Facts) -> Decision:
    _check_may_create(command.principal, place)
    check_preconditions(None, command.preconditions)
    _check_not_condemned(command.blob, facts)
    effects, parent_id = new_parents(place, command.parent_ids, command.principal.user, command.at)
    inode = Inode(
        id=command.inode_id,
        path=command.path,
        parent_id=parent_id,
        type=InodeType.FILE,
        mode=FILE_MODE,
        owner=command.principal.user,
        mtime=command.at,
        ctime=command.at,
        created_at=command.at,
        content_type=command.content_type,
        content_id=command.content_id,
        blob=command.blob,
    )
    replication = queued(command.blob.id, inode.id, command.replicate, command.at)
    return Decision(Written(inode, created=True), (*effects, AddInode(inode), *replication))


def _new_content(command: PutFile, old: Inode, old_blob: BlobRef) -> Decision:
    """The file stays the same one: id, owner, mode and age; the directory that holds it isn't touched."""
    inode = msgspec.structs.replace(
        old,
        mtime=command.at,
        ctime=command.at,
        generation=old.generation + 1,
        content_type=command.content_type,
        content_id=command.content_id,
        blob=command.blob,
    )
    retention = Retention(command.at, command.garbage_not_before_at)
    replication = queued(command.blob.id, inode.id, command.replicate, command.at)
    effects = (ChangeInode(inode), ReplaceBlob(inode.id, old_blob, command.blob, retention), *replication)
    return Decision(Written(inode, created=False), effects)


def _check_may_create(principal: Principal, place: Place) -> None:
    if not access.may_add_child(principal, place.above):
        raise PermissionDenied(f"nothing may be created in {place.above.path}")


def _check_not_condemned(blob: BlobRef, facts: Facts) -> None:
    if facts.any_condemned([copy.id for copy in blob.copies()]):
        raise Conflict("the upload lay unfinished for so long that its bytes were given up: send it again")
