"""How what a decision orders is carried out in the SQLite store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from callfs import paths
from callfs.metadata import sql
from callfs.metadata.facts import (
    AddCondemned,
    AddGarbage,
    AddInode,
    AddLink,
    ChangeInode,
    Effect,
    ForgetNode,
    MarkImport,
    MoveTree,
    PutInstance,
    QueueReplication,
    RemoveInode,
    RemoveTree,
    ReplaceBlob,
    ReplaceCopies,
    ReplaceRoot,
    Retention,
    TakeIdentity,
    TouchDirectory,
    UseLink,
)
from callfs.metadata.rows import LOCAL_KIND, blob_values, garbage_values, inode_values, replication_values
from callfs.metadata.sqlite_view import Group, View
from callfs.model import BlobRef, Inode, LocalPlacement

REVISE_INODE = """UPDATE inodes SET mode = ?, owner = ?, mtime = ?, ctime = ?, generation = ?, content_type = ?,
    content_id = ? WHERE id = ?"""
REPLACE_ONLY_COPY = """UPDATE blobs SET blob_id = ?, kind = ?, instance_id = ?, size = ?, sha256 = ?
    WHERE inode_id = ? AND role = 0"""

_OF_TREE = f"inode_id IN ({sql.IN_TREE})"
_BURY_TREE = sql.bury(_OF_TREE)
_UNQUEUE, _UNQUEUE_TREE = sql.unqueue(sql.OF_INODE), sql.unqueue(_OF_TREE)
_UNNAME, _UNNAME_TREE = sql.unname_blobs(sql.OF_INODE), sql.unname_blobs(_OF_TREE)
_UNLINK, _UNLINK_TREE = sql.unlink(sql.OF_INODE), sql.unlink(_OF_TREE)

# In each group a statement fails exactly if it did with inodes one after the other: what the other statements of
# the group write for other inodes doesn't matter to it.
_ADDING: Group = (sql.ADD_INODE, sql.ADD_BLOB)
_MOVING: Group = (sql.CHANGE_INODE,)
_REPLACING: Group = (REVISE_INODE, sql.ADD_GARBAGE, REPLACE_ONLY_COPY)
_REMOVING: Group = (sql.ADD_GARBAGE, _UNNAME, sql.REMOVE_INODE)


def _add_inode(view: View, effect: AddInode) -> None:
    inode = effect.inode
    view.later(_ADDING, sql.ADD_INODE, inode_values(inode))
    if inode.blob is not None:
        for values in blob_values(inode.id, inode.blob):
            view.later(_ADDING, sql.ADD_BLOB, values)
    view.known.learn(inode)


def _add_blob(view: View, inode_id: str, blob: BlobRef) -> None:
    for values in blob_values(inode_id, blob):
        view.connection.execute(sql.ADD_BLOB, values)


def _change_inode(view: View, effect: ChangeInode) -> None:
    """Where the path stays, its indexes aren't written."""
    inode = effect.inode
    old = view.known.by_id(inode.id)
    if old is not None and old.path == inode.path:
        view.later(_REPLACING, REVISE_INODE, _revised_values(inode))
    else:
        view.later(_MOVING, sql.CHANGE_INODE, inode_values(inode))
    view.known.learn(inode)


def _revised_values(inode: Inode) -> tuple[Any, ...]:
    return (
        inode.mode,
        inode.owner,
        inode.mtime,
        inode.ctime,
        inode.generation,
        inode.content_type,
        inode.content_id,
        inode.id,
    )


def _replace_root(view: View, effect: ReplaceRoot) -> None:
    view.connection.execute(sql.CHANGE_INODE, inode_values(effect.inode))
    view.known.learn(effect.inode)


def _touch_directory(view: View, effect: TouchDirectory) -> None:
    if not view.known.touch(effect.directory_id, effect.at):
        view.connection.execute(sql.TOUCH_DIRECTORY, (effect.at, effect.at, effect.directory_id))


def _replace_blob(view: View, effect: ReplaceBlob) -> None:
    old, new = effect.old, effect.blob
    _bury(view, _REPLACING, old, effect.retention)
    _unqueue(view, effect.inode_id)
    if old.replicas or new.replicas:
        view.connection.execute(_UNNAME, (effect.inode_id,))
        _add_blob(view, effect.inode_id, new)
    else:
        (values,) = blob_values(effect.inode_id, new)
        view.later(_REPLACING, REPLACE_ONLY_COPY, (*values[2:], effect.inode_id))


def _replace_copies(view: View, effect: ReplaceCopies) -> None:
    _unqueue(view, effect.inode_id)
    view.connection.execute(_UNNAME, (effect.inode_id,))
    _add_blob(view, effect.inode_id, effect.blob)


def _queue_replication(view: View, effect: QueueReplication) -> None:
    view.connection.execute(sql.QUEUE_REPLICATION, replication_values(effect.replication))
    view.filled.replications = True


