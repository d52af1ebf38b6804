"""An open blob on a peer."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.web.iweb import IResponse
from zope.interface import implementer

from callfs.backends.interfaces import BlobMissing, HandedOver, IHandingReader
from callfs.backends.peeranswers import header
from callfs.backends.peercalls import BlobExists, PeerCalls
from callfs.backends.peerfaults import Fault
from callfs.backends.peerstream import PeerStream, StreamEnded, StreamSilent
from callfs.deferreds import returns_deferred
from callfs.errors import PeerUnavailable

_SKIPPED_BYTES = 1024 * 1024
"""To pass over so much costs less than another request."""


def stream_of(calls: PeerCalls, response: IResponse, position: int, length: int) -> PeerStream:
    """
    The body of an answer.

    :param position: where in the blob it begins.
    :param length: how long it has to be.
    :raises callfs.errors.PeerUnavailable: it isn't.
    """
    if response.length != length:
        calls.abandon(response)
        raise calls.unusable(f"{response.length} bytes where {length} were expected")
    stream = PeerStream(position, length, calls.context.clock, calls.context.timeout_seconds)
    response.deliverBody(stream)
    return stream


class _HandedOver:
    """
    A stream whose bytes somebody else takes from its connection.

    :param descriptor: the connection's socket once more: ours, because the connection may end at any time and the
        number of its own socket then be used again.
    :param expected: which bytes of the blob it was to bring.
    """

    def __init__(self, stream: PeerStream, descriptor: int, expected: range) -> None:
        self.expected = expected
        self._stream = stream
        self._descriptor = descriptor

    def stop(self) -> None:
        """End the connection; once."""
        os.close(self._descriptor)
        self._stream.stop()


@implementer(IHandingReader)
class PeerReader:
    """
    Reads one after the other come out of one answer; a read elsewhere begins another one.

    While the first answer lasts, the peer keeps the blob open. So a read that goes on, or goes forwards, finds its
    bytes even when the blob is deleted meanwhile; one that goes back may not.

    :param path: of the blob's URL.
    :param stream: the blob from its beginning.
    """

    def __init__(self, calls: PeerCalls, path: str, size: int, stream: PeerStream) -> None:
        self.size = size
        self._calls = calls
        self._path = path
        self._stream: PeerStream | None = stream
        self._handed_over: _HandedOver | None = None
        self._lock = DeferredLock()
        self._closed = False

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :meth:`IBlobReader.read`."""
        if self._closed:
            return fail(_closed())
        length = max(0, min(length, self.size - offset))
        stream = self._stream
        if not length:
            return succeed(b"")
        if not self._lock.locked and stream is not None and stream.position == offset and stream.has(length):
            return succeed(stream.take_now(length))
        return self._read(offset, length)

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`: the file is elsewhere."""
        return None

    def hand_over(self, offset: int, length: int) -> HandedOver | None:
        """See :meth:`IHandingReader.hand_over`."""
        stream = self._stream
        if self._closed or self._lock.locked or stream is None or stream.position != offset:
            return None
        if not stream.flows or stream.buffered >= length:
            return None
        descriptor = self._calls.context.client.socket_paused_by(stream.pause)
        if descriptor is None:
            stream.take_now(0)
            return None
        first = stream.give_all()
        expected = range(offset + len(first), offset + length)
        self._stream, self._handed_over = None, _HandedOver(stream, descriptor, expected)
        return HandedOver(first, descriptor, self._calls.context.timeout_seconds)

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        if not self._closed:
            self._closed = True
            self._drop()

    @returns_deferred
    async def _read(self, offset: int, length: int) -> bytes:
        await self._lock.acquire()
        try:
            if self._closed:
                raise _closed()
            if self._handed_over is not None:
                self._take_back(self._handed_over, offset)
            return await self._all_of(offset, length)
        except BaseException:
            # Where the stream stands isn't known any more.
            self._drop()
            raise
        finally:
            self._lock.release()

    def _take_back(self, handed_over: _HandedOver, offset: int) -> None:
        """
        Who reads what the connection that was handed over should have brought wasn't content with it. That isn't
        held against the node: a client that reads slowly makes it wait, whose patience has an end. Whether it is
        still there the next request shows.
        """
        self._drop()
        if offset in handed_over.expected:
            self._calls.context.observer.peer_failure(self._calls.instance_id, "cut")

    async def _all_of(self, offset: int, length: int) -> bytes:
        stream = await self._stream_at(offset)
        pieces: list[bytes] = []
        end = offset + length
        while offset < end:
            try:
                piece = await self._taken(stream, end - offset)
            except StreamEnded as ended:
                stream = await self._after(ended, offset)
                continue
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _stream_at(self, offset: int) -> PeerStream:
        """A stream that stands at ``offset``: the one there is, if it is there or will be soon, or a new one."""
        stream = self._stream
        if stream is not None and 0 <= offset - stream.position <= _SKIPPED_BYTES:
            return await self._forwarded(stream, offset)
        try:
            return await self._another(offset)
        except BlobMissing:
            if stream is None or offset < stream.position:
                raise self._deleted() from None
        return await self._forwarded(stream, offset)

    async def _forwarded(self, stream: PeerStream, offset: int) -> PeerStream:
        try:
            while stream.position < offset:
                await self._taken(stream, min(offset - stream.position, _SKIPPED_BYTES))
        except StreamEnded as ended:
            return await self._after(ended, offset)
        return stream

    async def _taken(self, stream: PeerStream, most: int) -> bytes:
        try:
            return await stream.take(most)
        except StreamSilent:
            raise self._calls.failure(Fault("timeout", "it stopped in the middle of a blob")) from None

    async def _after(self, ended: StreamEnded, offset: int) -> PeerStream:
        """
        Go on after a cut that was our own doing: a client that reads slowly makes the peer wait, whose patience
        has an end. Any other cut is a fault.
        """
        if self._closed:
            raise _closed()
        if not ended.kept_waiting:
            raise self._calls.failure(Fault("cut", f"in the middle of a blob {ended}"))
        try:
            return await self._another(offset)
        except BlobMissing:
            raise self._deleted() from None

    async def _another(self, offset: int) -> PeerStream:
        """
        Ask for the blob from ``offset`` on. Only then the stream before is let go.

        :raises BlobMissing: the blob is gone.
        """
        try:
            response = await self._calls.ask("read", "GET", self._path, {"Range": f"bytes={offset}-"})
        except BlobExists as error:
            raise self._calls.unusable("a conflict, to a read") from error
        if response.code != 206 or header(response, "Content-Range") != self._range_from(offset):
            self._calls.abandon(response)
            raise self._calls.unusable("another part of the blob than was asked for")
        stream = stream_of(self._calls, response, offset, self.size - offset)
        self._drop()
        if self._closed:
            stream.stop()
            raise _closed()
        self._stream = stream
        return stream

    def _range_from(self, offset: int) -> str:
        return f"bytes {offset}-{self.size - 1}/{self.size}"

    def _deleted(self) -> PeerUnavailable:
        return PeerUnavailable(f"the bytes on the node {self._calls.instance_id} were deleted meanwhile")

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.stop()
        handed_over, self._handed_over = self._handed_over, None
        if handed_over is not None:
            handed_over.stop()


def _closed() -> ValueError:
    return ValueError("the reader is closed")
