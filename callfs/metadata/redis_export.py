"""Everything that a Redis store has, page by page; it fails when anything was changed between the pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from callfs.errors import MetadataUnavailable
from callfs.metadata.redis_records import (
    garbage_from,
    inode_from,
    instance_from,
    link_from,
    replication_from,
    unframed,
)
from callfs.metadata.transfer import (
    CondemnedRecord,
    GarbageRecord,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    ReplicationRecord,
)

Ask = Callable[[str, bytes, int], Awaitable[bytes]]
"""Asks ``export.lua`` for something, from where on, and how much at most."""

_PAGE = 500


async def export(ask: Ask, consume: Callable[[Sequence[Record]], None]) -> None:
    """
    Give out everything.

    :raises callfs.errors.MetadataUnavailable: something was changed before the last page was read.
    """
    changes_before: bytes | None = None
    for what, record in _RECORDS:
        at, more = b"", True
        while more:
            changes, at, *parts = unframed(await ask(what, at, _PAGE))
            if changes != (changes_before or changes):
                raise MetadataUnavailable(
                    "the metadata were changed during the export, and Redis keeps no view of what was: "
                    "stop all daemons that use this store, then begin again"
                )
            changes_before, more = changes, at != b""
            consume([record(key, value) for key, value in _pairs(parts)])


def _pairs(parts: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(parts[::2], parts[1::2], strict=True)


def _inode(member: bytes, record: bytes) -> Record:
    path, _, inode_id = member.decode().partition("\0")
    return InodeRecord(inode=inode_from(inode_id, path, record))


def _link(token_hash: bytes, record: bytes) -> Record:
    return LinkRecord(link=link_from(token_hash, record))


def _garbage(number: bytes, record: bytes) -> Record:
    entry = garbage_from(number, record)
    return GarbageRecord(blob=entry.blob, not_before_at=entry.not_before_at)


def _condemned(blob_id: bytes, at: bytes) -> Record:
    return CondemnedRecord(blob_id=blob_id.decode(), condemned_at=int(at))


def _instance(instance_id: bytes, record: bytes) -> Record:
    return InstanceRecord(instance=instance_from(instance_id.decode(), record))


def _replication(blob_id: bytes, record: bytes) -> Record:
    return ReplicationRecord(replication=replication_from(blob_id, record))


_RECORDS: tuple[tuple[str, Callable[[bytes, bytes], Record]], ...] = (
    ("inodes", _inode),
    ("links", _link),
    ("garbage", _garbage),
    ("condemned", _condemned),
    ("instances", _instance),
    ("replications", _replication),
)
