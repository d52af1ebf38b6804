"""
Copying one blob from where it can be read to another place: in constant memory, verified, durable, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from callfs.backends.interfaces import BlobMissing, CommittedBlob, Hasher, IBlobReader, IStagedBlob
from callfs.deferreds import returns_deferred, with_timeout
from callfs.engine.claims import claimed
from callfs.engine.opening import Unreadable, open_copy, readable_copies
from callfs.engine.ports import ErrorMetrics, Storage
from callfs.errors import PeerUnavailable
from callfs.identifiers import new_blob_id
from callfs.model import BlobRef, Placement

_log = Logger()

PIECE_BYTES = 1 << 20


class _BadSource(Exception):
    """This copy can't be read to its end, or has other bytes than were stored: another one may do."""


async def copy_blob(storage: Storage, path: str, blob: BlobRef, target: Placement) -> BlobRef:
    """
    Make another copy, under an id of its own, with the digest of the content; when one source fails, from another.

    :param path: of the file that has the blob, for the log.
    :return: the copy, durable, which nothing names yet: to be named or discarded. When this fails, or is cancelled,
        nothing remains.
    :raises callfs.engine.opening.Unreadable: no copy could be read.
    :raises callfs.errors.PeerUnavailable: the target can't be reached.
    :raises callfs.errors.InsufficientStorage: the target has no room.
    """
    for source in readable_copies(storage, blob):
        try:
            reader = await _opened(storage, path, source)
        except _BadSource:
            continue
        try:
            return await _copied(storage, path, reader, source, target)
        except _BadSource:
            continue
        finally:
            reader.close()
    raise Unreadable


async def is_intact(storage: Storage, path: str, copy: BlobRef) -> bool:
    """Read one copy from beginning to end: whether it has the bytes that were stored."""
    try:
        reader = await _opened(storage, path, copy)
    except _BadSource:
        return False
    try:
        hasher = hashlib.sha256()
        offset = 0
        while offset < reader.size:
            piece = await _piece(reader, offset)
            hasher.update(piece)
            offset += len(piece)
    except _BadSource:
        return False
    finally:
        reader.close()
    if hasher.digest() == copy.sha256:
        return True
    say_changed(storage.metrics, path, copy)
    return False


async def discard(storage: Storage, copy: BlobRef) -> None:
    """Delete a committed copy that will never have a name; if that fails it is the sweep's."""
    try:
        await (await storage.blobs_at(copy.placement)).delete(copy.id)
    except Exception:
        storage.metrics.error("engine", "discard_failed")
        _log.failure(
            "blob {blob_id} was refused its name and could not be deleted",
            event="discard_failed",
            blob_id=copy.id,
        )


async def _opened(storage: Storage, path: str, source: BlobRef) -> IBlobReader:
    try:
        return await open_copy(storage, path, source, storage.settings.file_op_timeout_seconds)
    except (BlobMissing, PeerUnavailable) as error:
        raise _BadSource from error


async def _copied(storage: Storage, path: str, reader: IBlobReader, source: BlobRef, target: Placement) -> BlobRef:
    copy = BlobRef(new_blob_id(storage.now(), storage.token_bytes), source.size, source.sha256, target)
    staged = await begin_blob(storage, copy.id, target, copy.size)
    try:
        offset = 0
        while offset < reader.size:
            piece = await _piece(reader, offset)
            await staged.write(piece)
            offset += len(piece)
    except Exception:
        await storage.unattended.shield(staged.abort())
        raise
    storage.reached("copy.complete")
    committed = await claimed(
        storage.unattended.shield(_commit(staged)), lambda _: storage.unattended.shield(discarding(storage, copy))
    )
    if (committed.size, committed.sha256) == (copy.size, copy.sha256):
        return copy
    await storage.unattended.shield(discarding(storage, copy))
    say_changed(storage.metrics, path, source)
    raise _BadSource


def begin_blob(
    storage: Storage,
    blob_id: str,
    placement: Placement,
    declared_size: int | None,
    hashers: Sequence[Hasher] = (),
) -> Deferred[IStagedBlob]:
    """
    Stage a blob where it shall be; a stage that comes when nobody waits any more is aborted.

    :raises callfs.errors.PeerUnavailable: the node that has the place can't be reached within ``file_op_timeout``.
    :raises callfs.errors.InsufficientStorage: it has no room.
    """
    own = storage.own_blobs(placement)
    if own is not None:
        return claimed(own.stage(blob_id, declared_size, hashers), lambda late: late.abort())
    return with_timeout(
        claimed(_begin_elsewhere(storage, blob_id, placement, declared_size, hashers), lambda late: late.abort()),
        storage.settings.file_op_timeout_seconds,
        storage.clock,
        lambda: PeerUnavailable("the place for the bytes doesn't answer"),
    )


@returns_deferred
async def _begin_elsewhere(
    storage: Storage,
    blob_id: str,
    placement: Placement,
    declared_size: int | None,
    hashers: Sequence[Hasher],
) -> IStagedBlob:
    return await (await storage.blobs_at(placement)).stage(blob_id, declared_size, hashers)


@returns_deferred
async def discarding(storage: Storage, copy: BlobRef) -> None:
    """See :func:`discard`."""
    await discard(storage, copy)


@returns_deferred
async def _commit(staged: IStagedBlob) -> CommittedBlob:
    try:
        return await staged.commit()
    except Exception:
        await staged.abort()
        raise


async def _piece(reader: IBlobReader, offset: int) -> bytes:
    try:
        piece = await reader.read(offset, PIECE_BYTES)
    except PeerUnavailable as error:
        raise _BadSource from error
    if not piece:
        raise _BadSource
    return piece


def say_changed(metrics: ErrorMetrics, path: str, blob: BlobRef) -> None:
    """Bytes that have changed where they lie are the worst that can happen: say so loudly."""
    metrics.error("engine", "blob_checksum_mismatch")
    _log.critical(
        "the blob {blob_id} of {path} isn't what was stored: its digest has changed",
        event="blob_checksum_mismatch",
        path=path,
        blob_id=blob.id,
    )
