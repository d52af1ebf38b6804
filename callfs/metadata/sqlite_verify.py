"""The whole check of an SQLite store: the file's own structure, then what CallFS relies on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from callfs.metadata.sqlite_queries import snapshot

_MOST_FINDINGS = 1000

_INVARIANTS: tuple[tuple[str, str], ...] = (
    (
        "the parent of {} is missing",
        "SELECT i.path FROM inodes i LEFT JOIN inodes p ON p.id = i.parent_id WHERE p.id IS NULL",
    ),
    (
        "the parent of {} is a file",
        "SELECT i.path FROM inodes i JOIN inodes p ON p.id = i.parent_id WHERE p.type <> 'directory'",
    ),
    (
        "{} isn't below the path of its parent",
        """SELECT i.path FROM inodes i JOIN inodes p ON p.id = i.parent_id WHERE i.path <> '/'
        AND i.path <> CASE p.path WHEN '/' THEN '/' || i.name ELSE p.path || '/' || i.name END""",
    ),
    (
        "the depth of {} is wrong",
        """SELECT path FROM inodes WHERE depth <> CASE path WHEN '/' THEN 0
        ELSE length(path) - length(replace(path, '/', '')) END""",
    ),
    (
        "the file {} has no blob",
        """SELECT i.path FROM inodes i LEFT JOIN blobs b ON b.inode_id = i.id AND b.role = 0
        WHERE i.type = 'file' AND b.blob_id IS NULL""",
    ),
    (
        "the directory {} has a blob",
        "SELECT i.path FROM blobs b JOIN inodes i ON i.id = b.inode_id WHERE i.type = 'directory'",
    ),
    (
        "the blob {} belongs to no file",
        "SELECT b.blob_id FROM blobs b LEFT JOIN inodes i ON i.id = b.inode_id WHERE i.id IS NULL",
    ),
    (
        "the blob {} is named and queued as garbage",
        "SELECT b.blob_id FROM blobs b JOIN garbage g ON g.blob_id = b.blob_id",
    ),
    (
        "the blob {} is named and condemned",
        "SELECT b.blob_id FROM blobs b JOIN condemned c ON c.blob_id = b.blob_id",
    ),
    (
        "the link {} belongs to no file",
        """SELECT hex(l.token_hash) FROM links l LEFT JOIN inodes i ON i.id = l.inode_id AND i.type = 'file'
        WHERE i.id IS NULL""",
    ),
    ("{}", "SELECT 'the root is missing' WHERE NOT EXISTS (SELECT 1 FROM inodes WHERE path = '/')"),
)


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
            for sentence, query in _INVARIANTS
            for row in connection.execute(f"{query} LIMIT {_MOST_FINDINGS}").fetchall()
        ]
