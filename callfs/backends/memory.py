"""
Blobs in memory: the fast twin for tests of what stands above the port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from zope.interface import implementer

from callfs.backends.interfaces import (
    BlobMissing,
    BlobStat,
    CommittedBlob,
    Hasher,
    IBlobBackend,
    IBlobReader,
    IStagedBlob,
)
from callfs.backends.space import no_room
from callfs.deferreds import returns_deferred


class _Content:
    """A committed blob."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at


@implementer(IStagedBlob)
class _MemoryStagedBlob:
    """A blob under way."""

    def __init__(self, backend: MemoryBackend, blob_id: str, hashers: Sequence[Hasher]) -> None:
        self._backend = backend
        self._blob_id = blob_id
        self._sha256 = hashlib.sha256()
        self._hashers: tuple[Hasher, ...] = (self._sha256, *hashers)
        self._data = bytearray()
        self._spent = False
        self.written_at = backend.now()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return len(self._data)

    @returns_deferred
    async def write(self, data: bytes) -> None:
        """See :meth:`IStagedBlob.write`."""
        self._check_usable()
        self._backend.check_room(len(data))
        self._data += data
        self.written_at = self._backend.now()
        for hasher in self._hashers:
            hasher.update(data)

    @returns_deferred
    async def commit(self) -> CommittedBlob:
        """See :meth:`IStagedBlob.commit`."""
        self._check_usable()
        self._spent = True
        self._backend.publish(self._blob_id, bytes(self._data))
        return CommittedBlob(size=len(self._data), sha256=self._sha256.digest())

    @returns_deferred
    async def abort(self) -> None:
        """See :meth:`IStagedBlob.abort`."""
        if not self._spent:
            self._spent = True
            self._backend.forget(self._blob_id)

    def _check_usable(self) -> None:
        if self._spent:
            raise ValueError("this blob was committed or aborted")


@implementer(IBlobReader)
class _MemoryBlobReader:
    """An open blob."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data: bytes | None = data

    @returns_deferred
    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        if self._data is None:
            raise ValueError("the reader is closed")
        return self._data[offset : offset + length]

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`."""
        return None

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        self._data = None


@implementer(IBlobBackend)
class MemoryBackend:
    """
    Keeps what the port promises but durability.

    :param now: the instant, in microseconds.
    :param name: what requests and metrics call it.
    :param capacity_bytes: room in all, staged blobs included; ``None`` without limit.
    """

    def __init__(self, *, now: Callable[[], int], name: str = "memory", capacity_bytes: int | None = None) -> None:
        self.name = name
        self.now = now
        self._capacity_bytes = capacity_bytes
        self._staged: dict[str, _MemoryStagedBlob] = {}
        self._blobs: dict[str, _Content] = {}
        self._aside: dict[str, _Content] = {}

    @returns_deferred
    async def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> IStagedBlob:
        """See :meth:`IBlobBackend.stage`."""
        if blob_id in self._staged or blob_id in self._blobs:
            raise ValueError(f"not an id for a new blob: {blob_id!r}")
        self.check_room(declared_size or 0)
        self._staged[blob_id] = staged = _MemoryStagedBlob(self, blob_id, hashers)
        return staged

    @returns_deferred
    async def open(self, blob_id: str) -> IBlobReader:
        """See :meth:`IBlobBackend.open`."""
        return _MemoryBlobReader(self._find(blob_id).data)

    @returns_deferred
    async def delete(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.delete`."""
        self._blobs.pop(blob_id, None)

    @returns_deferred
    async def set_aside(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.set_aside`; a blob that isn't there is no error."""
        content = self._blobs.pop(blob_id, None)
        if content is not None:
            self._aside[blob_id] = _Content(content.data, self.now())

    @returns_deferred
    async def list_set_aside(self, after: str = "", limit: int = 1000) -> list[BlobStat]:
        """See :meth:`IBlobBackend.list_set_aside`: by id."""
        ids = sorted(blob_id for blob_id in self._aside if blob_id > after)[:limit]
        return [self._stat(blob_id, self._aside[blob_id]) for blob_id in ids]

    @returns_deferred
    async def put_back(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.put_back`."""
        content = self._aside.pop(blob_id, None)
        if content is not None:
            self._blobs[blob_id] = content

    @returns_deferred
    async def purge_set_aside(self, before_at: int) -> int:
        """See :meth:`IBlobBackend.purge_set_aside`."""
        old = [blob_id for blob_id, content in self._aside.items() if content.at < before_at]
        for blob_id in old:
            del self._aside[blob_id]
        return len(old)

    @returns_deferred
    async def stat(self, blob_id: str) -> BlobStat:
        """See :meth:`IBlobBackend.stat`."""
        return self._stat(blob_id, self._find(blob_id))

    @returns_deferred
    async def list_blobs(self, after: str = "", limit: int = 1000) -> list[BlobStat]:
        """See :meth:`IBlobBackend.list_blobs`: by id."""
        ids = sorted(blob_id for blob_id in self._blobs if blob_id > after)[:limit]
        return [self._stat(blob_id, self._blobs[blob_id]) for blob_id in ids]

    @returns_deferred
    async def remove_stale_staged(self, before_at: int) -> int:
        """See :meth:`IBlobBackend.remove_stale_staged`: all that is staged is of this process."""
        return 0

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`IBlobBackend.close`."""
        for staged in list(self._staged.values()):
            await staged.abort()

    def publish(self, blob_id: str, data: bytes) -> None:
        """For a staged blob: it is complete."""
        self.forget(blob_id)
        self._blobs[blob_id] = _Content(data, self.now())

    def forget(self, blob_id: str) -> None:
        """For a staged blob: it is over."""
        self._staged.pop(blob_id, None)

    def check_room(self, wanted_bytes: int) -> None:
        """
        Whether so many bytes more fit.

        :raises callfs.errors.InsufficientStorage: they don't.
        """
        if self._capacity_bytes is None:
            return
        kept = (len(content.data) for blobs in (self._blobs, self._aside) for content in blobs.values())
        staged = (blob.size for blob in self._staged.values())
        if sum(kept) + sum(staged) + wanted_bytes > self._capacity_bytes:
            raise no_room()

    def _find(self, blob_id: str) -> _Content:
        content = self._blobs.get(blob_id)
        if content is None:
            raise BlobMissing(blob_id)
        return content

    @staticmethod
    def _stat(blob_id: str, content: _Content) -> BlobStat:
        return BlobStat(id=blob_id, size=len(content.data), modified_at=content.at)
