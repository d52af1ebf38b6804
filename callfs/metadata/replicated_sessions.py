"""
That a command in the log takes effect once, however often it is there: the rules of ``callfs.cluster.requests``.

All of it is decided by the log alone, entry by entry, so that every node decides the same however it batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from callfs.cluster.interfaces import ClientForgotten
from callfs.cluster.requests import SILENT_CLIENT_MICROSECONDS, Request

NEW_CLIENT = 0
REGISTERED = b""
"""The result of a request that makes a client."""

_PURGED_AT_ONCE = 100


class _Session:
    """
    What is known of a client, while a batch is applied.

    :param highest: the highest number whose result was kept before; numbers mostly rise, so that looking for the
        results of higher ones is spared.
    :ivar results: of this batch.
    """

    def __init__(self, heard_at: int, lowest: int, highest: int) -> None:
        self.heard_at = heard_at
        self.lowest = lowest
        self.highest = highest
        self.results: dict[int, bytes] = {}


class Sessions:
    """
    The clients, for the length of one transaction.

    :param connection: in the transaction.
    :param log_at: the time of the log before it.
    """

    def __init__(self, connection: sqlite3.Connection, log_at: int) -> None:
        self._connection = connection
        self.log_at = log_at
        self._sessions: dict[int, _Session] = {}

    def once(self, index: int, request: Request, execute: Callable[[], bytes]) -> bytes | ClientForgotten:
        """
        Carry a command out unless that has been done.

        :param index: of its entry.
        :param execute: does it; what it raises ends the transaction.
        :return: its result, of whichever time.
        """
        self.log_at = max(self.log_at, request.at)
        if request.client == NEW_CLIENT:
            self._sessions[index] = _Session(self.log_at, 0, 0)
            return REGISTERED
        session = self._known(request.client)
        if session is None:
            return ClientForgotten()
        session.heard_at = self.log_at
        session.lowest = max(session.lowest, request.lowest)
        if request.sequence < session.lowest:
            return ClientForgotten()
        result = self._kept(session, request)
        if result is None:
            result = session.results[request.sequence] = execute()
        return result

    def _kept(self, session: _Session, request: Request) -> bytes | None:
        if request.sequence > session.highest:
            return session.results.get(request.sequence)
        rows = self._connection.execute(
            "SELECT result FROM raft_results WHERE client = ? AND sequence = ?", (request.client, request.sequence)
        ).fetchall()
        return bytes(rows[0][0]) if rows else session.results.get(request.sequence)

    def _known(self, client: int) -> _Session | None:
        session = self._sessions.get(client) or self._stored(client)
        if session is None:
            return None
        if session.heard_at < self.log_at - SILENT_CLIENT_MICROSECONDS:
            self._forget(client)
            return None
        self._sessions[client] = session
        return session

    def _stored(self, client: int) -> _Session | None:
        rows = self._connection.execute(
            """SELECT heard_at, lowest, coalesce((SELECT max(sequence) FROM raft_results WHERE client = ?1), 0)
                FROM raft_clients WHERE client = ?1""",
            (client,),
        ).fetchall()
        return _Session(*rows[0]) if rows else None

    def _forget(self, client: int) -> None:
        self._sessions.pop(client, None)
        self._connection.execute("DELETE FROM raft_results WHERE client = ?", (client,))
        self._connection.execute("DELETE FROM raft_clients WHERE client = ?", (client,))

    def store(self) -> None:
        """Write down what has changed, at the end of the transaction."""
        for client, session in self._sessions.items():
            self._connection.execute(
                "INSERT OR REPLACE INTO raft_clients (client, heard_at, lowest) VALUES (?, ?, ?)",
                (client, session.heard_at, session.lowest),
            )
            self._connection.execute(
                "DELETE FROM raft_results WHERE client = ? AND sequence < ?", (client, session.lowest)
            )
            self._connection.executemany(
                "INSERT INTO raft_results (client, sequence, result) VALUES (?, ?, ?)",
                [(client, *kept) for kept in session.results.items() if kept[0] >= session.lowest],
            )
        silent = self._connection.execute(
            "SELECT client FROM raft_clients WHERE heard_at < ? LIMIT ?",
            (self.log_at - SILENT_CLIENT_MICROSECONDS, _PURGED_AT_ONCE),
        ).fetchall()
        for (client,) in silent:
            self._forget(client)
