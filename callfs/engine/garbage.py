"""Emptying the garbage queue of one backend: delete the blob, then forget the row, as often as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from callfs.backends.interfaces import IBlobBackend
from callfs.deferreds import returns_deferred
from callfs.engine.routing import LOCAL_BACKEND
from callfs.engine.waves import succeeded
from callfs.errors import CallFSError
from callfs.metadata.commands import DropGarbage
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import Garbage

_log = Logger()

BATCH = 64
MAX_FAILING = 2000
"""With so many blobs that can't be deleted it is the backend that fails: nothing else is tried for a while."""

FIRST_RETRY_SECONDS = 30.0
LAST_RETRY_SECONDS = 3600.0


class GarbageMetrics(Protocol):
    """Who counts deletions."""

    def garbage_deleted(self, backend_type: str, count: int = 1) -> None:
        """Blobs from the garbage queue are gone."""

    def garbage_failed(self, backend_type: str) -> None:
        """A blob from the garbage queue couldn't be deleted just now."""


class _Retry:
    """A row whose blob couldn't be deleted: when to try it again."""

    def __init__(self) -> None:
        self.failures = 0
        self.due_seconds = 0.0

    def postpone(self, seconds: float) -> None:
        """It failed once more, at the clock's ``seconds``."""
        self.due_seconds = seconds + min(FIRST_RETRY_SECONDS * 2**self.failures, LAST_RETRY_SECONDS)
        self.failures += 1


class GarbageQueue:
    """
    The rows of the garbage queue that are one backend's.

    A row goes only after its blob has gone durably, so nothing is forgotten, whenever the process ends; a blob that
    is deleted again because its row couldn't be dropped is no error.

    :param instance_id: this node; of a local disk it deletes its own rows alone.
    :param stopping: asked between batches whether to leave off.
    """

    def __init__(
        self,
        *,
        name: str,
        backend: IBlobBackend,
        metadata: IMetadataStore,
        instance_id: str,
        now: Callable[[], int],
        clock: IReactorTime,
        metrics: GarbageMetrics,
        stopping: Callable[[], bool],
    ) -> None:
        self._name = name
        self._backend = backend
        self._metadata = metadata
        self._instance_id = instance_id if name == LOCAL_BACKEND else None
        self._now = now
        self._clock = clock
        self._metrics = metrics
        self._stopping = stopping
        self._retries: dict[int, _Retry] = {}

    async def drain(self) -> None:
        """
        Delete all that is due.

        :raises callfs.errors.MetadataUnavailable: the queue can't be read or written; what was deleted is deleted.
        """
        while not self._stopping():
            batch = await self._due()
            if not batch:
                return
            gone = await succeeded(batch, self._delete)
            if gone:
                await self._metadata.apply(DropGarbage(at=self._now(), ids=tuple(row.id for row in gone)))
                self._metrics.garbage_deleted(self._name, len(gone))

    async def _due(self) -> list[Garbage]:
        """The oldest rows but those that wait for another try, which mustn't stand in the way of the others."""
        seconds = self._clock.seconds()
        if len(self._retries) >= MAX_FAILING and all(r.due_seconds > seconds for r in self._retries.values()):
            return []
        limit = BATCH + len(self._retries)
        page = await self._metadata.garbage(self._now(), self._name, self._instance_id, limit)
        if len(page) < limit:
            # That was the whole queue: what another node has deleted meanwhile isn't waited for.
            self._retries = {row.id: self._retries[row.id] for row in page if row.id in self._retries}
        due = [row for row in page if row.id not in self._retries or self._retries[row.id].due_seconds <= seconds]
        return due[:BATCH]

    @returns_deferred
    async def _delete(self, row: Garbage) -> bool:
        try:
            await self._backend.delete(row.blob.id)
        except Exception as error:
            self._metrics.garbage_failed(self._name)
            text = "blob {blob_id} could not be deleted; it is tried again"
            if isinstance(error, CallFSError):
                _log.warn(f"{text}: {{reason}}", event="garbage_failed", blob_id=row.blob.id, reason=error.message)
            else:
                _log.failure(text, event="garbage_failed", blob_id=row.blob.id)
            self._retries.setdefault(row.id, _Retry()).postpone(self._clock.seconds())
            return False
        self._retries.pop(row.id, None)
        return True
