"""
That a command in the log takes effect once, however often it is there: the rules of ``callfs.cluster.requests``.

All of it is decided by the log alone, entry by entry, so that every node decides the same however it batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from callfs.cluster.interfaces import ClientForgotten
from callfs.cluster.requests import SILENT_CLIENT_MICROSECONDS, Request

NEW_CLIENT = 0
REGISTERED = b""
"""The result of a request that makes a client."""

_PURGED_AT_ONCE = 100

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[int, bytes]).decode


class _Session:
    """
    What is known of a client, while a batch is applied.

    :param highest: the highest number whose result was kept before; numbers mostly rise, so that looking for the
        results of higher ones is spared.
    :ivar results: of this batch.
    """

    __slots__ = ("heard_at", "highest", "lowest", "results")

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

    def once(self, index: int, request: Request, execute: Callable[[int, bytes], bytes]) -> bytes | ClientForgotten:
        """
        Carry a command out unless that has been done.

        :param index: of its entry.
        :param execute: does it, given the index and the command; what it raises ends the transaction.
        :return: its result, of whichever time.
        """
        if request.at > self.log_at:
            self.log_at = request.at
        if request.client == NEW_CLIENT:
            self._sessions[index] = _Session(self.log_at, 0, 0)
            return REGISTERED
        session = self._known(request.client)
        if session is None:
            return ClientForgotten()
        session.heard_at = self.log_at
        if request.lowest > session.lowest:
            session.lowest = request.lowest
        sequence = request.sequence
        if sequence < session.lowest:
            return ClientForgotten()
        result = session.results.get(sequence)
        if result is None and sequence <= session.highest:
            result = self._kept(request.client, sequence)
        if result is None:
            result = session.results[sequence] = execute(index, request.command)
        return result

    def _kept(self, client: int, sequence: int) -> bytes | None:
        """The result from an earlier batch: batches overlap where numbers came out of order."""
        packs = self._connection.execute(
            "SELECT results FROM raft_results WHERE client = ?1 AND highest >= ?2 AND lowest <= ?2",
            (client, sequence),
        ).fetchall()
        for (pack,) in packs:
            result = _unpack(pack).get(sequence)
            if result is not None:
                return result
        return None

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
            """SELECT heard_at, lowest, coalesce((SELECT max(highest) FROM raft_results WHERE client = ?1), 0)
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
                """INSERT INTO raft_clients (client, heard_at, lowest) VALUES (?, ?, ?)
                    ON CONFLICT DO UPDATE SET heard_at = excluded.heard_at, lowest = excluded.lowest""",
                (client, session.heard_at, session.lowest),
            )
            self._connection.execute(
                "DELETE FROM raft_results WHERE client = ? AND highest < ?", (client, session.lowest)
            )
            kept = {number: result for number, result in session.results.items() if number >= session.lowest}
            if kept:
                self._connection.execute(
                    "INSERT INTO raft_results (client, highest, lowest, results) VALUES (?, ?, ?, ?)",
                    (client, max(kept), min(kept), _pack(kept)),
                )
        silent = self._connection.execute(
            "SELECT client FROM raft_clients WHERE heard_at < ? LIMIT ?",
            (self.log_at - SILENT_CLIENT_MICROSECONDS, _PURGED_AT_ONCE),
        ).fetchall()
        for (client,) in silent:
            self._forget(client)
