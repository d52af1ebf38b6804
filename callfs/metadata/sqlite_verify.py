"""The whole check of an SQLite store: the file's own structure, then what CallFS relies on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from callfs.metadata.invariants import invariants
from callfs.metadata.sqlite_queries import snapshot

_MOST_FINDINGS = 1000


def verify(connection: sqlite3.Connection) -> Sequence[str]:
    """
    Check everything; takes its time on large stores.

    :return: what is wrong, a sentence each; empty when all is well.
    """
    with snapshot(connection):
        damage = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_MOST_FINDINGS})").fetchall()]
        if damage != ["ok"]:
            return [f"the database file: {finding}" for finding in damage]
        return [
            sentence.format(row[0])
            for sentence, query in invariants("hex(l.token_hash)")
            for row in connection.execute(f"{query} LIMIT {_MOST_FINDINGS}").fetchall()
        ]
