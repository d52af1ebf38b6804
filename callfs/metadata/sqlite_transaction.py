"""Commands inside a transaction of the SQLite store: gather facts, decide, carry the effects out."""

# ruff: noqa: S608 -- statements are put together from constants and "?" alone

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from callfs import paths
from callfs.metadata import sql
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.commands import (
    Command,
    Condemn,
    Condemned,
    CreateDirectory,
    CreateFile,
    DropGarbage,
    ForgetCondemned,
    IssueLink,
    Move,
    PostponeReplication,
    Purged,
    PurgeLinks,
    PutFile,
    Remove,
)
from callfs.metadata.decisions import DECISIONS
from callfs.metadata.importing import ClearImport
from callfs.metadata.sqlite_effects import EFFECTS
from callfs.metadata.sqlite_facts import SqliteFacts
from callfs.metadata.sqlite_view import MOST_KNOWN, View
from callfs.model import ROOT_INODE_ID

PURGE_LINKS = f"DELETE FROM links WHERE token_hash IN ({sql.OLD_LINKS})"

_MOST_EXPECTED = 2048
_CLEAR_INODE = (
    sql.unlink(sql.OF_INODE),
    sql.unqueue(sql.OF_INODE),
    sql.unname_blobs(sql.OF_INODE),
    sql.REMOVE_INODE,
)


class Transaction:
    """
    Commands that are carried out in one transaction, or under one savepoint.

    A refused command has written nothing, so many can go without savepoints of their own. When one fails otherwise
    all has to be rolled back, and this object is of no more use; then they can be carried out one by one, each
    under a savepoint and in an object of its own, so that only this one has no effect.

    :param connection: with the transaction open.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._view = View(connection)
        self._facts = SqliteFacts(self._view)

    def expect(self, commands: Iterable[Command[Any]]) -> None:
        """Look up together what commands to come will ask for; they needn't come."""
        asked = dict.fromkeys(
            getattr(command, name) for command in commands for name in _PATHS.get(type(command), ())
        )
        folders = dict.fromkeys(map(paths.parent, asked))
        above = dict.fromkeys(path for folder in folders for path in paths.ancestors(folder))
        self._view.look_up([*(above | folders | asked)][:_MOST_EXPECTED])

    def apply(self, command: Command[Any]) -> Any:
        """
        Apply a command.

        :return: what the command says it returns.
        :raises callfs.errors.CallFSError: the command's refusals; nothing was written then.
        :raises sqlite3.Error: the caller rolls back.
        """
        if len(self._view.known) > MOST_KNOWN:
            self._view.start_over()
        kind = type(command)
        sweep = _SWEEPS.get(kind)
        if sweep is not None:
            return sweep(self._view, command)
        decision = DECISIONS[kind](command, self._facts)
        for effect in decision.effects:
            EFFECTS[type(effect)](self._view, effect)
        return decision.result

    def settle(self) -> None:
        """Write what was put off: before the transaction is committed, or the savepoint released."""
        self._view.settle()


def _purge_links(view: View, command: PurgeLinks) -> Purged:
    cursor = view.connection.execute(
        PURGE_LINKS,
        (command.expired_before_at, command.used_before_at, command.expired_before_at, command.limit),
    )
    return Purged(cursor.rowcount)


def _drop_garbage(view: View, command: DropGarbage) -> Purged:
    cursor = view.connection.execute(
        "DELETE FROM garbage WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(command.ids),)
    )
    return Purged(cursor.rowcount)


def _condemn(view: View, command: Condemn) -> Condemned:
    named = queries.named_blobs(view.connection, command.blob_ids)
    doomed = tuple(blob_id for blob_id in dict.fromkeys(command.blob_ids) if blob_id not in named)
    view.connection.executemany(
        sql.ADD_CONDEMNED,
        [(blob_id, command.at) for blob_id in doomed],
    )
    view.filled.condemned = True
    return Condemned(doomed)


def _forget_condemned(view: View, command: ForgetCondemned) -> Purged:
    cursor = view.connection.execute(sql.FORGET_CONDEMNED, (command.before_at,))
    return Purged(cursor.rowcount)


def _postpone(view: View, command: PostponeReplication) -> Purged:
    values = (command.due_at, command.by, command.blob_id)
    return Purged(view.connection.execute(sql.POSTPONE, values).rowcount)


def _clear_import(view: View, command: ClearImport) -> Purged:
    if queries.unfinished_import(view.connection) != command.import_id:
        return Purged(0)
    view.start_over()
    ids = view.connection.execute(sql.LAST_INODES, (ROOT_INODE_ID, command.limit)).fetchall()
    for statement in _CLEAR_INODE:
        view.connection.executemany(statement, ids)
    count = len(ids) + view.connection.execute(sql.CLEAR_INSTANCES).rowcount
    for statement in (sql.CLEAR_GARBAGE, sql.CLEAR_CONDEMNED):
        count += view.connection.execute(statement, (command.limit,)).rowcount
    return Purged(count)


_PATHS: Mapping[type[Command[Any]], tuple[str, ...]] = MappingProxyType(
    {
        CreateFile: ("path",),
        PutFile: ("path",),
        CreateDirectory: ("path",),
        Remove: ("path",),
        IssueLink: ("path",),
        Move: ("source", "destination"),
    }
)
"""The fields whose paths a command asks about."""

_SWEEPS: Mapping[type[Command[Any]], Callable[[View, Any], Any]] = MappingProxyType(
    {
        PurgeLinks: _purge_links,
        DropGarbage: _drop_garbage,
        Condemn: _condemn,
        ForgetCondemned: _forget_condemned,
        PostponeReplication: _postpone,
        ClearImport: _clear_import,
    }
)
