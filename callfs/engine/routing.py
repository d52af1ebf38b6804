"""Which copy serves a read, and where new bytes go."""

from __future__ import annotations

from collections.abc import Container

from callfs.model import BlobRef, Inode, LocalPlacement, Placement, S3Placement

LOCAL_BACKEND = "localfs"
S3_BACKEND = "s3"
METADATA_ONLY = "metadata"


def backend_of(placement: Placement) -> str:
    """The name of the backend that a placement belongs to, on whichever node."""
    return LOCAL_BACKEND if isinstance(placement, LocalPlacement) else S3_BACKEND


def backend_type(inode: Inode) -> str:
    """What metrics call the place of an inode's bytes; ``metadata`` for a directory, which has none."""
    return METADATA_ONLY if inode.blob is None else backend_of(inode.blob.placement)


def holder(placement: Placement, instance_id: str) -> str:
    """
    The node that holds the bytes: what ``X-CallFS-Instance-ID`` says.

    :param instance_id: the node that answers; it stands for storage that all nodes share.
    """
    return placement.instance_id if isinstance(placement, LocalPlacement) else instance_id


def is_own(placement: Placement, instance_id: str, backends: Container[str]) -> bool:
    """Whether the bytes of a placement are in a backend of this node, shared ones included."""
    return holder(placement, instance_id) == instance_id and backend_of(placement) in backends


def is_reachable(placement: Placement, instance_id: str, backends: Container[str]) -> bool:
    """Whether this node can get at the bytes of a placement: by itself, or by asking the node that holds them."""
    return holder(placement, instance_id) != instance_id or backend_of(placement) in backends


def sources(blob: BlobRef, instance_id: str, backends: Container[str]) -> tuple[BlobRef, ...]:
    """
    The copies that this node can read, in the order in which they are to be tried: what is on its own disk, then
    the first copy, then replicas.

    :param instance_id: this node.
    :param backends: the names of this node's backends.
    """
    reachable = [copy for copy in blob.copies() if is_reachable(copy.placement, instance_id, backends)]
    return tuple(sorted(reachable, key=lambda copy: copy.placement != LocalPlacement(instance_id)))


def placement_for(backend: str, instance_id: str) -> Placement:
    """Where bytes are that this node stores in one of its backends."""
    return S3Placement() if backend == S3_BACKEND else LocalPlacement(instance_id)
