"""
An open blob on S3: one reply is read from as long as the reads follow each other.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore, fail, succeed
from zope.interface import implementer

from callfs.backends.interfaces import IBlobReader
from callfs.backends.s3_errors import S3Fault, S3Unreachable
from callfs.backends.s3_objects import OpenObject, S3Objects
from callfs.deferreds import returns_deferred
from callfs.errors import PeerUnavailable

FIRST_BYTES = 1 << 20
"""
What the first request at a place asks for. All of a small blob comes with it; of a large one little is wanted in
vain, should only a range of it be read.
"""

_RESUMPTIONS = 4
_ASIDE_AT_ONCE = 4


class Run:
    """
    Reads that follow each other.

    A reply that is cut is gone on with by another request, from the next byte on, as long as each brings some.

    :param start: of the first byte.
    :param end: of the byte after the last that will be wanted.
    :param opened: the first reply, if there is one already.
    :ivar promised: where the next read begins.
    """

    def __init__(
        self, objects: S3Objects, key: str, etag: str, start: int, end: int, opened: OpenObject | None = None
    ) -> None:
        self.promised = start
        self._objects = objects
        self._key = key
        self._etag = etag
        self._position = start
        self._end = end
        self._opened = opened
        self._order = DeferredLock()
        self._requests = 0 if opened is None else 1
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody reads."""
        return self._position == self.promised

    @property
    def buffered_bytes(self) -> int:
        """Received and not yet read."""
        return 0 if self._opened is None else self._opened.body.waiting_bytes

    @returns_deferred
    async def read(self, length: int) -> bytes:
        """
        The next bytes; the blob has so many.

        :raises S3Fault: they can't be read; neither can anything after them.
        """
        start = self.promised
        self.promised += length
        try:
            await self._order.acquire()
            try:
                return await self._take(start, length)
            finally:
                self._order.release()
        except BaseException:
            # What comes after a read that wasn't finished would be taken for something else.
            self.close()
            raise

    def close(self) -> None:
        """Nothing more is read."""
        self._closed = True
        if self._opened is not None:
            self._opened.body.abort()

    async def _take(self, start: int, length: int) -> bytes:
        if self._position != start:
            raise S3Unreachable("the read before wasn't finished")
        pieces: list[bytes] = []
        got = fruitless = 0
        while got < length:
            opened = await self._current(length - got)
            try:
                piece = await opened.body.read(min(length - got, opened.end - self._position))
            except S3Unreachable:
                piece = b""
            if piece:
                pieces.append(piece)
                got += len(piece)
                self._position += len(piece)
                fruitless = 0
                continue
            # Cut, or ended too early.
            fruitless += 1
            opened.body.abort()
            self._opened = None
            if self._closed or fruitless > _RESUMPTIONS:
                raise S3Unreachable("the replies are cut again and again")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _current(self, most: int) -> OpenObject:
        """The reply that has the next byte. Whoever has read the first one to its end will want the rest."""
        if self._closed:
            raise S3Unreachable("the reader is closed")
        if self._opened is not None and self._position < self._opened.end:
            return self._opened
        if self._opened is not None:
            # A server that sends more than it announced would be kept waiting.
            self._opened.body.abort()
        end = self._end if self._requests else min(self._position + max(most, FIRST_BYTES), self._end)
        self._requests += 1
        opened = await self._objects.open(self._key, self._position, end, self._etag)
        if self._closed or opened.end <= self._position:
            opened.body.abort()
            raise S3Unreachable("the reader is closed" if self._closed else "the blob is shorter than it was")
        self._opened = opened
        return opened


@implementer(IBlobReader)
class S3BlobReader:
    """
    Reads one after the other, as a download does, come out of one reply, with back-pressure; a read elsewhere
    begins another; one beside those under way has a request of its own.

    :param opened: the reply to the first request, from the blob's first byte; ``None`` for an empty blob.
    :param translate: makes the caller's error of a fault, and reports it.
    """

    def __init__(
        self,
        objects: S3Objects,
        key: str,
        opened: OpenObject | None,
        *,
        translate: Callable[[S3Fault], Exception],
        closed: Callable[[S3BlobReader], None],
    ) -> None:
        self.size = 0 if opened is None else opened.size
        self._objects = objects
        self._key = key
        self._etag = "" if opened is None else opened.etag
        self._translate = translate
        self._told_closed = closed
        self._run: Run | None = None if opened is None else self._new_run(0, opened)
        self._beside = DeferredSemaphore(_ASIDE_AT_ONCE)
        self._beside_runs: set[Run] = set()
        self._closed = False

    @property
    def buffered_bytes(self) -> int:
        """Received and not yet read."""
        return sum(run.buffered_bytes for run in {self._run, *self._beside_runs} if run is not None)

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :meth:`IBlobReader.read`."""
        if self._closed:
            return fail(ValueError("the reader is closed"))
        length = max(0, min(length, self.size - offset))
        if length == 0:
            return succeed(b"")
        return self._read(offset, length)

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`."""
        return None

    def close(self) -> None:
        """See :meth:`IBlobReader.close`; reads under way fail."""
        if self._closed:
            return
        self._closed = True
        for run in [self._run, *self._beside_runs]:
            if run is not None:
                run.close()
        self._told_closed(self)

    @returns_deferred
    async def _read(self, offset: int, length: int) -> bytes:
        run = self._run
        try:
            if run is not None and run.promised == offset:
                return await self._read_on(run, length)
            if run is None or run.is_idle:
                if run is not None:
                    run.close()
                self._run = run = self._new_run(offset)
                return await self._read_on(run, length)
            return await self._beside.run(self._read_beside, offset, length)
        except S3Fault as fault:
            if self._closed:
                raise PeerUnavailable("The content isn't read any more.") from fault
            raise self._translate(fault) from fault

    async def _read_on(self, run: Run, length: int) -> bytes:
        try:
            return await run.read(length)
        except BaseException:
            if self._run is run:
                self._run = None
            raise

    @returns_deferred
    async def _read_beside(self, offset: int, length: int) -> bytes:
        if self._closed:
            raise S3Unreachable("the reader is closed")
        run = Run(self._objects, self._key, self._etag, offset, offset + length)
        self._beside_runs.add(run)
        try:
            return await run.read(length)
        finally:
            self._beside_runs.discard(run)
            run.close()

    def _new_run(self, start: int, opened: OpenObject | None = None) -> Run:
        return Run(self._objects, self._key, self._etag, start, self.size, opened)
