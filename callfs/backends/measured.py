"""
A backend that reports how long its operations take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.backends.interfaces import (
    BlobStat,
    CommittedBlob,
    Hasher,
    IBlobBackend,
    IBlobReader,
    ICopyingBackend,
    IStagedBlob,
)
from callfs.deferreds import is_settled

T = TypeVar("T")
Observe = Callable[[str, str, float], None]
"""Told of the backend's name, the operation, and how long it took in seconds, whether it failed or not."""


@implementer(IStagedBlob)
class _MeasuredStagedBlob:
    """Reports commits and aborts; single writes are too small and too many to be worth it."""

    def __init__(self, staged: IStagedBlob, backend: MeasuredBackend) -> None:
        self._staged = staged
        self._backend = backend

    def write(self, data: bytes) -> Deferred[None]:
        """See :meth:`IStagedBlob.write`."""
        return self._staged.write(data)

    def commit(self) -> Deferred[CommittedBlob]:
        """See :meth:`IStagedBlob.commit`."""
        return self._backend.measured("commit", self._staged.commit)

    def abort(self) -> Deferred[None]:
        """See :meth:`IStagedBlob.abort`."""
        return self._backend.measured("abort", self._staged.abort)


@implementer(ICopyingBackend)
class _MeasuredCopying:
    """The copying of a backend that can."""

    def __init__(self, copying: ICopyingBackend, backend: MeasuredBackend) -> None:
        self._copying = copying
        self._backend = backend

    def copy(self, from_blob_id: str, to_blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`ICopyingBackend.copy`."""
        return self._backend.measured("copy", lambda: self._copying.copy(from_blob_id, to_blob_id))


@implementer(IBlobBackend)
class MeasuredBackend:
    """
    Passes everything on. Readers are handed through as they are: a read from the page cache costs less than
    taking its time.

    :param observe: told of each operation.
    :param now_seconds: a clock that never goes back.
    """

    def __init__(self, backend: IBlobBackend, observe: Observe, now_seconds: Callable[[], float]) -> None:
        self.name = backend.name
        self._backend = backend
        self._observe = observe
        self._now_seconds = now_seconds

    def __conform__(self, interface: object) -> object:
        """Asked by zope.interface: it copies where the backend does."""
        copying = ICopyingBackend(self._backend, None) if interface is ICopyingBackend else None
        return None if copying is None else _MeasuredCopying(copying, self)

    def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> Deferred[IStagedBlob]:
        """See :meth:`IBlobBackend.stage`."""
        staged = self.measured("stage", lambda: self._backend.stage(blob_id, declared_size, hashers))
        return staged.addCallback(self._wrapped)

    def open(self, blob_id: str) -> Deferred[IBlobReader]:
        """See :meth:`IBlobBackend.open`."""
        return self.measured("open", lambda: self._backend.open(blob_id))

    def delete(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.delete`."""
        return self.measured("delete", lambda: self._backend.delete(blob_id))

    def set_aside(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.set_aside`."""
        return self.measured("set_aside", lambda: self._backend.set_aside(blob_id))

    def list_set_aside(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_set_aside`."""
        return self.measured("list_set_aside", lambda: self._backend.list_set_aside(after, limit))

    def put_back(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.put_back`."""
        return self.measured("put_back", lambda: self._backend.put_back(blob_id))

    def purge_set_aside(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.purge_set_aside`."""
        return self.measured("purge_set_aside", lambda: self._backend.purge_set_aside(before_at))

    def stat(self, blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`IBlobBackend.stat`."""
        return self.measured("stat", lambda: self._backend.stat(blob_id))

    def list_blobs(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_blobs`."""
        return self.measured("list", lambda: self._backend.list_blobs(after, limit))

    def remove_stale_staged(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.remove_stale_staged`."""
        return self.measured("remove_stale_staged", lambda: self._backend.remove_stale_staged(before_at))

    def close(self) -> Deferred[None]:
        """See :meth:`IBlobBackend.close`."""
        return self._backend.close()

    def measured(self, operation: str, begin: Callable[[], Deferred[T]]) -> Deferred[T]:
        """The Deferred that ``begin`` returns, reported when it fires."""
        began = self._now_seconds()

        def report(result: T | Failure) -> T | Failure:
            self._observe(self.name, operation, self._now_seconds() - began)
            return result

        deferred = begin()
        if is_settled(deferred):
            self._observe(self.name, operation, self._now_seconds() - began)
        else:
            deferred.addBoth(report)
        return deferred

    def _wrapped(self, staged: IStagedBlob) -> IStagedBlob:
        return _MeasuredStagedBlob(staged, self)
