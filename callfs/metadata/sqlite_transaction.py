"""A command inside a transaction of the SQLite store: gather facts, decide, carry the effects out."""

# ruff: noqa: S608 -- statements are put together from constants and "?" alone

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from callfs import paths
from callfs.metadata import sql
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.commands import (
    Command,
    Condemn,
    Condemned,
    DropGarbage,
    ForgetCondemned,
    PostponeReplication,
    Purged,
    PurgeLinks,
)
from callfs.metadata.decisions import DECISIONS
from callfs.metadata.facts import (
    AddCondemned,
    AddGarbage,
    AddInode,
    AddLink,
    ChangeInode,
    Effect,
    ForgetNode,
    Holdings,
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
    TreeFacts,
    UseLink,
)
from callfs.metadata.importing import ClearImport
from callfs.metadata.rows import (
    LOCAL_KIND,
    blob_values,
    garbage_values,
    inode_values,
    instance_from_row,
    replication_values,
)
from callfs.model import ROOT_INODE_ID, BlobRef, Inode, Instance, Link

_CLEAR_INODE = (
    sql.unlink(sql.OF_INODE),
    sql.unqueue(sql.OF_INODE),
    sql.unname_blobs(sql.OF_INODE),
    sql.REMOVE_INODE,
)
_OF_TREE = f"inode_id IN ({sql.IN_TREE})"
PURGE_LINKS = f"DELETE FROM links WHERE token_hash IN ({sql.OLD_LINKS})"
COUNT_GARBAGE_ON = "SELECT count(*) FROM garbage WHERE kind = ? AND instance_id = ?"
LONGEST_PATH = "SELECT coalesce(max(length(CAST(path AS BLOB))), 0) FROM inodes WHERE path > ? AND path < ?"


class SqliteFacts:
    """What a decision may ask, answered inside the transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def inode(self, inode_id: str) -> Inode | None:
        """The inode with this id."""
        return queries.get_by_id(self._connection, inode_id)

    def chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors."""
        return queries.get_chain(self._connection, path)

    def has_children(self, directory_id: str) -> bool:
        """Whether anything is in the directory."""
        return bool(self._connection.execute(sql.ANY_CHILD, (directory_id,)).fetchall())

    def tree(self, directory: str, user: str) -> TreeFacts:
        """What lies below ``directory``."""
        bounds = (paths.subtree_start(directory), paths.subtree_end(directory))
        rows = self._connection.execute(sql.TREE, (user, *bounds)).fetchall()
        return TreeFacts(*rows[0])

    def longest_path_bytes(self, directory: str) -> int:
        """The length of the longest path below ``directory``."""
        bounds = (paths.subtree_start(directory), paths.subtree_end(directory))
        rows = self._connection.execute(LONGEST_PATH, bounds).fetchall()
        return int(rows[0][0])

    def any_condemned(self, blob_ids: Sequence[str]) -> bool:
        """Whether one of the blobs is condemned."""
        return any(
            self._connection.execute("SELECT 1 FROM condemned WHERE blob_id = ?", (blob_id,)).fetchall()
            for blob_id in blob_ids
        )

    def link(self, token_hash: bytes) -> Link | None:
        """The link with this hash."""
        return queries.get_link(self._connection, token_hash)

    def instance(self, instance_id: str) -> Instance | None:
        """The node with this id."""
        rows = self._connection.execute(
            "SELECT id, root_id, api_endpoint, last_seen_at FROM instances WHERE id = ?", (instance_id,)
        ).fetchall()
        return instance_from_row(rows[0]) if rows else None

    def holdings(self, instance_id: str) -> Holdings:
        """What there is on the node, or waits for it."""
        copies = self._connection.execute(sql.COPIES_ON, (instance_id,)).fetchall()
        waiting = self._connection.execute(sql.REPLICATIONS_ON, (instance_id, instance_id)).fetchall()
        count = self._connection.execute(COUNT_GARBAGE_ON, (LOCAL_KIND, instance_id)).fetchall()[0][0]
        return Holdings(bool(copies), bool(waiting), count)

    def unfinished_import(self) -> str | None:
        """The import that was begun and not finished."""
        return queries.unfinished_import(self._connection)

    def is_empty(self) -> bool:
        """Whether nothing but the root is there."""
        return bool(self._connection.execute(sql.IS_EMPTY, (ROOT_INODE_ID,)).fetchall()[0][0])


