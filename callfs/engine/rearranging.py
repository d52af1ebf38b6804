"""
Bringing the copies of one file into another arrangement: copy, verify, then switch with one compare-and-set.

At every moment the file is readable, and there once. Whatever breaks off leaves the old arrangement or the new one,
and a blob without a name at worst; so doing it again does what is left to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from callfs.deferreds import returns_deferred
from callfs.engine.arrangement import copy_at
from callfs.engine.blobcopy import copy_blob, discard, is_intact
from callfs.engine.naming import Undecided, named
from callfs.engine.opening import Unreadable
from callfs.engine.ports import Storage
from callfs.errors import Conflict, FileNotFound
from callfs.metadata.commands import Relocate
from callfs.model import BlobRef, Inode, Placement, Principal, ReplicaOrder

ATTEMPTS = 8
"""How often a file may get other content while it is being copied, in a row."""


@dataclass(frozen=True)
class Wish:
    """
    What a file lacks.

    :param target: where there has to be a copy.
    :param place: from the blob as it is, and the copy that is at ``target``, to the blob as it shall be.
    """

    target: Placement
    place: Callable[[BlobRef, BlobRef], BlobRef]


@dataclass(frozen=True)
class Rearranged:
    """
    What came of it.

    :param inode: the file as it is; ``None`` when it is gone.
    :param copied_bytes: bytes that travelled and are named now; ``None`` when nothing had to be done.
    """

    inode: Inode | None
    copied_bytes: int | None = None


async def rearrange(
    storage: Storage,
    principal: Principal,
    inode: Inode,
    wish: Callable[[BlobRef], Wish | None],
    order: Callable[[BlobRef], ReplicaOrder | None],
) -> Rearranged:
    """
    Give a file the arrangement that ``wish`` asks for.

    A copy that is at the target already is used when it is intact. Content that is replaced meanwhile is looked at
    again, a file that is removed meanwhile is left alone.

    :param wish: what the blob lacks; ``None``: nothing. It is asked again when the file has changed.
    :param order: the second copy that is to be made of the new arrangement.
    :raises callfs.errors.PermissionDenied: the file belongs to another by now.
    :raises callfs.errors.Conflict: its content is replaced faster than it can be copied.
    :raises callfs.engine.opening.Unreadable: no copy of it can be read.
    :raises callfs.errors.CallFSError: as :func:`callfs.engine.blobcopy.copy_blob` and the metadata store.
    """
    found: Inode | None = inode
    for _ in range(ATTEMPTS):
        if found is None or found.blob is None:
            return Rearranged(None)
        blob, wanted = found.blob, wish(found.blob)
        if wanted is None:
            return Rearranged(found)
        try:
            copy, made = await _copy_at_target(storage, found.path, blob, wanted.target)
        except Unreadable:
            # The bytes of what is replaced or relocated meanwhile go at once: look at the file as it is now.
            found = await storage.metadata.get_by_id(inode.id)
            if found is not None and found.blob is not None and _copy_ids(found.blob) == _copy_ids(blob):
                raise
            continue
        storage.reached("relocate.copied")
        switched = await storage.unattended.shield(
            _switch(storage, principal, found, wanted.place(blob, copy), order, copy if made else None)
        )
        if switched is not None:
            return Rearranged(switched, copy.size if made else 0)
        found = await storage.metadata.get_by_id(inode.id)
    raise Conflict(f"the content of {inode.path} is replaced faster than it can be copied")


async def reordered(storage: Storage, principal: Principal, inode: Inode, order: ReplicaOrder | None) -> bool:
    """
    Queue a second copy of a file, instead of what is queued for it, and leave its copies as they are.

    :param order: ``None``: there is nothing to be made.
    :return: whether it is still the file that it was.
    """
    if inode.blob is None:
        return False
    switching = _switch(storage, principal, inode, inode.blob, lambda _: order, None)
    return await storage.unattended.shield(switching) is not None


async def _copy_at_target(storage: Storage, path: str, blob: BlobRef, target: Placement) -> tuple[BlobRef, bool]:
    """The copy at the target, and whether it had to be made: one that was there may not be trusted unread."""
    existing = copy_at(blob, target)
    if existing is not None and await is_intact(storage, path, existing):
        return existing, False
    return await copy_blob(storage, path, blob, target), True


@returns_deferred
async def _switch(
    storage: Storage,
    principal: Principal,
    inode: Inode,
    blob: BlobRef,
    order: Callable[[BlobRef], ReplicaOrder | None],
    made: BlobRef | None,
) -> Inode | None:
    """
    Name the new arrangement; ``None`` when the file isn't as it was.

    :param made: a copy that goes again when the command is refused.
    """
    assert inode.blob is not None
    at = storage.now()
    command = Relocate(
        at=at,
        principal=principal,
        inode_id=inode.id,
        expected_blob_ids=_copy_ids(inode.blob),
        blob=blob,
        garbage_not_before_at=storage.garbage_not_before(at),
        replicate=order(blob),
    )
    try:
        relocated = await named(storage, inode.path, [] if made is None else [made.id], command)
    except (Conflict, FileNotFound):
        if made is not None:
            await discard(storage, made)
        return None
    except Undecided as undecided:
        raise undecided.error from undecided.__cause__
    except Exception:
        if made is not None:
            await discard(storage, made)
        raise
    storage.reached("relocate.switched")
    return relocated.inode


def _copy_ids(blob: BlobRef) -> tuple[str, ...]:
    return tuple(copy.id for copy in blob.copies())
