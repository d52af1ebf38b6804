"""
What is asked of the SQLite store, each on a connection and in one consistent view.

Every query runs to its end (``fetchall``): a statement left half-way would hold a snapshot open, and with it the
write-ahead log. Only an export holds one, as long as it takes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from callfs import paths
from callfs.metadata import sql, sql_export
from callfs.metadata.depthwalk import Row, just_after, rows_to_depth
from callfs.metadata.interfaces import ReplicationBacklog, StoreStatistics
from callfs.metadata.rows import (
    garbage_from_row,
    inode_from_row,
    instance_from_row,
    link_from_row,
    named_blob_from_row,
    replication_from_row,
)
from callfs.metadata.transfer import Record
from callfs.model import ROOT_INODE_ID, BlobRef, Garbage, Inode, Instance, Link, Replication

INODE_COLUMNS = sql.inode_columns("json_group_array(json_array(r.role, r.blob_id, r.kind, r.instance_id))")

BY_PATH = sql.inode_query(INODE_COLUMNS, sql.BY_PATH)
BY_ID = sql.inode_query(INODE_COLUMNS, sql.BY_ID)
CHILDREN = sql.inode_query(INODE_COLUMNS, sql.CHILDREN)
SUBTREE = sql.inode_query(INODE_COLUMNS, sql.SUBTREE)
EVERY_INODE = sql.inode_query(INODE_COLUMNS, sql_export.EVERY_INODE)
LINK = sql.LINK
GARBAGE = """SELECT id, blob_id, size, sha256, kind, instance_id, not_before_at FROM garbage
    WHERE kind = ? AND instance_id IS ? AND not_before_at <= ? ORDER BY not_before_at, id LIMIT ?"""
NAMED_BLOBS = """SELECT blob_id FROM json_each(?1) w JOIN blobs n ON n.blob_id = w.value
    UNION SELECT blob_id FROM json_each(?1) w JOIN garbage g ON g.blob_id = w.value"""
CONDEMNED = sql.CONDEMNED
BLOBS = """SELECT b.blob_id, b.size, b.sha256, b.kind, b.instance_id, i.path
    FROM blobs b JOIN inodes i ON i.id = b.inode_id WHERE b.blob_id > ? ORDER BY b.blob_id LIMIT ?"""
BLOBS_ON = """SELECT b.blob_id, b.size, b.sha256, b.kind, b.instance_id, i.path
    FROM blobs b JOIN inodes i ON i.id = b.inode_id
    WHERE b.instance_id = ? AND b.blob_id > ? ORDER BY b.blob_id LIMIT ?"""
REPLICATIONS = sql.REPLICATIONS


def chain_query(length: int) -> str:
    """The query for a path and its ancestors, ``length`` paths in all; a prefix sorts before what it begins."""
    wanted = ", ".join("?" * length)
    return sql.inode_query(INODE_COLUMNS, f"WHERE i.path IN ({wanted}) ORDER BY i.path")


def get(connection: sqlite3.Connection, path: str) -> Inode | None:
    """The inode at ``path``."""
    rows = connection.execute(BY_PATH, (path,)).fetchall()
    return inode_from_row(rows[0]) if rows else None


def get_by_id(connection: sqlite3.Connection, inode_id: str) -> Inode | None:
    """The inode with this id."""
    rows = connection.execute(BY_ID, (inode_id,)).fetchall()
    return inode_from_row(rows[0]) if rows else None


def get_chain(connection: sqlite3.Connection, path: str) -> Sequence[Inode]:
    """What exists of ``path`` and its ancestors, the root first."""
    wanted = (*paths.ancestors(path), path)
    rows = connection.execute(chain_query(len(wanted)), wanted).fetchall()
    return [inode_from_row(row) for row in rows]


def list_children(
    connection: sqlite3.Connection, directory_id: str, after_name: str, limit: int
) -> Sequence[Inode]:
    """A page of a directory's own entries; the root, its own parent, has the empty name and is none of them."""
    rows = connection.execute(CHILDREN, (directory_id, after_name, limit)).fetchall()
    return [inode_from_row(row) for row in rows]


