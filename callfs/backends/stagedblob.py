"""
A blob under way on the local disk: the Deferred's side of :class:`callfs.backends.stagedfile.StagedFile`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from callfs.backends.faults import write_fault
from callfs.backends.interfaces import CommittedBlob, IStagedBlob
from callfs.backends.jobs import Jobs
from callfs.backends.stagedfile import StagedFile
from callfs.deferreds import returns_deferred, shielded

FLUSH_BYTES = 1024 * 1024

T = TypeVar("T")


@implementer(IStagedBlob)
class LocalStagedBlob:
    """
    Gathers bytes, and lets threads write them while the next ones gather: a small blob takes one job in all.

    At most two times ``FLUSH_BYTES`` and the largest single write are in memory.

    :param ended: called once, when the blob is committed or gone.
    """

    _log = Logger()

    def __init__(self, blob_id: str, file: StagedFile, jobs: Jobs, ended: Callable[[], None]) -> None:
        self._blob_id = blob_id
        self._file = file
        self._jobs = jobs
        self._ended = ended
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._working = False
        self._idle_waiters: list[Deferred[None]] = []
        self._failure: Exception | None = None
        self._spent = False
        self._over = False

    def write(self, data: bytes) -> Deferred[None]:
        """See :meth:`IStagedBlob.write`. A fault shows at the next call."""
        if self._gathered + len(data) < FLUSH_BYTES and self._failure is None and not self._spent:
            self._gather(data)
            return succeed(None)
        return self._write(data)

    def commit(self) -> Deferred[CommittedBlob]:
        """See :meth:`IStagedBlob.commit`; shields itself."""
        return shielded(self._commit())

    def abort(self) -> Deferred[None]:
        """See :meth:`IStagedBlob.abort`; waits for the thread that is on the file."""
        return shielded(self._abort())

    def prepare(self) -> Deferred[None]:
        """
        Make the file now instead of with the first bytes.

        :raises callfs.errors.InsufficientStorage: no room.
        """
        return self._prepare()

    @returns_deferred
    async def _prepare(self) -> None:
        try:
            await self._work(self._file.create)
        except Exception:
            await self._abort()
            raise

    @returns_deferred
    async def _write(self, data: bytes) -> None:
        self._check_usable()
        self._gather(data)
        await self._idle()
        self._check_usable()
        chunks, self._chunks, self._gathered = self._chunks, [], 0
        self._work(self._file.append, chunks).addErrback(lambda failure: None)

    @returns_deferred
    async def _commit(self) -> CommittedBlob:
        try:
            self._check_usable()
            self._spent = True
            await self._idle()
            if self._failure is not None:
                raise self._failure
            committed: CommittedBlob = await self._work(self._file.commit, self._chunks)
        except Exception:
            await self._abort()
            raise
        self._end()
        return committed

    @returns_deferred
    async def _abort(self) -> None:
        self._spent = True
        while self._working:
            await self._idle()
        if self._over:
            return
        self._end()
        try:
            await self._jobs.run(self._file.discard)
        except Exception as error:
            self._log.warn(
                "the staged file of {blob_id} stays until the next start: {error}",
                event="staged_file_left",
                blob_id=self._blob_id,
                error=str(error),
            )

    def _gather(self, data: bytes) -> None:
        self._chunks.append(data)
        self._gathered += len(data)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._chunks = []
            self._ended()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._spent:
            raise ValueError("this blob was committed or aborted")

    @returns_deferred
    async def _work(self, function: Callable[..., T], *args: object) -> T:
        """A job on the file; its failure is remembered, and whoever waits for the end of it goes on."""
        self._working = True
        try:
            return await self._jobs.run(function, *args)
        except OSError as error:
            self._failure = write_fault(error, function.__name__, self._blob_id)
            raise self._failure from error
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._working = False
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def _idle(self) -> Deferred[None]:
        """Fires when no thread is on the file."""
        if not self._working:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._idle_waiters.append(waiter)
        return waiter
