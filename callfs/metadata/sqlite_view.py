"""The SQLite store as one transaction sees it: what was read, what was changed, and what is still to be written."""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from callfs.metadata import sql
from callfs.metadata.known import Known
from callfs.metadata.rows import inode_from_row
from callfs.metadata.sqlite_queries import INODE_COLUMNS

MOST_KNOWN = 20_000
"""Of paths; beyond it a transaction begins to learn anew, so that its memory has a bound."""

TOUCHED = "UPDATE inodes SET mtime = ?, ctime = ?, generation = ? WHERE id = ?"
FILLED = """SELECT EXISTS (SELECT 1 FROM links), EXISTS (SELECT 1 FROM replications),
    EXISTS (SELECT 1 FROM condemned)"""

_TOGETHER = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""So many paths are looked up by one statement: few statements, so that all stay prepared."""


def by_paths(count: int) -> str:
    """The query for what is at some of ``count`` paths, in no order."""
    return sql.inode_query(INODE_COLUMNS, f"WHERE i.path IN ({', '.join('?' * count)})")


_BY_PATHS = tuple(by_paths(count) for count in _TOGETHER)


class Filled:
    """
    Which tables may have rows that belong to files; most often they have none.

    :ivar links: links.
    :ivar replications: the replication queue.
    :ivar condemned: condemned blobs.
    """

    def __init__(self, links: int, replications: int, condemned: int) -> None:
        self.links = bool(links)
        self.replications = bool(replications)
        self.condemned = bool(condemned)


Group = tuple[str, ...]
"""Statements that are kept back together; see :meth:`View.later`."""


class View:
    """
    The store inside a transaction. What goes around :attr:`known` calls :meth:`start_over` before.

    :param connection: with the transaction open, in which nobody else changes inodes.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.known = Known()
        self._connection = connection
        self._filled: Filled | None = None
        self._group: Group = ()
        self._later: dict[str, list[tuple[Any, ...]]] = {}

    @property
    def connection(self) -> sqlite3.Connection:
        """To ask and to change; nothing is kept back any more, but for what :meth:`settle` writes."""
        if self._later:
            self._write_later()
        return self._connection

    def later(self, group: Group, statement: str, values: tuple[Any, ...]) -> None:
        """
        Carry a statement out together with what follows, at the latest when the connection is asked for.

        :param group: it is one of them. They are carried out in this order, each for all commands, so it must not
            matter whether those come one after the other. Another group waits until this one has been written.
        """
        if group is not self._group:
            if self._later:
                self._write_later()
            self._group = group
        rows = self._later.get(statement)
        if rows is None:
            self._later[statement] = [values]
        else:
            rows.append(values)

    def _write_later(self) -> None:
        later, self._later = self._later, {}
        for statement in self._group:
            rows = later.get(statement)
            if rows is not None:
                self._connection.executemany(statement, rows)

    @property
    def filled(self) -> Filled:
        """To be kept up to date by whoever adds to these tables."""
        if self._filled is None:
            self._filled = Filled(*self._connection.execute(FILLED).fetchall()[0])
        return self._filled

    def look_up(self, wanted: Iterable[str]) -> None:
        """See to it that it is known what is at these paths."""
        unknown = self.known.unknown(wanted)
        self.known.learn_nothing(unknown)
        for start in range(0, len(unknown), _TOGETHER[-1]):
            self._look_up(unknown[start : start + _TOGETHER[-1]])

    def _look_up(self, some: Sequence[str]) -> None:
        size = bisect_left(_TOGETHER, len(some))
        values = (*some, *[some[-1]] * (_TOGETHER[size] - len(some)))
        # What is kept back has moved inodes that nothing is known of any more: it has to be there first.
        for row in self.connection.execute(_BY_PATHS[size], values).fetchall():
            self.known.learn(inode_from_row(row))

    def settle(self) -> None:
        """Write what was put off."""
        touched, connection = self.known.take_touched(), self.connection
        if touched:
            connection.executemany(
                TOUCHED, [(inode.mtime, inode.ctime, inode.generation, inode.id) for inode in touched]
            )

    def start_over(self) -> None:
        """Write what was put off, and know nothing any more: many inodes are about to change."""
        self.settle()
        self.known.forget()
