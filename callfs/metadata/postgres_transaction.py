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
from callfs.metadata.facts import Decision, MoveTree, RemoveTree, TouchDirectory
from callfs.metadata.importing import ClearImport
from callfs.metadata.postgres_effects import EFFECTS
from callfs.metadata.postgres_facts import PostgresFacts
from callfs.metadata.postgres_moving import clear_import
from callfs.metadata.postgres_queries import Connection, adapted
from callfs.metadata.postgres_statements import Statement, carry_out

# As an array, not as a join: however wrong the planner's numbers are, it goes through an index.
PURGE_LINKS = adapted(f"DELETE FROM links WHERE token_hash = ANY(ARRAY({sql.OLD_LINKS}))")
POSTPONE = adapted(sql.POSTPONE)
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
        yield from EFFECTS[type(effect)](effect)


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
