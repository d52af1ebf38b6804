"""
What is asked of the PostgreSQL store, each on a connection and in one consistent view.

A connection commits by itself after each statement, so that one statement sees everything that was committed before
it began, on any node (READ COMMITTED). What needs several statements takes a snapshot (REPEATABLE READ).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from callfs import paths
from callfs.errors import MetadataUnavailable
from callfs.metadata import sql, sql_export
from callfs.metadata.depthwalk import Row, just_after, rows_to_depth
from callfs.metadata.interfaces import ReplicationBacklog, StoreStatistics
from callfs.metadata.invariants import invariants
from callfs.metadata.rows import (
    garbage_from_row,
    inode_from_row,
    instance_from_row,
    link_from_row,
    named_blob_from_row,
    replication_from_row,
)
from callfs.model import ROOT_INODE_ID, BlobRef, Garbage, Inode, Instance, Link, Replication

Connection = psycopg.Connection[tuple[Any, ...]]

_MOST_FINDINGS = 1000


def adapted(text: str) -> str:
    """A statement with ``?`` for parameters as psycopg takes it."""
    return text.replace("?", "%s")


_COLUMNS = sql.inode_columns(
    "coalesce(json_agg(json_build_array(r.role, r.blob_id, r.kind, r.instance_id))::text, '[]')"
)
# A subquery with a limit is asked for each inode by itself. As a join, statistics that are behind (a store that has
# just been filled) can make the planner go through all blobs.
_SOURCE = """inodes i LEFT JOIN LATERAL (
    SELECT * FROM blobs f WHERE f.inode_id = i.id AND f.role = 0 LIMIT 1) b ON true"""
_GARBAGE = """SELECT id, blob_id, size, sha256, kind, instance_id, not_before_at FROM garbage
    WHERE kind = ? AND {instance} AND not_before_at <= ?
    ORDER BY instance_id, not_before_at, id LIMIT ?"""


def _inodes(rest: str) -> str:
    return adapted(sql.inode_query(_COLUMNS, rest, _SOURCE))


BY_PATH = _inodes(sql.BY_PATH)
BY_ID = _inodes(sql.BY_ID)
CHAIN = _inodes("WHERE i.path = ANY(?) ORDER BY i.path")
CHILDREN = _inodes(sql.CHILDREN)
CHILDREN_BY_PATH = _inodes(
    """WHERE i.parent_id = (SELECT d.id FROM inodes d WHERE d.path = ?) AND i.name >= ? AND i.path > ?
        AND i.name > '' ORDER BY i.parent_id, i.name LIMIT ?"""
)
SUBTREE = _inodes(sql.SUBTREE)
EVERY_INODE = _inodes(sql_export.EVERY_INODE)
LINK = adapted(sql.LINK)
GARBAGE_OF_INSTANCE = adapted(_GARBAGE.format(instance="instance_id = ?"))
GARBAGE_OF_ALL = adapted(_GARBAGE.format(instance="instance_id IS NULL"))
NAMED_BLOBS = """SELECT blob_id FROM blobs WHERE blob_id = ANY(%(ids)s)
    UNION SELECT blob_id FROM garbage WHERE blob_id = ANY(%(ids)s)"""
CONDEMNED = adapted(sql.CONDEMNED)
_BLOBS = """SELECT b.blob_id, b.size, b.sha256, b.kind, b.instance_id,
    (SELECT i.path FROM inodes i WHERE i.id = b.inode_id) FROM blobs b"""
BLOBS = f"{_BLOBS} WHERE b.blob_id > %s ORDER BY b.blob_id LIMIT %s"
BLOBS_ON = f"{_BLOBS} WHERE b.instance_id = %s AND b.blob_id > %s ORDER BY b.instance_id, b.blob_id LIMIT %s"
REPLICATIONS = adapted(sql.REPLICATIONS)


def probe(connection: Connection) -> None:
    """
    See whether the store is there and takes changes.

    :raises callfs.errors.MetadataUnavailable: it takes none.
    """
    rows = connection.execute("SELECT id, current_setting('transaction_read_only') FROM store").fetchall()
    if rows[0][1] != "off":
        raise MetadataUnavailable("the metadata store takes no changes just now")


def get(connection: Connection, path: str) -> Inode | None:
    """The inode at ``path``."""
    row = connection.execute(BY_PATH, (path,)).fetchone()
    return None if row is None else inode_from_row(row)


def get_by_id(connection: Connection, inode_id: str) -> Inode | None:
    """The inode with this id."""
    row = connection.execute(BY_ID, (inode_id,)).fetchone()
    return None if row is None else inode_from_row(row)


def get_chain(connection: Connection, path: str) -> Sequence[Inode]:
    """What exists of ``path`` and its ancestors, the root first: a prefix sorts before what it begins."""
    rows = connection.execute(CHAIN, (chain_of(path),)).fetchall()
    return [inode_from_row(row) for row in rows]


def chain_of(path: str) -> list[str]:
    """``path`` and its ancestors."""
    return [*paths.ancestors(path), path]


def list_children(connection: Connection, directory_id: str, after_name: str, limit: int) -> Sequence[Inode]:
    """A page of a directory's own entries; the root, its own parent, has the empty name and is none of them."""
    rows = connection.execute(CHILDREN, (directory_id, after_name, limit)).fetchall()
    return [inode_from_row(row) for row in rows]


