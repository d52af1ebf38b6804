"""
A command inside a transaction of the PostgreSQL store: gather facts, decide, carry the effects out.

The transaction is READ COMMITTED. Three things make its decision stand:

- *Changes of names* share an advisory lock from before their first statement; what moves or removes a whole tree
  has it alone, so that nothing slips into the tree meanwhile, and so does what condemns blobs, so that none gets
  a name.
- *An inode that changes* is written on the condition that its generation is still the one that the decision saw.
- *Existence* is kept by constraints: a path is unique, and a parent, or a link's file, is there.

Whoever was overtaken by another command runs into a condition or a constraint, and decides again.
"""

# ruff: noqa: S608 -- statements are put together from constants and "?" alone

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import psycopg

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
    Move,
    Purged,
    PurgeLinks,
    PutFile,
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
    MarkImport,
    MoveTree,
    PutInstance,
    RemoveInode,
    RemoveTree,
    ReplaceBlob,
    ReplaceRoot,
    Retention,
    TakeIdentity,
    TouchDirectory,
    TreeFacts,
    UseLink,
)
from callfs.metadata.importing import ClearImport
from callfs.metadata.postgres_errors import Overtaken
from callfs.metadata.postgres_moving import LOCKED_IMPORT, clear_import
from callfs.metadata.postgres_queries import Connection, adapted
from callfs.metadata.rows import (
    LOCAL_KIND,
    blob_values,
    garbage_values,
    inode_values,
    instance_from_row,
    link_from_row,
)
from callfs.model import ROOT_INODE_ID, BlobRef, Inode, Instance, Link

# As arrays, not as joins: however wrong the planner's numbers are, it goes through an index.
_OF_TREE = f"inode_id = ANY(ARRAY({sql.IN_TREE}))"
PURGE_LINKS = adapted(f"DELETE FROM links WHERE token_hash = ANY(ARRAY({sql.OLD_LINKS}))")
LONGEST_PATH = adapted("SELECT coalesce(max(octet_length(path)), 0) FROM inodes WHERE path > ? AND path < ?")
TREE = adapted(sql.TREE)
IS_EMPTY = adapted(sql.IS_EMPTY)
ANY_CHILD = adapted(sql.ANY_CHILD)
ANY_CONDEMNED = "SELECT 1 FROM condemned WHERE blob_id = ANY(%s) LIMIT 1"
LOCKED_LINK = f"{queries.LINK} FOR UPDATE"

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

_NO_RESULT = -1


class NamesLock(enum.Enum):
    """How a command takes the lock on all names; the value is what the server calls to take it."""

    NONE = ""
    SHARED = "pg_advisory_xact_lock_shared"
    ALONE = "pg_advisory_xact_lock"


class NeedsAllNames(Exception):
    """The command turned out to be about a whole tree: begin again, with the lock on all names alone."""


class Statement(msgspec.Struct, frozen=True):
    """
    One change.

    :param rows: how many rows it has to find; otherwise the decision was overtaken. ``None``: any number.
    """

    text: str
    parameters: tuple[Any, ...]
    rows: int | None = None


class Change(msgspec.Struct, frozen=True):
    """What a command comes to."""

    result: Any
    statements: tuple[Statement, ...]


class PostgresFacts:
    """What a decision may ask, answered inside the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors."""
        return queries.get_chain(self._connection, path)

    def has_children(self, directory_id: str) -> bool:
        """Whether anything is in the directory."""
        return self._connection.execute(ANY_CHILD, (directory_id,)).fetchone() is not None

    def tree(self, directory: str, user: str) -> TreeFacts:
        """What lies below ``directory``."""
        rows = self._connection.execute(TREE, (user, *_bounds(directory))).fetchall()
        return TreeFacts(*rows[0])

    def longest_path_bytes(self, directory: str) -> int:
        """The length of the longest path below ``directory``."""
        return int(self._connection.execute(LONGEST_PATH, _bounds(directory)).fetchall()[0][0])

    def any_condemned(self, blob_ids: Sequence[str]) -> bool:
        """Whether one of the blobs is condemned."""
        return self._connection.execute(ANY_CONDEMNED, (list(blob_ids),)).fetchone() is not None

    def link(self, token_hash: bytes) -> Link | None:
        """The link with this hash, which nobody else changes until this transaction ends."""
        row = self._connection.execute(LOCKED_LINK, (token_hash,)).fetchone()
        return None if row is None else link_from_row(row)

    def instance(self, instance_id: str) -> Instance | None:
        """The node with this id; no other registers until this transaction ends."""
        self._connection.execute("LOCK TABLE instances IN SHARE ROW EXCLUSIVE MODE")
        row = self._connection.execute(
            "SELECT id, root_id, api_endpoint, last_seen_at FROM instances WHERE id = %s", (instance_id,)
        ).fetchone()
        return None if row is None else instance_from_row(row)

    def unfinished_import(self) -> str | None:
        """The import that was begun and not finished; none begins or ends until this transaction does."""
        (import_id,) = self._connection.execute(LOCKED_IMPORT).fetchall()[0]
        return None if import_id is None else str(import_id)

    def is_empty(self) -> bool:
        """Whether nothing but the root is there."""
        return bool(self._connection.execute(IS_EMPTY, (ROOT_INODE_ID,)).fetchall()[0][0])


def names_lock(command: Command[Any]) -> NamesLock:
    """The lock that a command begins with."""
    if isinstance(command, Condemn) or (isinstance(command, Remove) and command.recursive):
        return NamesLock.ALONE
    if isinstance(command, CreateFile | PutFile | CreateDirectory | Remove | Move):
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
    decision = DECISIONS[type(command)](command, PostgresFacts(connection))
    if lock is not NamesLock.ALONE and any(isinstance(e, MoveTree | RemoveTree) for e in decision.effects):
        raise NeedsAllNames
    return Change(decision.result, tuple(_statements(decision)))


