"""
A command inside a transaction of the PostgreSQL store: gather facts, decide, carry the effects out.

The transaction is READ COMMITTED. Three things make its decision stand:

- *Changes of names* share an advisory lock from before their first statement; what moves or removes a whole tree
  has it alone, so that nothing slips into the tree meanwhile, and so does what condemns blobs, so that none gets
  a name, and what forgets a node, so that it gets nothing.
- *An inode that changes* is written on the condition that its generation is still the one that the decision saw.
- *Existence* is kept by constraints: a path is unique, and a parent, or a link's file, is there.

Whoever was overtaken by another command runs into a condition or a constraint, and decides again.
"""

# ruff: noqa: S608 -- statements are put together from constants and "?" alone

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from callfs import paths
from callfs.metadata import postgres_queries as queries
from callfs.metadata import sql
from callfs.metadata.commands import (
    Command,
    Condemn,
    Condemned,
    CreateDirectory,
    CreateFile,
    DropGarbage,
    ForgetCondemned,
    ForgetInstance,
    Move,
    PostponeReplication,
    Purged,
    PurgeLinks,
    PutFile,
    Relocate,
    Remove,
)
from callfs.metadata.decisions import DECISIONS
from callfs.metadata.facts import (
    AddCondemned,
    AddGarbage,
    AddInode,
    AddLink,
    ChangeInode,
    Decision,
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
from callfs.metadata.importing import ClearImport
from callfs.metadata.postgres_facts import PostgresFacts, bounds
from callfs.metadata.postgres_moving import clear_import
from callfs.metadata.postgres_queries import Connection, adapted
from callfs.metadata.postgres_statements import Statement, carry_out
from callfs.metadata.rows import (
    LOCAL_KIND,
    blob_values,
    garbage_values,
    inode_values,
    replication_values,
)
from callfs.model import BlobRef

# As arrays, not as joins: however wrong the planner's numbers are, it goes through an index.
_OF_TREE = f"inode_id = ANY(ARRAY({sql.IN_TREE}))"
PURGE_LINKS = adapted(f"DELETE FROM links WHERE token_hash = ANY(ARRAY({sql.OLD_LINKS}))")

_ADD_INODE = adapted(sql.ADD_INODE)
_ADD_BLOB = adapted(sql.ADD_BLOB)
_CHANGE_INODE = adapted(f"{sql.CHANGE_INODE} AND generation = ?")
_TOUCH_DIRECTORY = adapted(sql.TOUCH_DIRECTORY)
_LOCK_INODE = "SELECT 1 FROM inodes WHERE id = %s AND generation = %s FOR UPDATE"
_REMOVE_INODE = adapted(sql.REMOVE_INODE)
_REMOVE_TREE = adapted(sql.REMOVE_TREE)
POSTPONE = adapted(sql.POSTPONE)
MOVE_TREE = adapted(sql.MOVE_TREE)
_PUT_INSTANCE = """INSERT INTO instances (id, root_id, api_endpoint, last_seen_at) VALUES (%s, %s, %s, %s)
    ON CONFLICT (id) DO UPDATE SET root_id = excluded.root_id, api_endpoint = excluded.api_endpoint,
    last_seen_at = excluded.last_seen_at"""

_SHARE_NAMES = (CreateFile, PutFile, CreateDirectory, Remove, Move, Relocate, PostponeReplication)
"""The last one because it names a node, which may be about to be forgotten."""


class NamesLock(enum.Enum):
    """How a command takes the lock on all names; the value is what the server calls to take it."""

    NONE = ""
    SHARED = "pg_advisory_xact_lock_shared"
    ALONE = "pg_advisory_xact_lock"


class NeedsAllNames(Exception):
    """The command turned out to be about a whole tree: begin again, with the lock on all names alone."""


class Change(msgspec.Struct, frozen=True):
    """What a command comes to."""

    result: Any
    statements: tuple[Statement, ...]


def names_lock(command: Command[Any]) -> NamesLock:
    """The lock that a command begins with."""
    if isinstance(command, Condemn | ForgetInstance) or (isinstance(command, Remove) and command.recursive):
        return NamesLock.ALONE
    if isinstance(command, _SHARE_NAMES):
        return NamesLock.SHARED
    return NamesLock.NONE


def decide(connection: Connection, command: Command[Any], lock: NamesLock) -> Change:
    """
    Find out what a command comes to, in the transaction that is open and holds ``lock``.

    :raises callfs.errors.CallFSError: the command's refusals.
    :raises NeedsAllNames: ``lock`` isn't enough.
    """
    sweep = _SWEEPS.get(type(command))
    if sweep is not None:
        return Change(sweep(connection, command), ())
    decision = DECISIONS[type(command)](command, PostgresFacts(connection, _new_blobs(command)))
    if lock is not NamesLock.ALONE and any(isinstance(e, MoveTree | RemoveTree) for e in decision.effects):
        raise NeedsAllNames
    return Change(decision.result, tuple(_statements(decision)))


def _new_blobs(command: Command[Any]) -> tuple[str, ...]:
    """The blobs that are to get a name, when the path that names them is all that is asked about."""
    return tuple(copy.id for copy in command.blob.copies()) if isinstance(command, CreateFile | PutFile) else ()


def _statements(decision: Decision) -> Iterator[Statement]:
    """
    Directories are touched last and in one order: commands in one directory hold its row no longer than their
    COMMIT takes, and no two wait for each other.
    """
    touches = [effect for effect in decision.effects if isinstance(effect, TouchDirectory)]
    others = [effect for effect in decision.effects if not isinstance(effect, TouchDirectory)]
    for effect in (*others, *sorted(touches, key=lambda touch: touch.directory_id)):
        yield from _EFFECTS[type(effect)](effect)


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


def _purge_links(connection: Connection, command: PurgeLinks) -> Purged:
    cursor = connection.execute(
        PURGE_LINKS,
        (command.expired_before_at, command.used_before_at, command.expired_before_at, command.limit),
    )
    return Purged(cursor.rowcount)


def _drop_garbage(connection: Connection, command: DropGarbage) -> Purged:
    return Purged(connection.execute("DELETE FROM garbage WHERE id = ANY(%s)", (list(command.ids),)).rowcount)


def _condemn(connection: Connection, command: Condemn) -> Condemned:
    named = queries.named_blobs(connection, command.blob_ids)
    doomed = tuple(blob_id for blob_id in dict.fromkeys(command.blob_ids) if blob_id not in named)
    carry_out(
        connection, [Statement(adapted(sql.ADD_CONDEMNED), (blob_id, command.at)) for blob_id in sorted(doomed)]
    )
    return Condemned(doomed)


def _forget_condemned(connection: Connection, command: ForgetCondemned) -> Purged:
    return Purged(connection.execute(adapted(sql.FORGET_CONDEMNED), (command.before_at,)).rowcount)


def _postpone(connection: Connection, command: PostponeReplication) -> Purged:
    return Purged(connection.execute(POSTPONE, (command.due_at, command.by, command.blob_id)).rowcount)


_EFFECTS: Mapping[type[Effect], Callable[[Any], Iterator[Statement]]] = MappingProxyType(
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

_SWEEPS: Mapping[type[Command[Any]], Callable[[Connection, Any], Any]] = MappingProxyType(
    {
        PurgeLinks: _purge_links,
        DropGarbage: _drop_garbage,
        Condemn: _condemn,
        ForgetCondemned: _forget_condemned,
        PostponeReplication: _postpone,
        ClearImport: clear_import,
    }
)