def _unqueue(view: View, inode_id: str) -> None:
    if view.filled.replications:
        view.connection.execute(_UNQUEUE, (inode_id,))


def _remove_inode(view: View, effect: RemoveInode) -> None:
    inode = effect.inode
    if not inode.is_directory:
        if inode.blob is not None:
            _bury(view, _REMOVING, inode.blob, effect.retention)
        _unqueue(view, inode.id)
        view.later(_REMOVING, _UNNAME, (inode.id,))
        if view.filled.links:
            view.connection.execute(_UNLINK, (inode.id,))
    view.later(_REMOVING, sql.REMOVE_INODE, (inode.id,))
    view.known.remove(inode)


def _bury(view: View, group: Group, blob: BlobRef, retention: Retention) -> None:
    """Queue a blob and its replicas as garbage, in the order of their ids, as :func:`sql.bury` does."""
    for copy in sorted(blob.copies(), key=lambda copy: copy.id):
        is_local = isinstance(copy.placement, LocalPlacement)
        at = retention.local_at if is_local else retention.elsewhere_at
        view.later(group, sql.ADD_GARBAGE, garbage_values(copy, at))


def _remove_tree(view: View, effect: RemoveTree) -> None:
    view.start_over()
    bounds = (paths.subtree_start(effect.directory), paths.subtree_end(effect.directory))
    times = (LOCAL_KIND, effect.retention.local_at, effect.retention.elsewhere_at)
    view.connection.execute(_BURY_TREE, (*times, *bounds))
    for statement in (_UNQUEUE_TREE, _UNNAME_TREE, _UNLINK_TREE, sql.REMOVE_TREE):
        view.connection.execute(statement, bounds)


def _move_tree(view: View, effect: MoveTree) -> None:
    """``substr`` counts characters from 1, as ``len`` counts code points, so both cut at the same place."""
    view.start_over()
    growth = paths.depth(effect.destination) - paths.depth(effect.source)
    bounds = (paths.subtree_start(effect.source), paths.subtree_end(effect.source))
    view.connection.execute(sql.MOVE_TREE, (effect.destination, len(effect.source) + 1, growth, *bounds))


def _add_link(view: View, effect: AddLink) -> None:
    link = effect.link
    view.connection.execute(
        sql.ADD_LINK,
        (link.token_hash, link.inode_id, link.created_by, link.created_at, link.expires_at, link.used_at),
    )
    view.filled.links = True


def _use_link(view: View, effect: UseLink) -> None:
    view.connection.execute(sql.USE_LINK, (effect.at, effect.token_hash))


def _put_instance(view: View, effect: PutInstance) -> None:
    node = effect.instance
    view.connection.execute(
        "INSERT OR REPLACE INTO instances (id, root_id, api_endpoint, last_seen_at) VALUES (?, ?, ?, ?)",
        (node.id, node.root_id, node.api_endpoint, node.last_seen_at),
    )


def _forget_node(view: View, effect: ForgetNode) -> None:
    view.connection.execute(sql.DROP_GARBAGE_ON, (LOCAL_KIND, effect.instance_id))
    view.connection.execute(sql.FORGET_INSTANCE, (effect.instance_id,))


def _add_garbage(view: View, effect: AddGarbage) -> None:
    view.connection.execute(sql.ADD_GARBAGE, garbage_values(effect.blob, effect.not_before_at))


def _add_condemned(view: View, effect: AddCondemned) -> None:
    view.connection.execute(sql.ADD_CONDEMNED, (effect.blob_id, effect.condemned_at))
    view.filled.condemned = True


def _mark_import(view: View, effect: MarkImport) -> None:
    view.connection.execute(sql.MARK_IMPORT, (effect.import_id,))


def _take_identity(view: View, effect: TakeIdentity) -> None:
    view.connection.execute(sql.TAKE_IDENTITY, (effect.store_id,))


EFFECTS: Mapping[type[Effect], Callable[[View, Any], None]] = MappingProxyType(
    {
        AddInode: _add_inode,
        ChangeInode: _change_inode,
        TouchDirectory: _touch_directory,
        ReplaceBlob: _replace_blob,
        ReplaceCopies: _replace_copies,
        QueueReplication: _queue_replication,
        RemoveInode: _remove_inode,
        RemoveTree: _remove_tree,
        MoveTree: _move_tree,
        AddLink: _add_link,
        UseLink: _use_link,
        PutInstance: _put_instance,
        ForgetNode: _forget_node,
        ReplaceRoot: _replace_root,
        AddGarbage: _add_garbage,
        AddCondemned: _add_condemned,
        MarkImport: _mark_import,
        TakeIdentity: _take_identity,
    }
)
"""Each in the transaction of a view, which knows of it afterwards."""
