"""All records of an SQL store, from queries over a view of it that doesn't change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from callfs.metadata import sql
from callfs.metadata.rows import inode_from_row, instance_from_row, link_from_row, placement, replication_from_row
from callfs.metadata.transfer import (
    CondemnedRecord,
    GarbageRecord,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    ReplicationRecord,
)
from callfs.model import BlobRef

PAGE_ROWS = 1000
EVERY_INODE = "ORDER BY i.path"

_Row = Sequence[Any]
_LINKS = """SELECT token_hash, inode_id, created_by, created_at, expires_at, used_at FROM links
    ORDER BY token_hash"""
_GARBAGE = "SELECT blob_id, size, sha256, kind, instance_id, not_before_at FROM garbage ORDER BY id"
_CONDEMNED = "SELECT blob_id, condemned_at FROM condemned ORDER BY blob_id"
_REPLICATIONS = """SELECT blob_id, inode_id, kind, instance_id, made_by, queued_at, due_at, attempts
    FROM replications ORDER BY blob_id"""


def record_pages(
    inodes_query: str, pages: Callable[[str], Iterator[Sequence[_Row]]]
) -> Generator[Sequence[Record], None, None]:
    """
    All records, in their order.

    :param inodes_query: for all inodes with the columns that ``rows.inode_from_row`` takes, by path.
    :param pages: the rows of a query, :data:`PAGE_ROWS` at a time.
    """
    queries: tuple[tuple[str, Callable[[_Row], Record]], ...] = (
        (inodes_query, lambda row: InodeRecord(inode=inode_from_row(row))),
        (_LINKS, lambda row: LinkRecord(link=link_from_row(row))),
        (_GARBAGE, _garbage),
        (_CONDEMNED, lambda row: CondemnedRecord(blob_id=row[0], condemned_at=row[1])),
        (sql.INSTANCES, lambda row: InstanceRecord(instance=instance_from_row(row))),
        (_REPLICATIONS, lambda row: ReplicationRecord(replication=replication_from_row(row))),
    )
    for query, record in queries:
        for rows in pages(query):
            yield [record(row) for row in rows]


def _garbage(row: _Row) -> Record:
    return GarbageRecord(blob=BlobRef(row[0], row[1], row[2], placement(row[3], row[4])), not_before_at=row[5])
