"""Giving committed content its name, and what becomes of its bytes when that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from twisted.logger import Logger

from callfs.engine.arrangement import arranged, copy_at
from callfs.engine.blobcopy import copy_blob, discard
from callfs.engine.opening import Unreadable
from callfs.engine.ports import Ports, Storage, locked
from callfs.engine.routing import backend_of, backend_type, placement_for
from callfs.errors import CallFSError, Conflict, InternalError, OutcomeUnknown, PeerUnavailable
from callfs.metadata.commands import Command, CreateFile, PutFile, Written
from callfs.model import BlobRef, Placement

_log = Logger()
R = TypeVar("R")

NamingCommand = CreateFile | PutFile

_FOLLOWED = 4
"""How often new content is brought to where its file has moved to meanwhile."""


class Undecided(Exception):
    """
    The command may have happened: its blobs must not be touched.

    :param error: what the caller is told.
    """

    def __init__(self, error: CallFSError) -> None:
        super().__init__(error)
        self.error = error


async def named(storage: Storage, path: str, blob_ids: Sequence[str], command: Command[R]) -> R:
    """
    Apply a command that names new blobs.

    Only a refusal is believed to say that nothing happened. After anything else the blobs may have their names.

    :param path: of the file, for the log.
    :param blob_ids: the new blobs, for the log.
    :raises Undecided: it isn't known whether it happened.
    :raises callfs.errors.CallFSError: it was refused.
    """
    try:
        return await storage.metadata.apply(command)
    except (OutcomeUnknown, InternalError) as fault:
        error: Exception = fault
    except CallFSError:
        raise
    except Exception as unexpected:
        error = unexpected
    storage.metrics.error("engine", "outcome_unknown")
    _log.error(
        "it isn't known whether {path} was written; what isn't named of the blobs {blob_ids} is left to the sweep: "
        "{reason!r}",
        event="outcome_unknown",
        path=path,
        blob_ids=list(blob_ids),
        reason=error,
    )
    if isinstance(error, CallFSError):
        raise Undecided(error)
    raise Undecided(OutcomeUnknown(f"it isn't known whether {path} was written")) from error


def write_placements(ports: Ports, first: Placement) -> tuple[Placement, ...]:
    """Where a write puts the bytes itself: where they belong, and the second copy if it has to wait for that."""
    settings = ports.settings
    backend = settings.replica_backend
    if backend is None or not settings.require_replica_success or backend == backend_of(first):
        return (first,)
    return first, placement_for(backend, settings.instance_id)


async def name_content(
    ports: Ports,
    path: str,
    blob: BlobRef,
    command: Callable[[BlobRef], NamingCommand],
    follows: bool = True,
) -> Written:
    """
    Give committed content its name; what is refused takes its bytes along. Not to be cancelled.

    :param blob: durable in all of its places.
    :param command: from the blob to the command that names it.
    :param follows: where the file has come to be, or has moved, to another place while the bytes arrived, they
        follow it there.
    """
    for _ in range(_FOLLOWED):
        try:
            return await _name(ports, path, blob, command)
        except Conflict as conflict:
            if type(conflict) is not Conflict:
                raise  # what is in the way is there for good, and the bytes are gone already
            refusal = conflict
        try:
            followed = await _followed(ports, path, blob) if follows else None
        except Exception:
            await discard_all(ports, blob.copies())
            raise
        kept = set() if followed is None else {copy.id for copy in followed.copies()}
        await discard_all(ports, [copy for copy in blob.copies() if copy.id not in kept])
        if followed is None:
            raise refusal
        blob = followed
    await discard_all(ports, blob.copies())
    raise refusal


async def _name(ports: Ports, path: str, blob: BlobRef, command: Callable[[BlobRef], NamingCommand]) -> Written:
    """Name the content; after a conflict the bytes are there still, after any other refusal they aren't."""
    try:
        async with locked(ports, path):
            ports.reached("write.before_command")
            naming = command(blob)
            written = await named(ports, path, [copy.id for copy in blob.copies()], naming)
    except Undecided as undecided:
        raise undecided.error from undecided.__cause__
    except Exception as error:
        if type(error) is not Conflict:
            await discard_all(ports, blob.copies())
        raise
    ports.reached("write.after_command")
    ports.metrics.file_operation("create" if written.created else "update", backend_type(written.inode))
    if not written.created:
        ports.garbage_made()
    if naming.replicate is not None:
        ports.copies_ordered()
    return written


async def _followed(ports: Ports, path: str, blob: BlobRef) -> BlobRef | None:
    """The same content where the file is by now; ``None`` when it is no other place that the conflict is about."""
    inode = await ports.metadata.get(path)
    if inode is None or inode.blob is None or inode.blob.placement == blob.placement:
        return None
    made: list[BlobRef] = []
    copies: list[BlobRef] = []
    try:
        for placement in write_placements(ports, inode.blob.placement):
            copy = copy_at(blob, placement)
            if copy is None:
                copy = await copy_blob(ports, path, blob, placement)
                made.append(copy)
            copies.append(copy)
    except Exception as error:
        await discard_all(ports, made)
        if isinstance(error, Unreadable):
            raise PeerUnavailable(f"the content of {path} can't be read back just now") from None
        raise
    return arranged(copies)


async def discard_all(storage: Storage, copies: Iterable[BlobRef]) -> None:
    """Delete committed copies that will never have a name; see :func:`callfs.engine.blobcopy.discard`."""
    for copy in copies:
        await discard(storage, copy)