def walk(
    connection: Connection, directory: str, after_path: str, max_depth: int | None, limit: int
) -> Sequence[Inode]:
    """A page of everything below a directory."""
    if max_depth == 0:
        return _children_by_path(connection, directory, after_path, limit)
    start = just_after(max(paths.subtree_start(directory), after_path))
    end = paths.subtree_end(directory)

    def fetch(first: str, last: str, count: int) -> Sequence[Row]:
        return connection.execute(SUBTREE, (first, last, count)).fetchall()

    if max_depth is None:
        return [inode_from_row(row) for row in fetch(start, end, limit)]
    with snapshot(connection):
        rows = rows_to_depth(fetch, start, end, paths.depth(directory) + 1 + max_depth, limit)
    return [inode_from_row(row) for row in rows]


def _children_by_path(connection: Connection, directory: str, after_path: str, limit: int) -> Sequence[Inode]:
    """Within one directory the order of names is that of paths; what is below ``after_path`` isn't in it."""
    begin = paths.subtree_start(directory)
    if after_path >= paths.subtree_end(directory):
        return []
    first_name = after_path[len(begin) :].partition("/")[0] if after_path.startswith(begin) else ""
    rows = connection.execute(CHILDREN_BY_PATH, (directory, first_name, after_path, limit)).fetchall()
    return [inode_from_row(row) for row in rows]


def get_link(connection: Connection, token_hash: bytes) -> Link | None:
    """The link with this hash."""
    row = connection.execute(LINK, (token_hash,)).fetchone()
    return None if row is None else link_from_row(row)


def garbage(connection: Connection, now: int, kind: str, instance_id: str | None, limit: int) -> Sequence[Garbage]:
    """A page of the garbage queue."""
    if instance_id is None:
        rows = connection.execute(GARBAGE_OF_ALL, (kind, now, limit)).fetchall()
    else:
        rows = connection.execute(GARBAGE_OF_INSTANCE, (kind, instance_id, now, limit)).fetchall()
    return [garbage_from_row(row) for row in rows]


def named_blobs(connection: Connection, blob_ids: Sequence[str]) -> frozenset[str]:
    """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
    rows = connection.execute(NAMED_BLOBS, {"ids": list(blob_ids)}).fetchall()
    return frozenset(row[0] for row in rows)


def condemned_blobs(connection: Connection, before_at: int, after_id: str, limit: int) -> Sequence[str]:
    """A page of the condemned blobs."""
    return [row[0] for row in connection.execute(CONDEMNED, (after_id, before_at, limit)).fetchall()]


def list_blobs(
    connection: Connection, after_id: str, instance_id: str | None, limit: int
) -> Sequence[tuple[BlobRef, str]]:
    """A page of all blobs that inodes name, replicas as blobs of their own, by id, each with the path."""
    if instance_id is None:
        rows = connection.execute(BLOBS, (after_id, limit)).fetchall()
    else:
        rows = connection.execute(BLOBS_ON, (instance_id, after_id, limit)).fetchall()
    return [named_blob_from_row(row) for row in rows]


def replications(connection: Connection, now: int, by: str, limit: int) -> Sequence[Replication]:
    """A page of the replication queue."""
    return [replication_from_row(row) for row in connection.execute(REPLICATIONS, (by, now, limit)).fetchall()]


def replication_backlog(connection: Connection) -> Sequence[ReplicationBacklog]:
    """What waits in the replication queue, by node: all of it is counted."""
    with snapshot(connection, whole_store=True):
        rows = connection.execute(sql.REPLICATION_BACKLOG).fetchall()
    return [ReplicationBacklog(*row) for row in rows]


def instances(connection: Connection) -> Sequence[Instance]:
    """All nodes that ever registered."""
    return [instance_from_row(row) for row in connection.execute(sql.INSTANCES).fetchall()]


def statistics(connection: Connection) -> StoreStatistics:
    """Counts over the whole store, the root among the directories."""
    with snapshot(connection, whole_store=True):
        files, directories = _row(connection, sql.COUNT_INODES)
        (size,) = _row(connection, sql.SUM_OF_SIZES)
        (links,) = _row(connection, sql.COUNT_LINKS)
        (waiting,) = _row(connection, sql.COUNT_GARBAGE)
        (queued,) = _row(connection, sql.COUNT_REPLICATIONS)
    return StoreStatistics(files, directories, int(size), links, waiting, queued)


def verify(connection: Connection) -> Sequence[str]:
    """
    Check what CallFS relies on; takes its time on large stores.

    :return: what is wrong, a sentence each; empty when all is well.
    """
    with snapshot(connection, whole_store=True):
        return [
            sentence.format(row[0])
            for sentence, query in invariants("encode(l.token_hash, 'hex')")
            for row in connection.execute(f"{query} LIMIT {_MOST_FINDINGS}").fetchall()
        ]


def is_empty(connection: Connection) -> bool:
    """Whether nothing but the root is there."""
    return connection.execute(adapted(sql.ANYTHING), (ROOT_INODE_ID,)).fetchone() is None


def _row(connection: Connection, query: str) -> tuple[Any, ...]:
    return connection.execute(query).fetchall()[0]


@contextmanager
def snapshot(connection: Connection, whole_store: bool = False) -> Iterator[None]:
    """
    One view for several statements.

    :param whole_store: everything will be read, however long it takes: then plans that read whole tables are good.
    """
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if whole_store:
        connection.execute(
            "SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on;"
            "SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on"
        )
    try:
        yield
    finally:
        if not connection.broken and not connection.closed:
            connection.execute("ROLLBACK")