def apply_command(connection: sqlite3.Connection, command: Command[Any]) -> Any:
    """
    Apply a command in the transaction (or savepoint) that is open.

    :return: what the command says it returns.
    :raises callfs.errors.CallFSError: the command's refusals; nothing was written then.
    :raises sqlite3.Error: the caller rolls back.
    """
    sweep = _SWEEPS.get(type(command))
    if sweep is not None:
        return sweep(connection, command)
    decision = DECISIONS[type(command)](command, SqliteFacts(connection))
    for effect in decision.effects:
        _EFFECTS[type(effect)](connection, effect)
    return decision.result


def _add_inode(connection: sqlite3.Connection, effect: AddInode) -> None:
    connection.execute(sql.ADD_INODE, inode_values(effect.inode))
    if effect.inode.blob is not None:
        _add_blob(connection, effect.inode.id, effect.inode.blob)


def _add_blob(connection: sqlite3.Connection, inode_id: str, blob: BlobRef) -> None:
    for values in blob_values(inode_id, blob):
        connection.execute(sql.ADD_BLOB, values)


def _change_inode(connection: sqlite3.Connection, effect: ChangeInode | ReplaceRoot) -> None:
    connection.execute(sql.CHANGE_INODE, inode_values(effect.inode))


def _touch_directory(connection: sqlite3.Connection, effect: TouchDirectory) -> None:
    connection.execute(sql.TOUCH_DIRECTORY, (effect.at, effect.at, effect.directory_id))


def _replace_blob(connection: sqlite3.Connection, effect: ReplaceBlob) -> None:
    _bury(connection, sql.OF_INODE, (effect.inode_id,), effect.retention)
    _add_blob(connection, effect.inode_id, effect.blob)


def _replace_copies(connection: sqlite3.Connection, effect: ReplaceCopies) -> None:
    _unname(connection, sql.OF_INODE, (effect.inode_id,))
    _add_blob(connection, effect.inode_id, effect.blob)


def _queue_replication(connection: sqlite3.Connection, effect: QueueReplication) -> None:
    connection.execute(sql.QUEUE_REPLICATION, replication_values(effect.replication))


def _remove_inode(connection: sqlite3.Connection, effect: RemoveInode) -> None:
    inode = effect.inode
    if not inode.is_directory:
        _bury(connection, sql.OF_INODE, (inode.id,), effect.retention)
        connection.execute(sql.unlink(sql.OF_INODE), (inode.id,))
    connection.execute(sql.REMOVE_INODE, (inode.id,))


def _remove_tree(connection: sqlite3.Connection, effect: RemoveTree) -> None:
    bounds = (paths.subtree_start(effect.directory), paths.subtree_end(effect.directory))
    _bury(connection, _OF_TREE, bounds, effect.retention)
    connection.execute(sql.unlink(_OF_TREE), bounds)
    connection.execute(sql.REMOVE_TREE, bounds)


def _bury(connection: sqlite3.Connection, whose: str, which: tuple[str, ...], retention: Retention) -> None:
    """Move the blobs of some inodes to the garbage queue."""
    times = (LOCAL_KIND, retention.local_at, retention.elsewhere_at)
    connection.execute(sql.bury(whose), (*times, *which))
    _unname(connection, whose, which)


def _unname(connection: sqlite3.Connection, whose: str, which: tuple[str, ...]) -> None:
    """Take the blobs of some inodes away from them, and what is queued because of them."""
    connection.execute(sql.unqueue(whose), which)
    connection.execute(sql.unname_blobs(whose), which)


def _move_tree(connection: sqlite3.Connection, effect: MoveTree) -> None:
    """``substr`` counts characters from 1, as ``len`` counts code points, so both cut at the same place."""
    growth = paths.depth(effect.destination) - paths.depth(effect.source)
    bounds = (paths.subtree_start(effect.source), paths.subtree_end(effect.source))
    connection.execute(sql.MOVE_TREE, (effect.destination, len(effect.source) + 1, growth, *bounds))


def _add_link(connection: sqlite3.Connection, effect: AddLink) -> None:
    link = effect.link
    connection.execute(
        sql.ADD_LINK,
        (link.token_hash, link.inode_id, link.created_by, link.created_at, link.expires_at, link.used_at),
    )


