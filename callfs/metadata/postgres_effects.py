"""
What a decision orders, as statements of the PostgreSQL store.

What a statement has to find, so that nobody has overtaken the decision, is said with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from callfs.metadata.postgres_facts import bounds
from callfs.metadata.postgres_queries import adapted
from callfs.metadata.postgres_statements import Statement
from callfs.metadata.rows import (
    LOCAL_KIND,
    blob_values,
    garbage_values,
    inode_values,
    replication_values,
)
from callfs.model import BlobRef

# As an array, not as a join: however wrong the planner's numbers are, it goes through an index.
_OF_TREE = f"inode_id = ANY(ARRAY({sql.IN_TREE}))"

_ADD_INODE = adapted(sql.ADD_INODE)
_ADD_BLOB = adapted(sql.ADD_BLOB)
_CHANGE_INODE = adapted(f"{sql.CHANGE_INODE} AND generation = ?")
_TOUCH_DIRECTORY = adapted(sql.TOUCH_DIRECTORY)
_LOCK_INODE = "SELECT 1 FROM inodes WHERE id = %s AND generation = %s FOR UPDATE"
_REMOVE_INODE = adapted(sql.REMOVE_INODE)
_REMOVE_TREE = adapted(sql.REMOVE_TREE)
MOVE_TREE = adapted(sql.MOVE_TREE)
_PUT_INSTANCE = """INSERT INTO instances (id, root_id, api_endpoint, last_seen_at) VALUES (%s, %s, %s, %s)
    ON CONFLICT (id) DO UPDATE SET root_id = excluded.root_id, api_endpoint = excluded.api_endpoint,
    last_seen_at = excluded.last_seen_at"""


def _add_inode(effect: AddInode) -> Iterator[Statement]:
    yield Statement(_ADD_INODE, inode_values(effect.inode), blind=True)
    if effect.inode.blob is not None:
        yield from _add_blob(effect.inode.id, effect.inode.blob)


def _add_blob(inode_id: str, blob: BlobRef) -> Iterator[Statement]:
    for values in blob_values(inode_id, blob):
        yield Statement(_ADD_BLOB, values, blind=True)


def _change_inode(effect: ChangeInode) -> Iterator[Statement]:
    yield Statement(_CHANGE_INODE, (*inode_values(effect.inode), effect.inode.generation - 1), rows=1)


def _touch_directory(effect: TouchDirectory) -> Iterator[Statement]:
    yield Statement(_TOUCH_DIRECTORY, (effect.at, effect.at, effect.directory_id), rows=1, blind=True)


def _replace_blob(effect: ReplaceBlob) -> Iterator[Statement]:
    """The inode's row is locked: the effect before this one has changed it."""
    yield from _bury(sql.OF_INODE, (effect.inode_id,), effect.retention)
    yield from _add_blob(effect.inode_id, effect.blob)


def _replace_copies(effect: ReplaceCopies) -> Iterator[Statement]:
    """The inode's row is locked: the effect before this one has changed it."""
    yield from _unname(sql.OF_INODE, (effect.inode_id,))
    yield from _add_blob(effect.inode_id, effect.blob)


def _queue_replication(effect: QueueReplication) -> Iterator[Statement]:
    yield Statement(adapted(sql.QUEUE_REPLICATION), replication_values(effect.replication), blind=True)


def _remove_inode(effect: RemoveInode) -> Iterator[Statement]:
    inode = effect.inode
    yield Statement(_LOCK_INODE, (inode.id, inode.generation), rows=1)
    if not inode.is_directory:
        yield from _bury(sql.OF_INODE, (inode.id,), effect.retention)
        yield Statement(adapted(sql.unlink(sql.OF_INODE)), (inode.id,))
    yield Statement(_REMOVE_INODE, (inode.id,), rows=1)


def _remove_tree(effect: RemoveTree) -> Iterator[Statement]:
    ends = bounds(effect.directory)
    yield from _bury(_OF_TREE, ends, effect.retention)
    yield Statement(adapted(sql.unlink(_OF_TREE)), ends)
    yield Statement(_REMOVE_TREE, ends)


def _bury(whose: str, which: tuple[str, ...], retention: Retention) -> Iterator[Statement]:
    """Move the blobs of some inodes to the garbage queue."""
    times = (LOCAL_KIND, retention.local_at, retention.elsewhere_at)
    yield Statement(adapted(sql.bury(whose)), (*times, *which))
    yield from _unname(whose, which)


def _unname(whose: str, which: tuple[str, ...]) -> Iterator[Statement]:
    """Take the blobs of some inodes away from them, and what is queued because of them."""
    yield Statement(adapted(sql.unqueue(whose)), which)
    yield Statement(adapted(sql.unname_blobs(whose)), which)


def _move_tree(effect: MoveTree) -> Iterator[Statement]:
    """``substr`` counts characters from 1, as ``len`` counts code points, so both cut at the same place."""
    growth = paths.depth(effect.destination) - paths.depth(effect.source)
    cut = len(effect.source) + 1
    yield Statement(MOVE_TREE, (effect.destination, cut, growth, *bounds(effect.source)))


def _add_link(effect: AddLink) -> Iterator[Statement]:
    link = effect.link
    values = (link.token_hash, link.inode_id, link.created_by, link.created_at, link.expires_at, link.used_at)
    yield Statement(adapted(sql.ADD_LINK), values)


def _use_link(effect: UseLink) -> Iterator[Statement]:
    yield Statement(adapted(sql.USE_LINK), (effect.at, effect.token_hash), rows=1)


def _put_instance(effect: PutInstance) -> Iterator[Statement]:
    node = effect.instance
    yield Statement(_PUT_INSTANCE, (node.id, node.root_id, node.api_endpoint, node.last_seen_at))


def _forget_node(effect: ForgetNode) -> Iterator[Statement]:
    yield Statement(adapted(sql.DROP_GARBAGE_ON), (LOCAL_KIND, effect.instance_id))
    yield Statement(adapted(sql.FORGET_INSTANCE), (effect.instance_id,))


def _replace_root(effect: ReplaceRoot) -> Iterator[Statement]:
    yield Statement(adapted(sql.CHANGE_INODE), inode_values(effect.inode), rows=1)


def _add_garbage(effect: AddGarbage) -> Iterator[Statement]:
    yield Statement(adapted(sql.ADD_GARBAGE), garbage_values(effect.blob, effect.not_before_at))


def _add_condemned(effect: AddCondemned) -> Iterator[Statement]:
    yield Statement(adapted(sql.ADD_CONDEMNED), (effect.blob_id, effect.condemned_at))


EFFECTS: Mapping[type[Effect], Callable[[Any], Iterator[Statement]]] = MappingProxyType(
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
        MarkImport: lambda effect: iter([Statement(adapted(sql.MARK_IMPORT), (effect.import_id,))]),
        TakeIdentity: lambda effect: iter([Statement(adapted(sql.TAKE_IDENTITY), (effect.store_id,))]),
    }
)
"""The statements that each makes, in their order."""
