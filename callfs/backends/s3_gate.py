"""
What a node has of S3 until S3 is known to be its own: nothing, and an answer that says so at once.

A bucket that doesn't answer when a node starts must not keep it from serving what is elsewhere; but a bucket that
nobody has recognised must be neither judged nor written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from callfs.backends.interfaces import BlobStat, Hasher, IBlobBackend, IBlobReader, ICopyingBackend, IStagedBlob
from callfs.errors import PeerUnavailable

T = TypeVar("T")


@implementer(IBlobBackend)
class GatedBackend:
    """
    Passes everything on once it is opened; before, everything fails with ``PeerUnavailable``.

    :ivar is_open: whether it passes on.
    """

    def __init__(self, backend: IBlobBackend) -> None:
        self.name = backend.name
        self.is_open = False
        self._backend = backend

    def __conform__(self, interface: object) -> object:
        """Asked by zope.interface: it copies where the backend does."""
        can_copy = interface is ICopyingBackend and ICopyingBackend.providedBy(self._backend)
        return self if can_copy else None

    def admit(self) -> None:
        """Open it, for good: the backend was recognised."""
        self.is_open = True

    def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> Deferred[IStagedBlob]:
        """See :meth:`IBlobBackend.stage`."""
        return self._passed(lambda: self._backend.stage(blob_id, declared_size, hashers))

    def open(self, blob_id: str) -> Deferred[IBlobReader]:
        """See :meth:`IBlobBackend.open`."""
        return self._passed(lambda: self._backend.open(blob_id))

    def delete(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.delete`."""
        return self._passed(lambda: self._backend.delete(blob_id))

    def set_aside(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.set_aside`."""
        return self._passed(lambda: self._backend.set_aside(blob_id))

    def list_set_aside(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_set_aside`."""
        return self._passed(lambda: self._backend.list_set_aside(after, limit))

    def put_back(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.put_back`."""
        return self._passed(lambda: self._backend.put_back(blob_id))

    def purge_set_aside(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.purge_set_aside`."""
        return self._passed(lambda: self._backend.purge_set_aside(before_at))

    def stat(self, blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`IBlobBackend.stat`."""
        return self._passed(lambda: self._backend.stat(blob_id))

    def list_blobs(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_blobs`."""
        return self._passed(lambda: self._backend.list_blobs(after, limit))

    def remove_stale_staged(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.remove_stale_staged`."""
        return self._passed(lambda: self._backend.remove_stale_staged(before_at))

    def copy(self, from_blob_id: str, to_blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`ICopyingBackend.copy`."""
        return self._passed(lambda: ICopyingBackend(self._backend).copy(from_blob_id, to_blob_id))

    def close(self) -> Deferred[None]:
        """See :meth:`IBlobBackend.close`."""
        return self._backend.close()

    def _passed(self, begin: Callable[[], Deferred[T]]) -> Deferred[T]:
        if not self.is_open:
            return fail(PeerUnavailable("The storage for this content hasn't answered since this node started."))
        return begin()
