"""
What ``Move`` means.

Refusals in order: what is wrong with the request itself, the source (there, of the expected kind, one's own),
the attributes, the destination (parents, taken, kind, permission, empty, length), and last the preconditions: they
don't count where the answer would be an error anyway (RFC 9110, section 13.2.1).
"""

from __future__ import annotations

import msgspec

from callfs import access, paths
from callfs.errors import BadRequest, DirectoryNotEmpty, InvalidPath, PermissionDenied
from callfs.metadata.commands import Move, Moved
from callfs.metadata.facts import (
    ChangeInode,
    Decision,
    Effect,
    Facts,
    MoveTree,
    RemoveInode,
    Retention,
    TouchDirectory,
)
from callfs.metadata.places import Place, already_there, check_parents, existing_inode, find_place, new_parents
from callfs.metadata.preconditions import check_preconditions
from callfs.model import Inode


def move(command: Move, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.Move`."""
    _check_request(command)
    inode, parent = existing_inode(facts, command.source, command.directory_expected)
    if not access.may_delete(command.principal, inode):
        raise PermissionDenied(f"{command.source} belongs to another user")
    _check_attributes(command, inode)
    if command.destination == command.source:
        check_preconditions(inode, command.preconditions)
        changed = _changed(command, inode, inode.parent_id)
        return Decision(Moved(changed), (ChangeInode(changed),))
    place = _destination(command, inode, facts)
    check_preconditions(inode, command.preconditions)
    return _carried_out(command, inode, parent, place)


def _check_request(command: Move) -> None:
    if paths.ROOT in (command.source, command.destination):
        raise BadRequest("the root can't be moved, replaced or changed")
    if command.destination == command.source and not command.attributes.any():
        raise BadRequest("nothing is to be changed: the destination is the source")


def _check_attributes(command: Move, inode: Inode) -> None:
    if command.attributes.owner is not None and not access.may_change_owner(command.principal):
        raise PermissionDenied("only administrators may change the owner")
    if command.attributes.content_type is not None and inode.is_directory:
        raise BadRequest("a directory has no content type")


def _destination(command: Move, inode: Inode, facts: Facts) -> Place:
    """Where the move leads, with every refusal that comes from there."""
    if inode.is_directory and paths.is_within(command.destination, inode.path):
        raise BadRequest("a directory can't be moved into itself")
    place = find_place(facts, command.destination)
    check_parents(place)
    if place.missing and not command.create_parents:
        raise BadRequest(f"{place.missing[-1]} doesn't exist; ask for create_parents to have it made")
    if not access.may_add_child(command.principal, place.above):
        raise PermissionDenied(f"nothing may be created in {place.above.path}")
    if place.inode is not None:
        _check_overwrite(command, inode, place.inode, facts)
    _check_length(command, inode, facts)
    return place


def _check_overwrite(command: Move, inode: Inode, taken: Inode, facts: Facts) -> None:
    if not command.overwrite or taken.type is not inode.type:
        raise already_there(taken)
    if not access.may_delete(command.principal, taken):
        raise PermissionDenied(f"{taken.path} belongs to another user")
    if taken.is_directory and facts.has_children(taken.id):
        raise DirectoryNotEmpty(f"{taken.path} isn't empty")


def _check_length(command: Move, inode: Inode, facts: Facts) -> None:
    growth = len(command.destination.encode()) - len(command.source.encode())
    longest = len(command.source.encode())
    if inode.is_directory and growth > 0:
        longest = max(longest, facts.longest_path_bytes(inode.path))
    if longest + growth > paths.MAX_PATH_BYTES:
        raise InvalidPath(f"the move would make a path longer than {paths.MAX_PATH_BYTES} bytes")


def _carried_out(command: Move, inode: Inode, parent: Inode, place: Place) -> Decision:
    retention = Retention(command.at, command.garbage_not_before_at)
    effects: list[Effect] = []
    if place.inode is not None:
        effects.append(RemoveInode(place.inode, retention))
    parents, parent_id = new_parents(place, command.parent_ids, command.principal.user, command.at)
    effects += parents
    if inode.is_directory:
        effects.append(MoveTree(inode.path, command.destination))
    moved = _changed(command, inode, parent_id)
    effects.append(ChangeInode(moved))
    if parent.id != place.above.id:
        effects.append(TouchDirectory(parent.id, command.at))
    return Decision(Moved(moved), tuple(effects))


def _changed(command: Move, inode: Inode, parent_id: str) -> Inode:
    """The inode in its new place with its new attributes; a move alone leaves the mtime, as in POSIX."""
    attributes = command.attributes
    return msgspec.structs.replace(
        inode,
        path=command.destination,
        parent_id=parent_id,
        mode=inode.mode if attributes.mode is None else attributes.mode,
        owner=inode.owner if attributes.owner is None else attributes.owner,
        mtime=inode.mtime if attributes.mtime is None else attributes.mtime,
        content_type=inode.content_type if attributes.content_type is None else attributes.content_type,
        ctime=command.at,
        generation=inode.generation + 1,
    )