def carry_out(connection: Connection, statements: Sequence[Statement]) -> None:
    """
    Make the changes, all in one round trip.

    :raises Overtaken: one of them didn't find what the decision was taken upon.
    """
    cursors = [connection.cursor() for _ in statements]
    refused: psycopg.Error | None = None
    try:
        with connection.pipeline():
            try:
                for statement, cursor in zip(statements, cursors, strict=True):
                    cursor.execute(statement.text, statement.parameters)
            except psycopg.Error as error:
                refused = error  # kept from the pipeline's end, which would log that the rest was aborted
    except psycopg.Error as error:
        refused = refused or error
    # A condition that didn't hold comes first: what was refused after it was refused because of it.
    for statement, cursor in zip(statements, cursors, strict=True):
        if statement.rows is not None and cursor.rowcount not in (statement.rows, _NO_RESULT):
            raise Overtaken
    if refused is not None:
        raise refused


def _statements(decision: Decision) -> Iterator[Statement]:
    """
    Directories are touched last and in one order: commands in one directory hold its row no longer than their
    COMMIT takes, and no two wait for each other.
    """
    touches = [effect for effect in decision.effects if isinstance(effect, TouchDirectory)]
    others = [effect for effect in decision.effects if not isinstance(effect, TouchDirectory)]
    for effect in (*others, *sorted(touches, key=lambda touch: touch.directory_id)):
        yield from _EFFECTS[type(effect)](effect)


def _bounds(directory: str) -> tuple[str, str]:
    return paths.subtree_start(directory), paths.subtree_end(directory)


def _add_inode(effect: AddInode) -> Iterator[Statement]:
    yield Statement(_ADD_INODE, inode_values(effect.inode))
    if effect.inode.blob is not None:
        yield from _add_blob(effect.inode.id, effect.inode.blob)


def _add_blob(inode_id: str, blob: BlobRef) -> Iterator[Statement]:
    for values in blob_values(inode_id, blob):
        yield Statement(_ADD_BLOB, values)


def _change_inode(effect: ChangeInode) -> Iterator[Statement]:
    yield Statement(_CHANGE_INODE, (*inode_values(effect.inode), effect.inode.generation - 1), rows=1)


def _touch_directory(effect: TouchDirectory) -> Iterator[Statement]:
    yield Statement(_TOUCH_DIRECTORY, (effect.at, effect.at, effect.directory_id), rows=1)


def _replace_blob(effect: ReplaceBlob) -> Iterator[Statement]:
    """The inode's row is locked: the effect before this one has changed it."""
    yield from _bury(sql.OF_INODE, (effect.inode_id,), effect.retention)
    yield from _add_blob(effect.inode_id, effect.blob)


def _remove_inode(effect: RemoveInode) -> Iterator[Statement]:
    inode = effect.inode
    yield Statement(_LOCK_INODE, (inode.id, inode.generation), rows=1)
    if not inode.is_directory:
        yield from _bury(sql.OF_INODE, (inode.id,), effect.retention)
        yield Statement(adapted(sql.unlink(sql.OF_INODE)), (inode.id,))
    yield Statement(_REMOVE_INODE, (inode.id,), rows=1)


def _remove_tree(effect: RemoveTree) -> Iterator[Statement]:
    bounds = _bounds(effect.directory)
    yield from _bury(_OF_TREE, bounds, effect.retention)
    yield Statement(adapted(sql.unlink(_OF_TREE)), bounds)
    yield Statement(_REMOVE_TREE, bounds)


def _bury(whose: str, which: tuple[str, ...], retention: Retention) -> Iterator[Statement]:
    """Move the blobs of some inodes to the garbage queue."""
    times = (LOCAL_KIND, retention.local_at, retention.elsewhere_at)
    yield Statement(adapted(sql.bury(whose)), (*times, *which))
    yield Statement(adapted(sql.unname_blobs(whose)), which)


def _move_tree(effect: MoveTree) -> Iterator[Statement]:
    """``substr`` counts characters from 1, as ``len`` counts code points, so both cut at the same place."""
    growth = paths.depth(effect.destination) - paths.depth(effect.source)
    cut = len(effect.source) + 1
    yield Statement(MOVE_TREE, (effect.destination, cut, growth, *_bounds(effect.source)))


def _add_link(effect: AddLink) -> Iterator[Statement]:
    link = effect.link
    values = (link.token_hash, link.inode_id, link.created_by, link.created_at, link.expires_at, link.used_at)
    yield Statement(adapted(sql.ADD_LINK), values)


def _use_link(effect: UseLink) -> Iterator[Statement]:
    yield Statement(adapted(sql.USE_LINK), (effect.at, effect.token_hash), rows=1)


def _put_instance(effect: PutInstance) -> Iterator[Statement]:
    node = effect.instance
    yield Statement(_PUT_INSTANCE, (node.id, node.root_id, node.api_endpoint, node.last_seen_at))


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


_EFFECTS: Mapping[type[Effect], Callable[[Any], Iterator[Statement]]] = MappingProxyType(
    {
        AddInode: _add_inode,
        ChangeInode: _change_inode,
        TouchDirectory: _touch_directory,
        ReplaceBlob: _replace_blob,
        RemoveInode: _remove_inode,
        RemoveTree: _remove_tree,
        MoveTree: _move_tree,
        AddLink: _add_link,
        UseLink: _use_link,
        PutInstance: _put_instance,
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
        ClearImport: clear_import,
    }
)
