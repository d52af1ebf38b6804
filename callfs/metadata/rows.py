"""Rows of the SQL stores and the frozen values that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from callfs import paths
from callfs.model import (
    BlobRef,
    Garbage,
    Inode,
    InodeType,
    Instance,
    Link,
    LocalPlacement,
    Placement,
    ReplicaOrder,
    Replication,
    S3Placement,
)

LOCAL_KIND = "localfs"
S3_KIND = "s3"

_FILE = InodeType.FILE
_TYPES: Mapping[str, InodeType] = MappingProxyType({kind.value: kind for kind in InodeType})


def placement(kind: str, instance_id: str | None) -> Placement:
    """
    The placement that two columns stand for.

    :raises ValueError: a kind that this version doesn't know.
    """
    if kind == LOCAL_KIND and instance_id is not None:
        return LocalPlacement(instance_id)
    if kind == S3_KIND:
        return S3Placement()
    raise ValueError(f"unknown placement {kind!r}")


def placement_columns(place: Placement) -> tuple[str, str | None]:
    """Kind and instance, as :func:`placement` reads them."""
    return (LOCAL_KIND, place.instance_id) if isinstance(place, LocalPlacement) else (S3_KIND, None)


def inode_from_row(row: Sequence[Any]) -> Inode:
    """The inode in a row of the columns that ``sql.inode_columns`` names."""
    return Inode(
        id=row[0],
        path=row[1],
        parent_id=row[2],
        type=_TYPES[row[3]],
        mode=row[4],
        owner=row[5],
        mtime=row[6],
        ctime=row[7],
        created_at=row[8],
        generation=row[9],
        content_type=row[10],
        content_id=row[11],
        blob=None if row[12] is None else _blob(row),
    )


def _blob(row: Sequence[Any]) -> BlobRef:
    size, sha256, copies = row[13], row[14], row[17]
    replicas: tuple[BlobRef, ...] = ()
    if copies != "[]":
        replicas = tuple(
            BlobRef(blob_id, size, sha256, placement(kind, instance_id))
            for _, blob_id, kind, instance_id in sorted(json.loads(copies))
        )
    return BlobRef(row[12], size, sha256, placement(row[15], row[16]), replicas)


def inode_values(inode: Inode) -> tuple[Any, ...]:
    """
    The columns of an inode but for its blob: path, parent_id, name, depth, type, mode, owner, mtime, ctime,
    created_at, generation, content_type, content_id, and last its id.
    """
    return (
        inode.path,
        inode.parent_id,
        paths.name(inode.path),
        paths.depth(inode.path),
        "file" if inode.type is _FILE else "directory",
        inode.mode,
        inode.owner,
        inode.mtime,
        inode.ctime,
        inode.created_at,
        inode.generation,
        inode.content_type,
        inode.content_id,
        inode.id,
    )


def blob_values(inode_id: str, blob: BlobRef) -> list[tuple[Any, ...]]:
    """A row for each copy: inode_id, role, blob_id, kind, instance_id, size, sha256."""
    return [
        (inode_id, role, copy.id, *placement_columns(copy.placement), copy.size, copy.sha256)
        for role, copy in enumerate(blob.copies())
    ]


def named_blob_from_row(row: Sequence[Any]) -> tuple[BlobRef, str]:
    """A copy and the path that names it, in a row of blob_id, size, sha256, kind, instance_id, path."""
    return BlobRef(row[0], row[1], row[2], placement(row[3], row[4])), row[5]


def link_from_row(row: Sequence[Any]) -> Link:
    """The link in a row of token_hash, inode_id, created_by, created_at, expires_at, used_at."""
    return Link(
        token_hash=row[0],
        inode_id=row[1],
        created_by=row[2],
        created_at=row[3],
        expires_at=row[4],
        used_at=row[5],
    )


def garbage_from_row(row: Sequence[Any]) -> Garbage:
    """The entry in a row of id, blob_id, size, sha256, kind, instance_id, not_before_at."""
    return Garbage(row[0], BlobRef(row[1], row[2], row[3], placement(row[4], row[5])), row[6])


def garbage_values(blob: BlobRef, not_before_at: int) -> tuple[Any, ...]:
    """The columns of a new entry: blob_id, kind, instance_id, size, sha256, not_before_at."""
    return (blob.id, *placement_columns(blob.placement), blob.size, blob.sha256, not_before_at)


def replication_from_row(row: Sequence[Any]) -> Replication:
    """The entry in a row of blob_id, inode_id, kind, instance_id, made_by, queued_at, due_at, attempts."""
    order = ReplicaOrder(placement(row[2], row[3]), row[4])
    return Replication(row[0], row[1], order, queued_at=row[5], due_at=row[6], attempts=row[7])


def replication_values(entry: Replication) -> tuple[Any, ...]:
    """The columns of an entry, as :func:`replication_from_row` reads them."""
    place = placement_columns(entry.order.target)
    return (
        entry.blob_id,
        entry.inode_id,
        *place,
        entry.order.by,
        entry.queued_at,
        entry.due_at,
        entry.attempts,
    )


def instance_from_row(row: Sequence[Any]) -> Instance:
    """The node in a row of id, root_id, api_endpoint, last_seen_at."""
    return Instance(row[0], row[1], row[2], row[3])
