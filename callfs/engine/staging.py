"""
New content on its way to where it shall be: to one place, or to two at once.

With two it is both or nothing: whatever fails in one place fails the whole, and leaves nothing in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from callfs.backends.interfaces import CommittedBlob, Hasher, IStagedBlob
from callfs.deferreds import returns_deferred
from callfs.engine.arrangement import arranged
from callfs.engine.blobcopy import begin_blob, discard
from callfs.engine.ports import Storage
from callfs.errors import InternalError
from callfs.identifiers import new_blob_id
from callfs.model import BlobRef, Placement


async def stage_content(
    storage: Storage, placements: Sequence[Placement], declared_size: int | None, hashers: Sequence[Hasher]
) -> StagedContent:
    """
    Begin.

    :param placements: where the content goes, the first copy first.
    :param declared_size: bytes that will come, when known.
    :param hashers: fed once with the content on its way; read them after the commit.
    :raises callfs.errors.InsufficientStorage: one of the places has no room.
    :raises callfs.errors.PeerUnavailable: one of the places can't be reached.
    """
    content = StagedContent(storage)
    try:
        for number, placement in enumerate(placements):
            blob_id = new_blob_id(storage.now(), storage.token_bytes)
            staging = begin_blob(storage, blob_id, placement, declared_size, hashers if number == 0 else ())
            content.add(blob_id, placement, await staging)
    except Exception:
        await storage.unattended.shield(content.abort())
        raise
    return content


class StagedContent:
    """A staged blob in each of its places. One call at a time; it ends with :meth:`commit` or :meth:`abort`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._places: list[tuple[str, Placement]] = []
        self._staged: list[IStagedBlob] = []

    def add(self, blob_id: str, placement: Placement, staged: IStagedBlob) -> None:
        """One place more; only before the first write."""
        self._places.append((blob_id, placement))
        self._staged.append(staged)

    def write(self, data: bytes) -> Deferred[None]:
        """Append to all; as :meth:`IStagedBlob.write`."""
        if len(self._staged) == 1:
            return self._staged[0].write(data)
        return self._write_all(data)

    @returns_deferred
    async def _write_all(self, data: bytes) -> None:
        for failure in _failures(await _ended([staged.write(data) for staged in self._staged])):
            failure.raiseException()

    @returns_deferred
    async def commit(self) -> BlobRef:
        """
        Make the content durable, in all places or in none.

        :return: the first copy with the others as its replicas; nothing names them yet. Should it fail, abort.
        """
        if len(self._staged) == 1:
            return _copy(self._places[0], await self._staged[0].commit())
        outcomes = await _ended([staged.commit() for staged in self._staged])
        copies = [
            _copy(place, outcome)
            for place, outcome in zip(self._places, outcomes, strict=True)
            if isinstance(outcome, CommittedBlob)
        ]
        failures = _failures(outcomes)
        if not failures and len({(copy.size, copy.sha256) for copy in copies}) == 1:
            return arranged(copies)
        await self.abort()
        for copy in copies:
            await discard(self._storage, copy)
        for failure in failures:
            failure.raiseException()
        raise InternalError("the copies of the content differ from each other")

    @returns_deferred
    async def abort(self) -> None:
        """Forget what isn't committed; never fails."""
        for staged in self._staged:
            await staged.abort()


def _copy(place: tuple[str, Placement], committed: CommittedBlob) -> BlobRef:
    blob_id, placement = place
    return BlobRef(blob_id, committed.size, committed.sha256, placement)


async def _ended(work: Sequence[Deferred[Any]]) -> list[Any]:
    """The result or failure of each, when all have ended: none is left to itself because another has failed."""
    return [outcome for _, outcome in await DeferredList(work, consumeErrors=True)]


def _failures(outcomes: Sequence[Any]) -> list[Failure]:
    return [outcome for outcome in outcomes if isinstance(outcome, Failure)]
