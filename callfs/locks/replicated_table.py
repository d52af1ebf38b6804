"""
The locks of a cluster as a part of its replicated state.

A *claim* names keys and stands in line for each of them from the moment its entry is in the log; it holds its keys
once it is first in line for all. All lines have the order of the log, so claims never wait for each other in a
circle, and the place in the log is the fencing number. A claim belongs to a *session*, one start of a node, which
is heard of again and again: a session that is silent for too long is ended by the leader, and all its claims go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from callfs.locks.replicated_commands import (
    MAX_TOGETHER,
    Claim,
    EndSession,
    LockCommand,
    Place,
    Release,
    Renew,
    UnknownLockCommand,
    decode_commands,
    encode_answers,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lock_sessions (
    session BLOB    NOT NULL PRIMARY KEY,
    heard   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lock_claims (
    place   INTEGER NOT NULL PRIMARY KEY,
    claim   BLOB    NOT NULL UNIQUE,
    session BLOB    NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS lock_claims_by_session ON lock_claims (session);

CREATE TABLE IF NOT EXISTS lock_lines (
    key   TEXT    NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (key, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lock_lines_by_place ON lock_lines (place);
"""

_SOMEBODY_BEFORE = """SELECT 1 FROM lock_lines mine WHERE mine.place = ? AND EXISTS (
    SELECT 1 FROM lock_lines earlier WHERE earlier.key = mine.key AND earlier.place < mine.place) LIMIT 1"""
_FIRST_IN_LINE = """SELECT c.place, c.claim FROM lock_lines l JOIN lock_claims c ON c.place = l.place
    WHERE l.key = ? ORDER BY l.place LIMIT 1"""
_ALL_HELD = """SELECT claim, place FROM lock_claims c WHERE NOT EXISTS (
    SELECT 1 FROM lock_lines mine JOIN lock_lines earlier
    ON earlier.key = mine.key AND earlier.place < mine.place WHERE mine.place = c.place)"""
_KEYS_OF_SESSION = """SELECT DISTINCT key FROM lock_lines
    WHERE place IN (SELECT place FROM lock_claims WHERE session = ?) ORDER BY key"""
_END_SESSION = (
    "DELETE FROM lock_lines WHERE place IN (SELECT place FROM lock_claims WHERE session = ?)",
    "DELETE FROM lock_claims WHERE session = ?",
    "DELETE FROM lock_sessions WHERE session = ?",
)


class Changes(msgspec.Struct, frozen=True):
    """
    What has happened to locks.

    :param held: claims that have moved up and hold their keys now, with their places.
    :param heard: sessions that were heard of, with the index of the entry.
    :param ended: sessions that were ended.
    :param standing: if set, another state is in force: all claims that there are, of which ``held`` are those that
        hold their keys, and ``heard`` are all sessions.
    """

    held: dict[bytes, int] = msgspec.field(default_factory=dict)
    heard: dict[bytes, int] = msgspec.field(default_factory=dict)
    ended: set[bytes] = msgspec.field(default_factory=set)
    standing: frozenset[bytes] | None = None


class LockTable:
    """
    The part of the replicated state that has the locks.

    :ivar changed: called on the reactor's thread when something has happened; set by whoever serves the locks.
    """

    schema = _SCHEMA
    unknown: type[Exception] = UnknownLockCommand

    def __init__(self) -> None:
        self.changed: Callable[[Changes], None] = lambda changes: None
        self._changes = Changes()

    def begun(self) -> None:
        """On a thread: a transaction begins; what an earlier one that was given up did never happened."""
        self._changes = Changes()

    def apply(self, connection: sqlite3.Connection, index: int, command: bytes) -> bytes:
        """
        Apply commands in the transaction that is open, on a thread.

        :raises UnknownLockCommand: they are none.
        """
        entry = _Entry(connection, index)
        answers = [entry.carry_out(number, wanted) for number, wanted in enumerate(decode_commands(command))]
        # Not before all has gone well: what fails is rolled back.
        self._changes.held.update(entry.changes.held)
        self._changes.heard.update(entry.changes.heard)
        self._changes.ended.update(entry.changes.ended)
        return encode_answers(answers)

    def committed(self) -> None:
        """On the reactor's thread: tell what has happened."""
        changes, self._changes = self._changes, Changes()
        if changes != Changes():
            self.changed(changes)

    def replaced(self, connection: sqlite3.Connection) -> None:
        """On a thread: another state is in force."""
        held = dict(connection.execute(_ALL_HELD).fetchall())
        heard = dict(connection.execute("SELECT session, heard FROM lock_sessions").fetchall())
        standing = frozenset(row[0] for row in connection.execute("SELECT claim FROM lock_claims").fetchall())
        self._changes = Changes(held, heard, set(), standing)


class _Entry:
    """One entry of the log as it is applied."""

    def __init__(self, connection: sqlite3.Connection, index: int) -> None:
        self._connection = connection
        self._index = index
        self.changes = Changes()

    def carry_out(self, number: int, wanted: LockCommand) -> Place | None:
        """:param number: of the command in its entry."""
        match wanted:
            case Claim():
                return self._claim(self._index * MAX_TOGETHER + number, wanted)
            case Release():
                self._release(wanted)
            case Renew():
                self._hear(wanted.session)
            case EndSession():
                self._end(wanted)
        return None

    def _claim(self, place: int, wanted: Claim) -> Place:
        self._hear(wanted.session)
        self._connection.execute(
            "INSERT INTO lock_claims (place, claim, session) VALUES (?, ?, ?)",
            (place, wanted.claim, wanted.session),
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO lock_lines (key, place) VALUES (?, ?)", [(key, place) for key in wanted.keys]
        )
        return Place(place, self._is_first(place))

    def _release(self, wanted: Release) -> None:
        rows = self._rows("SELECT place FROM lock_claims WHERE claim = ?", wanted.claim)
        if not rows:
            return
        place = rows[0][0]
        self._connection.executemany(
            "DELETE FROM lock_lines WHERE key = ? AND place = ?", [(key, place) for key in wanted.keys]
        )
        if not self._rows("SELECT 1 FROM lock_lines WHERE place = ? LIMIT 1", place):
            self._connection.execute("DELETE FROM lock_claims WHERE place = ?", (place,))
            self.changes.held.pop(wanted.claim, None)
        self._move_up(wanted.keys)

    def _end(self, wanted: EndSession) -> None:
        rows = self._rows("SELECT heard FROM lock_sessions WHERE session = ?", wanted.session)
        if not rows or (wanted.heard is not None and rows[0][0] > wanted.heard):
            return
        lines = self._rows(_KEYS_OF_SESSION, wanted.session)
        for statement in _END_SESSION:
            self._connection.execute(statement, (wanted.session,))
        self.changes.heard.pop(wanted.session, None)
        self.changes.ended.add(wanted.session)
        self._move_up(key for (key,) in lines)

    def _hear(self, session: bytes) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO lock_sessions (session, heard) VALUES (?, ?)", (session, self._index)
        )
        self.changes.heard[session] = self._index

    def _move_up(self, keys: Iterable[str]) -> None:
        """Of keys that became free: whoever is first in line for all that it wants has it now."""
        for key in keys:
            rows = self._rows(_FIRST_IN_LINE, key)
            if rows and self._is_first(rows[0][0]):
                self.changes.held[rows[0][1]] = rows[0][0]

    def _is_first(self, place: int) -> bool:
        return not self._rows(_SOMEBODY_BEFORE, place)

    def _rows(self, statement: str, *values: object) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()
