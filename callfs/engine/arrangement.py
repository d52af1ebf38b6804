"""
Where the copies of a file are, and shall be.

Every function here takes a blob and gives the same content in another arrangement, or says what is missing in the
one that it has. A file has at most one copy in each place.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from callfs.engine.routing import LOCAL_BACKEND, backend_of, placement_for
from callfs.model import BlobRef, LocalPlacement, Placement, ReplicaOrder


def copy_at(blob: BlobRef, placement: Placement) -> BlobRef | None:
    """The copy in a place; ``None`` when there is none."""
    return next((plain(copy) for copy in blob.copies() if copy.placement == placement), None)


def plain(copy: BlobRef) -> BlobRef:
    """A copy by itself, without the replicas that it has as a first copy."""
    return msgspec.structs.replace(copy, replicas=())


def arranged(copies: Sequence[BlobRef]) -> BlobRef:
    """These copies, the first one first."""
    first, *others = (plain(copy) for copy in copies)
    return msgspec.structs.replace(first, replicas=tuple(others))


def without(blob: BlobRef, blob_id: str) -> BlobRef:
    """All copies but one; of the others the first is the first copy."""
    return arranged([copy for copy in blob.copies() if copy.id != blob_id])


def with_replica(blob: BlobRef, copy: BlobRef) -> BlobRef:
    """One copy more, instead of any that is in the same place."""
    others = [other for other in blob.replicas if other.placement != copy.placement]
    return arranged([blob, *others, copy])


def moved(blob: BlobRef, copy: BlobRef, replica_backend: str | None) -> BlobRef:
    """
    ``copy`` as the first copy instead of the one that was; replicas in other places stay.

    :param replica_backend: where second copies go. When the first copy leaves that backend it stays as the second
        one, which otherwise would have to be made anew.
    """
    replicas = [other for other in blob.replicas if other.placement != copy.placement]
    old = backend_of(blob.placement)
    has_one = any(backend_of(other.placement) == replica_backend for other in replicas)
    if old == replica_backend != backend_of(copy.placement) and not has_one:
        replicas.append(blob)
    return arranged([copy, *replicas])


def evacuated(blob: BlobRef, copy: BlobRef, leaving: Placement) -> BlobRef:
    """
    ``copy`` instead of the one in the place ``leaving``, first if that was the first.

    :param copy: new, or one that the file has elsewhere; nothing is in two places then.
    """
    stay = [other for other in blob.copies() if other.placement not in (leaving, copy.placement)]
    is_first = blob.placement in (leaving, copy.placement)
    return arranged([copy, *stay] if is_first else [*stay, copy])


def replica_order(blob: BlobRef, replica_backend: str | None, instance_id: str) -> ReplicaOrder | None:
    """
    The second copy that a blob lacks; ``None`` when it lacks none.

    The node that holds the first copy makes it, because it has the bytes; of shared storage, the node that gets it.

    :param instance_id: the node on whose disk a second copy goes that is to be on a local disk.
    """
    if replica_backend is None or not _lacks_replica(blob, replica_backend):
        return None
    by = blob.placement.instance_id if isinstance(blob.placement, LocalPlacement) else instance_id
    return ReplicaOrder(placement_for(replica_backend, instance_id), by)


def _lacks_replica(blob: BlobRef, replica_backend: str) -> bool:
    """There should be none where the first copy is on such a backend itself."""
    return all(backend_of(copy.placement) != replica_backend for copy in blob.copies())


def move_target(blob: BlobRef, backend: str | None, instance: str | None, instance_id: str) -> Placement | None:
    """
    Where the first copy has to go so that a move gets what it asks for; ``None`` when it is right where it is.

    What is on shared storage is at every instance, so with such a backend the instance makes no difference; without
    a backend an instance stands for its own disk.

    :param backend: the backend that is asked for; ``None``: any.
    :param instance: the node that is asked for; ``None``: any.
    :param instance_id: the node that takes what may be on any node's disk.
    """
    if backend is None and instance is None:
        return None
    if backend in (None, LOCAL_BACKEND):
        if instance is None and backend_of(blob.placement) == LOCAL_BACKEND:
            return None
        target: Placement = LocalPlacement(instance or instance_id)
    else:
        assert backend is not None
        target = placement_for(backend, instance_id)
    return None if blob.placement == target else target