def _use_link(connection: sqlite3.Connection, effect: UseLink) -> None:
    connection.execute(sql.USE_LINK, (effect.at, effect.token_hash))


def _put_instance(connection: sqlite3.Connection, effect: PutInstance) -> None:
    node = effect.instance
    connection.execute(
        "INSERT OR REPLACE INTO instances (id, root_id, api_endpoint, last_seen_at) VALUES (?, ?, ?, ?)",
        (node.id, node.root_id, node.api_endpoint, node.last_seen_at),
    )


def _forget_node(connection: sqlite3.Connection, effect: ForgetNode) -> None:
    connection.execute(sql.DROP_GARBAGE_ON, (LOCAL_KIND, effect.instance_id))
    connection.execute(sql.FORGET_INSTANCE, (effect.instance_id,))


def _add_garbage(connection: sqlite3.Connection, effect: AddGarbage) -> None:
    connection.execute(sql.ADD_GARBAGE, garbage_values(effect.blob, effect.not_before_at))


def _add_condemned(connection: sqlite3.Connection, effect: AddCondemned) -> None:
    connection.execute(sql.ADD_CONDEMNED, (effect.blob_id, effect.condemned_at))


def _mark_import(connection: sqlite3.Connection, effect: MarkImport) -> None:
    connection.execute(sql.MARK_IMPORT, (effect.import_id,))


def _take_identity(connection: sqlite3.Connection, effect: TakeIdentity) -> None:
    connection.execute(sql.TAKE_IDENTITY, (effect.store_id,))


def _purge_links(connection: sqlite3.Connection, command: PurgeLinks) -> Purged:
    cursor = connection.execute(
        PURGE_LINKS,
        (command.expired_before_at, command.used_before_at, command.expired_before_at, command.limit),
    )
    return Purged(cursor.rowcount)


def _drop_garbage(connection: sqlite3.Connection, command: DropGarbage) -> Purged:
    cursor = connection.execute(
        "DELETE FROM garbage WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(command.ids),)
    )
    return Purged(cursor.rowcount)


def _condemn(connection: sqlite3.Connection, command: Condemn) -> Condemned:
    named = queries.named_blobs(connection, command.blob_ids)
    doomed = tuple(blob_id for blob_id in dict.fromkeys(command.blob_ids) if blob_id not in named)
    connection.executemany(
        sql.ADD_CONDEMNED,
        [(blob_id, command.at) for blob_id in doomed],
    )
    return Condemned(doomed)


def _forget_condemned(connection: sqlite3.Connection, command: ForgetCondemned) -> Purged:
    cursor = connection.execute(sql.FORGET_CONDEMNED, (command.before_at,))
    return Purged(cursor.rowcount)


def _postpone(connection: sqlite3.Connection, command: PostponeReplication) -> Purged:
    values = (command.due_at, command.by, command.blob_id)
    return Purged(connection.execute(sql.POSTPONE, values).rowcount)


def _clear_import(connection: sqlite3.Connection, command: ClearImport) -> Purged:
    if queries.unfinished_import(connection) != command.import_id:
        return Purged(0)
    ids = connection.execute(sql.LAST_INODES, (ROOT_INODE_ID, command.limit)).fetchall()
    for statement in _CLEAR_INODE:
        connection.executemany(statement, ids)
    count = len(ids) + connection.execute(sql.CLEAR_INSTANCES).rowcount
    for statement in (sql.CLEAR_GARBAGE, sql.CLEAR_CONDEMNED):
        count += connection.execute(statement, (command.limit,)).rowcount
    return Purged(count)


_EFFECTS: Mapping[type[Effect], Callable[[sqlite3.Connection, Any], None]] = MappingProxyType(
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
        ReplaceRoot: _change_inode,
        AddGarbage: _add_garbage,
        AddCondemned: _add_condemned,
        MarkImport: _mark_import,
        TakeIdentity: _take_identity,
    }
)

_SWEEPS: Mapping[type[Command[Any]], Callable[[sqlite3.Connection, Any], Any]] = MappingProxyType(
    {
        PurgeLinks: _purge_links,
        DropGarbage: _drop_garbage,
        Condemn: _condemn,
        ForgetCondemned: _forget_condemned,
        PostponeReplication: _postpone,
        ClearImport: _clear_import,
    }
)
