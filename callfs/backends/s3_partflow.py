"""
The parts of an upload that are on their way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import CancelledError, Deferred, DeferredLock

from callfs.backends.interfaces import Hasher
from callfs.backends.jobs import Jobs
from callfs.backends.s3_multipart import S3Multipart
from callfs.backends.s3_request import Chunks, content_of
from callfs.backends.s3_xml import UploadedPart
from callfs.deferreds import returns_deferred, shielded


class Hashing:
    """
    Feeds hashers in threads, one piece after the other.

    :param hashers: belong to the threads until the last piece is in.
    """

    def __init__(self, hashers: Sequence[Hasher], jobs: Jobs) -> None:
        self._hashers = hashers
        self._jobs = jobs
        self._order = DeferredLock()

    @returns_deferred
    async def feed(self, chunks: Chunks) -> None:
        """Take more; pieces go in as they came, whether the one before is waited for or not."""
        if not self._hashers:
            return
        await self._order.acquire()
        try:
            await self._jobs.run(_update, self._hashers, chunks)
        finally:
            self._order.release()


class PartFlow:
    """
    Sends parts, each as soon as it is given, and keeps account of the memory that they take.

    Each is hashed by itself, for the checksum that S3 verifies, and with the others, in order.

    :param hashing: of the whole.
    :ivar bytes_under_way: in parts that aren't done.
    :ivar failure: the first; nothing more will come of this upload.
    """

    def __init__(self, key: str, *, multipart: S3Multipart, hashing: Hashing, jobs: Jobs) -> None:
        self.bytes_under_way = 0
        self.failure: Exception | None = None
        self._key = key
        self._multipart = multipart
        self._hashing = hashing
        self._jobs = jobs
        self._under_way: set[Deferred[None]] = set()
        self._done: list[UploadedPart] = []
        self._upload_id: str | None = None
        self._creating = DeferredLock()
        self._waiters: list[Deferred[None]] = []

    def begin(self, number: int, chunks: Chunks) -> None:
        """
        Send a part.

        :param number: from 1.
        """
        size = sum(len(chunk) for chunk in chunks)
        self.bytes_under_way += size
        sending = self._send(number, chunks)
        self._under_way.add(sending)

        def over(_: object) -> None:
            self._under_way.discard(sending)
            self.bytes_under_way -= size
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.called:
                    waiter.callback(None)

        sending.addBoth(over)

    async def room(self, most_bytes: int) -> None:
        """
        Wait until no more than so many bytes are under way.

        :raises Exception: :attr:`failure`.
        """
        while self.failure is None and self.bytes_under_way > most_bytes:
            await self._next_end()
        if self.failure is not None:
            raise self.failure

    async def finish(self, size: int) -> None:
        """
        Make the object, of all parts.

        :param size: of all parts together.
        :raises Exception: :attr:`failure`, or that of the last step.
        """
        await self.room(0)
        assert self._upload_id is not None
        await self._multipart.complete(self._key, self._upload_id, self._done, size)

    async def abandon(self) -> None:
        """Give up what is under way, and forget the parts."""
        for sending in list(self._under_way):
            sending.cancel()
        while self._under_way:
            await self._next_end()
        # An upload whose creation is under way would be left behind without its id.
        await self._creating.acquire()
        try:
            if self._upload_id is not None:
                await self._multipart.abort(self._key, self._upload_id)
                self._upload_id = None
        finally:
            self._creating.release()

    def _next_end(self) -> Deferred[None]:
        """Fires when a part is done, or has failed."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        return waiter

    @returns_deferred
    async def _send(self, number: int, chunks: Chunks) -> None:
        try:
            hashed = self._hashing.feed(chunks)
            content = await self._jobs.run(content_of, chunks)
            upload_id = await shielded(self._opened())
            self._done.append(await self._multipart.send(self._key, upload_id, number, content))
            await hashed
        except CancelledError:
            raise
        except Exception as error:
            if self.failure is None:
                self.failure = error

    @returns_deferred
    async def _opened(self) -> str:
        """The upload's id; the first part that asks creates it."""
        await self._creating.acquire()
        try:
            if self._upload_id is None:
                self._upload_id = await self._multipart.create(self._key)
            return self._upload_id
        finally:
            self._creating.release()


def _update(hashers: Iterable[Hasher], chunks: Chunks) -> None:
    for hasher in hashers:
        for chunk in chunks:
            hasher.update(chunk)  # type: ignore[arg-type]
