"""The blobs on another node's local disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.web.iweb import IResponse
from zope.interface import implementer

from callfs.backends.interfaces import BlobMissing, BlobStat, Hasher, IBlobBackend, IBlobReader, IStagedBlob
from callfs.backends.jobs import Jobs
from callfs.backends.peeranswers import header
from callfs.backends.peercalls import BlobExists, PeerCalls
from callfs.backends.peerreader import PeerReader, stream_of
from callfs.backends.peerupload import PeerStagedBlob
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIZE = re.compile(r"[0-9]{1,18}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")


@implementer(IBlobBackend)
class PeerBlobs:
    """
    Another node's blobs, through its ``/v1/internal/blobs``.

    What lists, sets aside and sweeps is the holder's own business, and fails with ``NotImplementedError``.

    :param jobs: where large pieces are hashed.
    """

    name = "localfs"

    def __init__(self, calls: PeerCalls, jobs: Jobs) -> None:
        self._calls = calls
        self._jobs = jobs
        self._staged: dict[str, PeerStagedBlob] = {}

    @returns_deferred
    async def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> IStagedBlob:
        """
        See :meth:`IBlobBackend.stage`. A peer without room says so while the bytes are on their way: a write or the
        commit then fails with :class:`callfs.errors.InsufficientStorage`.
        """
        if _ID.fullmatch(blob_id) is None or blob_id in self._staged:
            raise ValueError(f"not an id for a new blob: {blob_id!r}")
        staged = PeerStagedBlob(
            self._calls, _path(blob_id), declared_size, hashers, self._jobs, lambda: self._forget(blob_id)
        )
        self._staged[blob_id] = staged
        await staged.begin()
        return staged

    @returns_deferred
    async def open(self, blob_id: str) -> IBlobReader:
        """See :meth:`IBlobBackend.open`."""
        path = _existing(blob_id)
        response = await self._asked("open", "GET", blob_id)
        size = response.length
        if response.code != 200 or not isinstance(size, int):
            self._calls.abandon(response)
            raise self._calls.unusable(f"status {response.code} and a length of {size}, to a read")
        return PeerReader(self._calls, path, size, stream_of(self._calls, response, 0, size))

    @returns_deferred
    async def delete(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.delete`."""
        if _ID.fullmatch(blob_id) is None:
            return
        try:
            self._calls.abandon(await self._asked("delete", "DELETE", blob_id))
        except BlobMissing:
            return

    @returns_deferred
    async def stat(self, blob_id: str) -> BlobStat:
        """See :meth:`IBlobBackend.stat`."""
        _existing(blob_id)
        response = await self._asked("stat", "HEAD", blob_id)
        self._calls.abandon(response)
        size, modified_at = header(response, "X-CallFS-Size"), _instant(header(response, "X-CallFS-MTime"))
        if size is None or _SIZE.fullmatch(size) is None or modified_at is None:
            raise self._calls.unusable("neither size nor time of a blob")
        return BlobStat(id=blob_id, size=int(size), modified_at=modified_at)

    def set_aside(self, blob_id: str) -> Deferred[None]:
        """The holder's business."""
        return _not_here()

    def list_set_aside(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """The holder's business."""
        return _not_here()

    def put_back(self, blob_id: str) -> Deferred[None]:
        """The holder's business."""
        return _not_here()

    def purge_set_aside(self, before_at: int) -> Deferred[int]:
        """The holder's business."""
        return _not_here()

    def list_blobs(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """The holder's business."""
        return _not_here()

    def remove_stale_staged(self, before_at: int) -> Deferred[int]:
        """The holder's business."""
        return _not_here()

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`IBlobBackend.close`."""
        for staged in list(self._staged.values()):
            await staged.abort()

    async def _asked(self, operation: str, method: str, blob_id: str) -> IResponse:
        """A request without a body, of which only "missing" is no fault."""
        try:
            return await self._calls.ask(operation, method, _path(blob_id))
        except BlobExists as error:
            raise self._calls.unusable(f"a conflict, to {operation}") from error
        except InsufficientStorage as error:
            raise self._calls.unusable(f"no room, to {operation}") from error

    def _forget(self, blob_id: str) -> None:
        self._staged.pop(blob_id, None)


def _path(blob_id: str) -> str:
    return f"/v1/internal/blobs/{blob_id}"


def _existing(blob_id: str) -> str:
    """The path of a blob; of what is no id there is none."""
    if _ID.fullmatch(blob_id) is None:
        raise BlobMissing(blob_id)
    return _path(blob_id)


def _instant(text: str | None) -> int | None:
    """What a peer writes in ``X-CallFS-MTime``, as an instant."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if moment.tzinfo is None else (moment - _EPOCH) // timedelta(microseconds=1)


def _not_here() -> Deferred[T]:
    return fail(NotImplementedError("a node's blobs are listed and swept by the node itself"))
