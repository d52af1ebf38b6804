"""Which files lack the second copy that they should have, and queueing it for them."""

from __future__ import annotations

from dataclasses import dataclass

from callfs.engine.arrangement import replica_order
from callfs.engine.ports import Ports
from callfs.engine.rearranging import reordered
from callfs.model import ROOT_USER, Principal

_ROOT = Principal(ROOT_USER, is_admin=True)


@dataclass(frozen=True)
class ReplicaScan:
    """
    A page of all files.

    :param files: how many there were.
    :param lacking: those of them without a second copy that should have one; what waits in the queue included.
    :param queued: those for which the making of one was queued now.
    :param after: where the next page begins, to be handed back; ``None`` at the end.
    """

    files: int
    lacking: int
    queued: int
    after: str | None


async def scan_replicas(ports: Ports, after: str, limit: int, queue: bool) -> ReplicaScan:
    """See :meth:`callfs.engine.filesystem.Filesystem.scan_replicas`."""
    settings = ports.settings
    page = await ports.metadata.walk("/", after, limit=limit)
    files = lacking = queued = 0
    for inode in page:
        if inode.blob is None:
            continue
        files += 1
        order = replica_order(inode.blob, settings.replica_backend, settings.instance_id)
        if order is not None:
            lacking += 1
            queued += queue and await reordered(ports, _ROOT, inode, order)
    if queued:
        ports.copies_ordered()
    return ReplicaScan(files, lacking, queued, page[-1].path if len(page) == limit else None)