def walk(
    connection: sqlite3.Connection, directory: str, after_path: str, max_depth: int | None, limit: int
) -> Sequence[Inode]:
    """A page of everything below a directory."""
    start = just_after(max(paths.subtree_start(directory), after_path))
    end = paths.subtree_end(directory)
    if max_depth is None:
        rows = connection.execute(SUBTREE, (start, end, limit)).fetchall()
        return [inode_from_row(row) for row in rows]
    deepest = paths.depth(directory) + 1 + max_depth

    def fetch(first: str, last: str, count: int) -> Sequence[Row]:
        return connection.execute(SUBTREE, (first, last, count)).fetchall()

    with snapshot(connection):
        return [inode_from_row(row) for row in rows_to_depth(fetch, start, end, deepest, limit)]


def get_link(connection: sqlite3.Connection, token_hash: bytes) -> Link | None:
    """The link with this hash."""
    rows = connection.execute(LINK, (token_hash,)).fetchall()
    return link_from_row(rows[0]) if rows else None


def garbage(
    connection: sqlite3.Connection, now: int, kind: str, instance_id: str | None, limit: int
) -> Sequence[Garbage]:
    """A page of the garbage queue."""
    rows = connection.execute(GARBAGE, (kind, instance_id, now, limit)).fetchall()
    return [garbage_from_row(row) for row in rows]


def named_blobs(connection: sqlite3.Connection, blob_ids: Sequence[str]) -> frozenset[str]:
    """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
    rows = connection.execute(NAMED_BLOBS, (json.dumps(list(blob_ids)),)).fetchall()
    return frozenset(row[0] for row in rows)


def condemned_blobs(connection: sqlite3.Connection, before_at: int, after_id: str, limit: int) -> Sequence[str]:
    """A page of the condemned blobs."""
    return [row[0] for row in connection.execute(CONDEMNED, (after_id, before_at, limit)).fetchall()]


def list_blobs(
    connection: sqlite3.Connection, after_id: str, instance_id: str | None, limit: int
) -> Sequence[tuple[BlobRef, str]]:
    """A page of all blobs that inodes name, replicas as blobs of their own, by id, each with the path."""
    if instance_id is None:
        rows = connection.execute(BLOBS, (after_id, limit)).fetchall()
    else:
        rows = connection.execute(BLOBS_ON, (instance_id, after_id, limit)).fetchall()
    return [named_blob_from_row(row) for row in rows]


def replications(connection: sqlite3.Connection, now: int, by: str, limit: int) -> Sequence[Replication]:
    """A page of the replication queue."""
    return [replication_from_row(row) for row in connection.execute(REPLICATIONS, (by, now, limit)).fetchall()]


def replication_backlog(connection: sqlite3.Connection) -> Sequence[ReplicationBacklog]:
    """What waits in the replication queue, by node."""
    return [ReplicationBacklog(*row) for row in connection.execute(sql.REPLICATION_BACKLOG).fetchall()]


def instances(connection: sqlite3.Connection) -> Sequence[Instance]:
    """All nodes that ever registered."""
    return [instance_from_row(row) for row in connection.execute(sql.INSTANCES).fetchall()]


def statistics(connection: sqlite3.Connection) -> StoreStatistics:
    """Counts over the whole store, the root among the directories."""
    with snapshot(connection):
        files, directories = connection.execute(sql.COUNT_INODES).fetchall()[0]
        size = connection.execute(sql.SUM_OF_SIZES).fetchall()[0][0]
        links = connection.execute(sql.COUNT_LINKS).fetchall()[0][0]
        waiting = connection.execute(sql.COUNT_GARBAGE).fetchall()[0][0]
        queued = connection.execute(sql.COUNT_REPLICATIONS).fetchall()[0][0]
    return StoreStatistics(files, directories, size, links, waiting, queued)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing but the root is there."""
    rows = connection.execute(sql.ANYTHING, (ROOT_INODE_ID,)).fetchall()
    return not rows


def unfinished_import(connection: sqlite3.Connection) -> str | None:
    """The import that was begun and not finished."""
    import_id = connection.execute(sql.UNFINISHED_IMPORT).fetchall()[0][0]
    return None if import_id is None else str(import_id)


def export(connection: sqlite3.Connection, consume: Callable[[Sequence[Record]], None]) -> None:
    """Give out everything. The log grows as long as it takes: other connections' changes can't leave it."""
    with (
        snapshot(connection),
        closing(sql_export.record_pages(EVERY_INODE, lambda query: _pages(connection, query))) as pages,
    ):
        for records in pages:
            consume(records)


def _pages(connection: sqlite3.Connection, query: str) -> Iterator[Sequence[Sequence[Any]]]:
    with closing(connection.execute(query)) as cursor:
        while rows := cursor.fetchmany(sql_export.PAGE_ROWS):
            yield rows


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One view for several statements."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
