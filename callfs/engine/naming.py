"""Giving committed content its name, and what becomes of its bytes when that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from twisted.logger import Logger

from callfs.engine.arrangement import arranged, copy_at, plain
from callfs.engine.blobcopy import copy_blob, discard
from callfs.engine.opening import Unreadable
from callfs.engine.ports import Ports, Storage, locked
from callfs.engine.routing import backend_of, backend_type, placement_for
from callfs.errors import CallFSError, Conflict, ContentMoved, InternalError, OutcomeUnknown, PeerUnavailable
from callfs.metadata.commands import Command, CreateFile, PutFile, Written
from callfs.model import BlobRef, Placement

_log = Logger()
R = TypeVar("R")

NamingCommand = CreateFile | PutFile

_FOLLOWED = 100
"""
How often content is tried to be named where its file has moved to meanwhile. All but the first few times its bytes
are there already, so that a relocation would have to win a hundred races in a row.
"""


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

    Where the file has come to be, or has moved, to another place while the bytes arrived, they follow it there. The
    copies on the way are kept until one has its name: a file that goes to and fro is caught without copying again,
    so that there are never more copies than places.

    :param blob: durable in all of its places.
    :param command: from the blob to the command that names it.
    :param follows: ``False``: such a file is left to the caller.
    :raises callfs.errors.ContentMoved: the file is elsewhere, and ``follows`` is false.
    :raises callfs.errors.Conflict: the file moves on faster than it can be followed.
    """
    made = [plain(copy) for copy in blob.copies()]
    try:
        for _ in range(_FOLLOWED):
            try:
                naming, written = await _name(ports, path, blob, command)
                break
            except ContentMoved:
                if not follows:
                    raise
                blob = await _followed(ports, path, blob, made)
        else:
            raise Conflict(f"{path} is moved between places faster than new content can follow it: try again later")
    except Undecided as undecided:
        await _discard_others(ports, made, blob)
        raise undecided.error from undecided.__cause__
    except Exception:
        # Not "finally": what ends a coroutine without an error says nothing of the command that it has waited for.
        await discard_all(ports, made)
        raise
    await _discard_others(ports, made, blob)
    _named(ports, naming, written)
    return written


async def _name(
    ports: Ports, path: str, blob: BlobRef, command: Callable[[BlobRef], NamingCommand]
) -> tuple[NamingCommand, Written]:
    """
    Name the content.

    :raises Undecided: it isn't known whether the bytes have their name.
    """
    async with locked(ports, path):
        ports.reached("write.before_command")
        naming = command(blob)
        return naming, await named(ports, path, [copy.id for copy in blob.copies()], naming)


def _named(ports: Ports, naming: NamingCommand, written: Written) -> None:
    """Say that it has happened. Whatever fails from here on, the bytes have their name."""
    ports.reached("write.after_command")
    ports.metrics.file_operation("create" if written.created else "update", backend_type(written.inode))
    if not written.created:
        ports.garbage_made()
    if naming.replicate is not None:
        ports.copies_ordered()


async def _followed(ports: Ports, path: str, blob: BlobRef, made: list[BlobRef]) -> BlobRef:
    """
    The same content where the file is by now.

    :param made: all copies that there are; those that have to be made are added.
    """
    inode = await ports.metadata.get(path)
    if inode is None or inode.blob is None:
        return blob  # it is gone, or a directory by now: the command decides
    copies: list[BlobRef] = []
    for placement in write_placements(ports, inode.blob.placement):
        copy = copy_at(arranged(made), placement)
        if copy is None:
            try:
                copy = await copy_blob(ports, path, arranged(made), placement)
            except Unreadable:
                raise PeerUnavailable(f"the content of {path} can't be read back just now") from None
            made.append(copy)
        copies.append(copy)
    return arranged(copies)


async def _discard_others(storage: Storage, made: Iterable[BlobRef], blob: BlobRef) -> None:
    """Delete what was made on the way; the copies of ``blob`` have, or may have, their name."""
    kept = {copy.id for copy in blob.copies()}
    await discard_all(storage, [copy for copy in made if copy.id not in kept])


async def discard_all(storage: Storage, copies: Iterable[BlobRef]) -> None:
    """Delete committed copies that will never have a name; see :func:`callfs.engine.blobcopy.discard`."""
    for copy in copies:
        await discard(storage, copy)
