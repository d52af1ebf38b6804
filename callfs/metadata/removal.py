"""What ``Remove`` means."""

from __future__ import annotations

from callfs import access, paths
from callfs.errors import BadRequest, DirectoryNotEmpty, PermissionDenied
from callfs.metadata.commands import Remove, Removed
from callfs.metadata.facts import Decision, Effect, Facts, RemoveInode, RemoveTree, Retention, TouchDirectory
from callfs.metadata.places import existing_inode
from callfs.metadata.preconditions import check_preconditions
from callfs.model import Inode


def remove(command: Remove, facts: Facts) -> Decision:
    """
    Decide :class:`callfs.metadata.commands.Remove`.

    Preconditions come last: they don't count where the answer would be an error anyway (RFC 9110, section 13.2.1).
    """
    if command.path == paths.ROOT:
        raise BadRequest("the root can't be removed")
    inode, parent = existing_inode(facts, command.path, command.directory_expected)
    if not access.may_delete(command.principal, inode):
        raise PermissionDenied(f"{command.path} belongs to another user")
    below = _below(command, inode, facts)
    check_preconditions(inode, command.preconditions)
    retention = Retention(command.at, command.garbage_not_before_at)
    tree: tuple[Effect, ...] = (RemoveTree(inode.path, retention),) if below else ()
    effects = (*tree, RemoveInode(inode, retention), TouchDirectory(parent.id, command.at))
    return Decision(Removed(below + 1), effects)


def _below(command: Remove, inode: Inode, facts: Facts) -> int:
    """How many inodes go besides the named one."""
    if not inode.is_directory or not facts.has_children(inode.id):
        return 0
    if not command.recursive:
        raise DirectoryNotEmpty(f"{command.path} isn't empty")
    tree = facts.tree(inode.path, command.principal.user)
    if tree.foreign and not access.may_delete_foreign(command.principal):
        raise PermissionDenied(f"something in {command.path} belongs to another user; nothing was removed")
    return tree.count
