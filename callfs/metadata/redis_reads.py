"""What is asked of the Redis store: each question one script, which sees one state and changes none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from callfs import paths
from callfs.errors import CallFSError
from callfs.metadata.interfaces import ReplicationBacklog, StoreStatistics
from callfs.metadata.redis_export import export
from callfs.metadata.redis_facts import chain_from
from callfs.metadata.redis_records import (
    blob_from,
    garbage_from,
    inode_from,
    inodes_from_members,
    instance_from,
    link_from,
    place_of,
    place_text,
    replication_from,
    unframed,
    unsorted,
)
from callfs.metadata.redis_scripts import EXPORT, PAGES, POINT, VERIFY
from callfs.metadata.transfer import Record
from callfs.model import BlobRef, Garbage, Inode, Instance, Link, LocalPlacement, Replication
from callfs.redis_connection import Argument
from callfs.redis_errors import RedisFault
from callfs.redis_pool import RedisPool, Script

_VERIFIED_AT_ONCE = 500
_VERIFIED = (("paths", ""), ("blobs", ""), ("local", ""), ("replications", ""), ("links", "0"))
_MOST_NAMED_AT_ONCE = 1000


class Reads:
    """
    :param key: the beginning of all keys.
    :param meaning: what a fault means to the caller; tells the operator.
    """

    def __init__(
        self, pool: RedisPool, key: str, store_id: str, meaning: Callable[[RedisFault], CallFSError]
    ) -> None:
        self._pool = pool
        self._keys = (key,)
        self._store_id = store_id
        self._meaning = meaning

    async def _ask(self, script: Script, *words: Argument) -> bytes:
        try:
            reply: bytes = await self._pool.run_again(
                script, self._keys, self._store_id, *words, deadline=self._pool.deadline()
            )
        except RedisFault as fault:
            raise self._meaning(fault) from fault
        return reply

    async def check(self) -> None:
        """Ask for nothing."""
        await self._ask(POINT, "check")

    async def get(self, path: str) -> Inode | None:
        """The inode at ``path``."""
        parts = unframed(await self._ask(POINT, "get", path))
        return inode_from(parts[0].decode(), path, parts[1]) if parts else None

    async def get_by_id(self, inode_id: str) -> Inode | None:
        """The inode with this id."""
        parts = unframed(await self._ask(POINT, "by_id", inode_id))
        return inode_from(inode_id, parts[0].decode(), parts[1]) if parts else None

    async def get_chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors."""
        return chain_from(path, await self._ask(PAGES, "chain", path))

    async def list_children(self, directory_id: str, after_name: str, limit: int) -> Sequence[Inode]:
        """A page of a directory's own entries."""
        directory, *parts = unframed(await self._ask(PAGES, "children", directory_id, after_name, limit))
        return list(inodes_from_members(parts, directory.decode()))

    async def walk(self, directory: str, after_path: str, max_depth: int | None, limit: int) -> Sequence[Inode]:
        """A page of everything below a directory."""
        start = max(paths.subtree_start(directory), after_path) + "\x01"
        end = paths.subtree_end(directory)
        if max_depth is None:
            reply = await self._ask(PAGES, "subtree", start, end, limit)
        else:
            deepest = paths.depth(directory) + 1 + max_depth
            reply = await self._ask(PAGES, "to_depth", start, end, limit, deepest)
        return list(inodes_from_members(unframed(reply)))

    async def get_link(self, token_hash: bytes) -> Link | None:
        """The link with this hash."""
        (record,) = unframed(await self._ask(POINT, "link", token_hash))
        return link_from(token_hash, record) if record else None

    async def garbage(self, now: int, kind: str, instance_id: str | None, limit: int) -> Sequence[Garbage]:
        """A page of the garbage queue."""
        parts = unframed(await self._ask(PAGES, "garbage", place_of(kind, instance_id), now, limit))
        return [garbage_from(number, record) for number, record in zip(parts[::2], parts[1::2], strict=True)]

    async def named_blobs(self, blob_ids: Sequence[str]) -> frozenset[str]:
        """Those of ``blob_ids`` that an inode names or the garbage queue holds."""
        named: set[str] = set()
        for start in range(0, len(blob_ids), _MOST_NAMED_AT_ONCE):
            some = blob_ids[start : start + _MOST_NAMED_AT_ONCE]
            named.update(blob_id.decode() for blob_id in unframed(await self._ask(PAGES, "named", *some)))
        return frozenset(named)

    async def condemned_blobs(self, before_at: int, after_id: str, limit: int) -> Sequence[str]:
        """A page of the condemned blobs."""
        reply = await self._ask(PAGES, "condemned", before_at, after_id, limit)
        return [blob_id.decode() for blob_id in unframed(reply)]

    async def list_blobs(self, after_id: str, limit: int, instance_id: str | None) -> Sequence[tuple[BlobRef, str]]:
        """A page of all blobs that inodes name, or of those on one node, replicas as blobs of their own."""
        place = "" if instance_id is None else place_text(LocalPlacement(instance_id))
        parts = unframed(await self._ask(PAGES, "blobs", after_id, limit, place))
        found = []
        for blob_id, path, record in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            blob = blob_from(record)
            (copy,) = (copy for copy in blob.copies() if copy.id == blob_id.decode())
            found.append((BlobRef(copy.id, copy.size, copy.sha256, copy.placement), path.decode()))
        return found

    async def replications(self, now: int, by: str, limit: int) -> Sequence[Replication]:
        """A page of the replication queue."""
        parts = unframed(await self._ask(PAGES, "replications", by, now, limit))
        return [replication_from(blob_id, record) for blob_id, record in zip(parts[::2], parts[1::2], strict=True)]

    async def replication_backlog(self) -> Sequence[ReplicationBacklog]:
        """What waits in the replication queue, by node."""
        parts = iter(unframed(await self._ask(PAGES, "backlog")))
        return [
            ReplicationBacklog(by.decode(), int(waiting), int(failing), unsorted(oldest))
            for by, waiting, failing, oldest in zip(parts, parts, parts, parts, strict=True)
        ]

    async def instances(self) -> Sequence[Instance]:
        """All nodes that ever registered, by id."""
        parts = unframed(await self._ask(POINT, "instances"))
        found = [instance_from(key.decode(), record) for key, record in zip(parts[::2], parts[1::2], strict=True)]
        return sorted(found, key=lambda node: node.id)

    async def statistics(self) -> StoreStatistics:
        """Counts over the whole store, which the scripts keep."""
        files, directories, size, _, links, garbage, replications = await self._counts()
        return StoreStatistics(files, directories, size, links, garbage, replications)

    async def _counts(self) -> list[int]:
        return [int(count) for count in unframed(await self._ask(POINT, "statistics"))]

    async def export(self, consume: Callable[[Sequence[Record]], None]) -> None:
        """Give out everything."""
        await export(lambda what, at, limit: self._ask(EXPORT, what, at, limit), consume)

    async def verify(self) -> Sequence[str]:
        """
        Check everything, part by part; each part is one view, and what is checked of an entry is in one part.

        The counts are compared only when nothing was changed meanwhile.
        """
        before = await self._counts()
        seen, findings = [0, 0, 0], []
        for what, start in _VERIFIED:
            at: bytes | str = start
            while True:
                reply = await self._ask(VERIFY, what, at, _VERIFIED_AT_ONCE)
                at, *rest = unframed(reply)
                if what == "paths":
                    seen = [total + int(count) for total, count in zip(seen, rest[:3], strict=True)]
                findings += [finding.decode() for finding in rest[3:]]
                if not at:
                    break
        if before == await self._counts() and before[:3] != seen:
            findings.append(f"the counts of files, directories and bytes are {before[:3]}, not {seen}")
        return findings
