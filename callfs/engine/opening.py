"""
Opening the copies of a blob: the nearest first, and another one when that fails.

All copies of a blob have the same bytes, so a reader can change over between any two reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from callfs.backends.interfaces import BlobMissing, HandedOver, IBlobReader, IHandingReader
from callfs.deferreds import returns_deferred, with_timeout
from callfs.engine.claims import claimed
from callfs.engine.ports import Storage
from callfs.engine.routing import sources
from callfs.errors import PeerUnavailable
from callfs.model import BlobRef

_log = Logger()


class Unreadable(Exception):
    """No copy of a blob that this node knows of can be read."""


class Gone(Unreadable):
    """Each of them is missing: the file may have got other content meanwhile."""


def readable_copies(storage: Storage, blob: BlobRef) -> tuple[BlobRef, ...]:
    """The copies that this node can read, in the order in which they are to be tried."""
    return sources(blob, storage.settings.instance_id, storage.backends)


async def open_blob(storage: Storage, path: str, blob: BlobRef) -> IBlobReader:
    """
    Open the first copy that can be opened.

    :param path: of the file that has the blob, for the log.
    :return: a reader that goes over to another copy where there is one.
    :raises Gone: every copy is known to be missing.
    :raises Unreadable: within ``file_op_timeout`` in all, none could be opened.
    """
    copies = _Copies(storage, path, readable_copies(storage, blob))
    reader = await copies.next_reader()
    if reader is None:
        # A copy out of this node's reach may well be there: only when all are missing the blob is gone.
        raise Gone if copies.missing == len(blob.copies()) else Unreadable
    return ChangingReader(reader, copies) if copies.left else reader


class _Copies:
    """The copies of a blob that were not tried yet."""

    def __init__(self, storage: Storage, path: str, copies: Sequence[BlobRef]) -> None:
        self._storage = storage
        self._path = path
        self.left = list(copies)
        self.missing = 0

    async def next_reader(self) -> IBlobReader | None:
        """
        The next copy that can be opened; ``None`` when none is left.

        The time is shared out among those that are left, so that a node that is silent leaves the last its chance.
        """
        clock = self._storage.clock
        deadline = clock.seconds() + self._storage.settings.file_op_timeout_seconds
        while self.left:
            share = max(deadline - clock.seconds(), 0.0) / len(self.left)
            copy = self.left.pop(0)
            try:
                return await open_copy(self._storage, self._path, copy, share)
            except BlobMissing:
                self.missing += 1
            except PeerUnavailable as error:
                _log.debug("{path}: a copy can't be opened: {reason}", path=self._path, reason=error.message)
        return None

    def lost(self, copy_failed: PeerUnavailable) -> None:
        """Say that a reader goes over to another copy."""
        self._storage.metrics.error("engine", "copy_changed")
        _log.warn(
            "a copy of {path} failed while it was read: {reason}; going on with another one",
            event="copy_changed",
            path=self._path,
            reason=copy_failed.message,
        )


@implementer(IHandingReader)
class ChangingReader:
    """
    A reader that goes on with another copy when the one it has fails, as long as there are others.

    That counts for a connection that was handed over, too: what it didn't bring is read, and so comes from where it
    can be had.

    Readers that failed are closed with the rest, at the end: reads on them may be under way still.
    """

    def __init__(self, reader: IBlobReader, copies: _Copies) -> None:
        self.size = reader.size
        self._reader = reader
        self._opened = [reader]
        self._copies = copies
        self._changing = DeferredLock()
        self._closed = False

    @returns_deferred
    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        while True:
            reader = self._reader
            try:
                return await reader.read(offset, length)
            except PeerUnavailable as error:
                await self._changing.run(self._change, reader, error)

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`."""
        return self._reader.fileno()

    def hand_over(self, offset: int, length: int) -> HandedOver | None:
        """See :meth:`IHandingReader.hand_over`: where the copy that is being read can."""
        reader = self._reader
        return reader.hand_over(offset, length) if IHandingReader.providedBy(reader) else None

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        self._closed = True
        opened, self._opened = self._opened, []
        for reader in opened:
            reader.close()

    @returns_deferred
    async def _change(self, failed: IBlobReader, error: PeerUnavailable) -> None:
        """Go over to another copy unless a read beside this one has done so."""
        if self._reader is not failed:
            return
        reader = None if self._closed else await self._copies.next_reader()
        if reader is None:
            raise error
        if self._closed:
            reader.close()
            raise error
        self._copies.lost(error)
        self._opened.append(reader)
        self._reader = reader


async def open_copy(storage: Storage, path: str, copy: BlobRef, limit_seconds: float) -> IBlobReader:
    """
    Open one copy.

    :param path: of the file that has it, for the log.
    :param limit_seconds: how long the backend or node that has it is waited for.
    :raises callfs.backends.interfaces.BlobMissing: it isn't there.
    :raises callfs.errors.PeerUnavailable: it can't be told in time, or it has another size than the content.
    """
    opening = claimed(_opening(storage, copy), lambda reader: reader.close())
    if not opening.called:
        opening = with_timeout(
            opening, limit_seconds, storage.clock, lambda: PeerUnavailable("the backend doesn't answer")
        )
    reader = await opening
    if reader.size == copy.size:
        return reader
    reader.close()
    storage.metrics.error("engine", "blob_size_mismatch")
    _log.critical(
        "the blob {blob_id} of {path} has {found} bytes instead of {expected}",
        event="blob_size_mismatch",
        path=path,
        blob_id=copy.id,
        found=reader.size,
        expected=copy.size,
    )
    raise PeerUnavailable(f"the bytes of {path} aren't as they were stored")


def _opening(storage: Storage, copy: BlobRef) -> Deferred[IBlobReader]:
    own = storage.own_blobs(copy.placement)
    return _open_elsewhere(storage, copy) if own is None else own.open(copy.id)


@returns_deferred
async def _open_elsewhere(storage: Storage, copy: BlobRef) -> IBlobReader:
    return await (await storage.blobs_at(copy.placement)).open(copy.id)
