"""
Draining a node: everything that its disk holds, first copies and second ones, goes to another place, so that the
node can be taken away.

It goes in batches, by the ids of the blobs. A batch that breaks off is simply done again, and a whole pass after
the last finds what came to the node meanwhile. The node itself need not be up for what can be read elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast
from zlib import crc32

from twisted.internet.defer import CancelledError, DeferredList, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.deferreds import returns_deferred
from callfs.engine.arrangement import copy_at, evacuated, replica_order
from callfs.engine.opening import Unreadable
from callfs.engine.ports import Ports
from callfs.engine.presence import ALIVE_SECONDS
from callfs.engine.rearranging import Wish, rearrange, reordered
from callfs.engine.routing import S3_BACKEND
from callfs.engine.settings import microseconds
from callfs.engine.waves import WIDTH
from callfs.errors import BadRequest, CallFSError, Conflict, InsufficientStorage, PeerUnavailable
from callfs.metadata.commands import ForgetInstance, PostponeReplication
from callfs.model import (
    ROOT_USER,
    BlobRef,
    Inode,
    LocalPlacement,
    Placement,
    Principal,
    ReplicaOrder,
    Replication,
    S3Placement,
)

_log = Logger()

_ROOT = Principal(ROOT_USER, is_admin=True)
_END_OF_TIME = 1 << 62
_QUEUE_PAGE = 500


@dataclass(frozen=True)
class DrainProgress:
    """
    What a batch has done.

    :param moved: copies that are elsewhere now.
    :param bytes: how much of it had to travel.
    :param skipped: copies whose file was replaced or removed meanwhile.
    :param failed: path and reason of each that is still there.
    :param after: where the next batch begins, to be handed back; ``None`` at the end.
    """

    moved: int
    bytes: int
    skipped: int
    failed: tuple[tuple[str, str], ...]
    after: str | None


@dataclass(frozen=True)
class _Outcome:
    moved: int = 0
    bytes: int = 0
    failed: tuple[str, str] | None = None


async def drain_batch(
    ports: Ports, instance_id: str, target: Placement | None, after: str, limit: int
) -> DrainProgress:
    """See :meth:`callfs.engine.filesystem.Filesystem.drain_batch`."""
    known = await ports.peers.known()
    drain = _Drain(ports, instance_id, _targets(ports, known, instance_id, target))
    page = await ports.metadata.list_blobs(after, limit, instance_id)
    if not page and instance_id not in known:
        raise BadRequest(f"nobody knows an instance {instance_id!r}")
    outcomes: list[_Outcome] = []
    for start in range(0, len(page), WIDTH):
        wave = [drain.relieve(*each) for each in page[start : start + WIDTH]]
        for succeeded, outcome in await DeferredList(wave, consumeErrors=True):
            if not succeeded:
                cast(Failure, outcome).raiseException()
            outcomes.append(outcome)
    at_end = len(page) < limit
    if at_end:
        await drain.hand_over_queue()
    if any(outcome.moved for outcome in outcomes):
        ports.garbage_made()
        ports.copies_ordered()
    failed = tuple(outcome.failed for outcome in outcomes if outcome.failed is not None)
    moved = sum(outcome.moved for outcome in outcomes)
    return DrainProgress(
        moved=moved,
        bytes=sum(outcome.bytes for outcome in outcomes),
        skipped=len(outcomes) - moved - len(failed),
        failed=failed,
        after=None if at_end else page[-1][0].id,
    )


async def forget_instance(ports: Ports, instance_id: str, although_alive: bool = False) -> int:
    """See :meth:`callfs.engine.filesystem.Filesystem.forget_instance`."""
    if instance_id == ports.settings.instance_id:
        raise BadRequest("a node can't forget itself: ask another one")
    if not although_alive:
        await _check_silent(ports, instance_id)
    purged = await ports.metadata.apply(ForgetInstance(at=ports.now(), instance_id=instance_id))
    return purged.count


async def _check_silent(ports: Ports, instance_id: str) -> None:
    """
    A node that runs would be back with its next sign of life.

    The node's own clock dates that sign. One that is ahead makes a stopped node look alive for longer, and one that
    is behind lets a running one be forgotten; then it comes back, and nothing is lost.
    """
    last_seen = {instance.id: instance.last_seen_at for instance in await ports.metadata.instances()}
    if instance_id not in last_seen:
        return
    silent_seconds = max(ports.now() - last_seen[instance_id], 0) / microseconds(1)
    if silent_seconds < ALIVE_SECONDS:
        raise Conflict(
            f"{instance_id} gave a sign of life {silent_seconds:.0f} s ago, and as long as its daemon runs it makes"
            f" itself known again: stop it for good, and repeat this {ALIVE_SECONDS:.0f} s later, or force it"
        )


def _targets(
    ports: Ports, known: Collection[str], instance_id: str, target: Placement | None
) -> Sequence[Placement]:
    """The places that may take what the node has."""
    if target is None:
        others = [LocalPlacement(other) for other in sorted(known) if other != instance_id]
        if not others:
            raise BadRequest("no other instance is known that could take the files")
        return others
    if isinstance(target, S3Placement):
        ports.known_backend(S3_BACKEND)
    elif target.instance_id == instance_id or target.instance_id not in known:
        raise BadRequest(f"{target.instance_id!r} isn't another known instance")
    return [target]


def _has(inode: Inode | None, copy: BlobRef) -> bool:
    blob = None if inode is None else inode.blob
    return blob is not None and copy.id in {each.id for each in blob.copies()}


class _Drain:
    """
    The work on one node's copies.

    :param targets: where they may go; each has its own first choice among them.
    """

    def __init__(self, ports: Ports, instance_id: str, targets: Sequence[Placement]) -> None:
        self._ports = ports
        self._instance_id = instance_id
        self._leaving = LocalPlacement(instance_id)
        self._targets = targets

    @returns_deferred
    async def relieve(self, copy: BlobRef, path: str) -> _Outcome:
        """Move one copy away; it never fails, but may be cancelled."""
        try:
            inode = await self._holder_of(copy, path)
            if inode is None:
                return _Outcome()
            return await self._relieve(inode)
        except CancelledError:
            raise
        except Unreadable:
            return _Outcome(failed=(path, "no copy of its bytes can be read"))
        except CallFSError as error:
            return _Outcome(failed=(path, error.message))
        except Exception as error:
            _log.failure("{path} could not be relocated", event="drain_failed", path=path)
            return _Outcome(failed=(path, f"an internal error: {type(error).__name__}"))

    async def _holder_of(self, copy: BlobRef, path: str) -> Inode | None:
        """The file that has the copy, also when it was renamed since the list was read."""
        inode = await self._ports.metadata.get(path)
        if not _has(inode, copy):
            path_now = await self._path_of(copy)
            inode = None if path_now is None else await self._ports.metadata.get(path_now)
        return inode if _has(inode, copy) else None

    async def _path_of(self, copy: BlobRef) -> str | None:
        page = await self._ports.metadata.list_blobs(copy.id[:-1], 32, self._instance_id)
        return next((path for other, path in page if other.id == copy.id), None)

    async def _relieve(self, inode: Inode) -> _Outcome:
        """Try the targets one after the other, as long as it is they that fail."""
        assert inode.blob is not None
        targets = self._choice(inode.blob)
        for target in targets:
            try:
                rearranged = await rearrange(self._ports, _ROOT, inode, partial(self._wish, target), self._order)
            except (PeerUnavailable, InsufficientStorage):
                if target is targets[-1]:
                    raise
                continue
            if rearranged.copied_bytes is None:
                return _Outcome()
            return _Outcome(moved=1, bytes=rearranged.copied_bytes)
        return _Outcome()

    def _choice(self, blob: BlobRef) -> Sequence[Placement]:
        """The targets in an order of the blob's own, those first that have no copy of it yet."""
        start = crc32(blob.id.encode()) % len(self._targets)
        in_order = [*self._targets[start:], *self._targets[:start]]
        return sorted(in_order, key=lambda target: copy_at(blob, target) is not None)

    def _wish(self, target: Placement, blob: BlobRef) -> Wish | None:
        if copy_at(blob, self._leaving) is None:
            return None
        return Wish(target, lambda blob, copy: evacuated(blob, copy, self._leaving))

    def _order(self, blob: BlobRef) -> ReplicaOrder | None:
        """The second copy that is missing then; never on the node that is being drained."""
        settings = self._ports.settings
        taker = settings.instance_id
        if taker == self._instance_id:
            takers = [target.instance_id for target in self._targets if isinstance(target, LocalPlacement)]
            if not takers:
                return None
            taker = takers[0]
        return replica_order(blob, settings.replica_backend, taker)

    async def hand_over_queue(self) -> None:
        """Second copies that the node was to make are made by another, for its own disk where they go to one."""
        metadata = self._ports.metadata
        while page := await metadata.replications(_END_OF_TIME, self._instance_id, _QUEUE_PAGE):
            handed = await gatherResults([self._hand_over(entry) for entry in page], consumeErrors=True)
            if not any(handed):
                return

    @returns_deferred
    async def _hand_over(self, entry: Replication) -> bool:
        ports = self._ports
        inode = await ports.metadata.get_by_id(entry.inode_id)
        if inode is None or inode.blob is None or inode.blob.id != entry.blob_id:
            at = ports.now()
            postpone = PostponeReplication(at=at, blob_id=entry.blob_id, due_at=at, by=ports.settings.instance_id)
            return (await ports.metadata.apply(postpone)).count > 0 and self._instance_id != postpone.by
        if copy_at(inode.blob, self._leaving) is not None:
            return False
        return await reordered(ports, _ROOT, inode, self._order(inode.blob))
