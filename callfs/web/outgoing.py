"""
A response on its way out: headers, then the body with back-pressure, and the end of it, good or bad.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred

from callfs.backends.interfaces import HandedOver, IBlobReader, IHandingReader
from callfs.model import ByteRange
from callfs.web.messages import BlobBody, Response, ResponseBody

PIECE_BYTES = 256 * 1024
SMALL_BODY_BYTES = 64 * 1024
"""A body up to this goes out in one write with the headers."""

_RELAYED_BYTES = 4 * 1024 * 1024
"""Below this another connection to the holder, which relaying costs, isn't worth it."""

_WITHOUT_BODY = frozenset((204, 304))


class SourceFailed(Exception):
    """A blob gave fewer bytes than it has: the response can't be completed."""


class ClientGone(Exception):
    """The connection ended under the response."""


class ResponseHead(msgspec.Struct, frozen=True):
    """
    What goes before a body.

    :param length: bytes of the body; ``None`` when that isn't known beforehand.
    :param has_body: whether the body is sent at all (RFC 9110, section 6.4.1).
    """

    response: Response
    request_id: str
    length: int | None
    has_body: bool


class ResponseStream(Protocol):
    """The connection as a response sees it. Writing to one that has ended does nothing."""

    def begin(self, head: ResponseHead, first: bytes = b"") -> None:
        """Send the headers, and the first of the body in the same packet."""

    def write(self, data: bytes) -> None:
        """Send more of the body."""

    def drained(self) -> Deferred[None] | None:
        """Fires when there is room for more; ``None`` when there is."""

    def send_file(self, descriptor: int, start: int, length: int) -> Deferred[int] | None:
        """
        Send part of a file straight from the kernel.

        :return: fires with the number of bytes sent, fewer than ``length`` at the end of the file; ``None`` where
            the connection can't do that.
        :raises ClientGone: the connection ended.
        """

    def relays(self) -> bool:
        """Whether :meth:`send_socket` can do its work here."""

    def send_socket(self, source: HandedOver, length: int) -> Deferred[int] | None:
        """
        Send what comes from a socket, straight through the kernel.

        :return: fires with the number of bytes sent, fewer than ``length`` when no more came; ``None`` where the
            connection can't do that.
        :raises ClientGone: the connection ended.
        """

    def end(self) -> None:
        """The body is complete."""


def is_bodyless(method: str, response: Response) -> bool:
    """Whether the response has no body, whatever it holds (RFC 9110, section 6.4.1)."""
    return method == "HEAD" or response.status in _WITHOUT_BODY


def head_of(response: Response, request_id: str, method: str) -> ResponseHead:
    """The head that belongs to a response."""
    has_body = not is_bodyless(method, response)
    length = response.content_length
    if length is None:
        length = _length(response.body, has_body)
    return ResponseHead(response, request_id, length, has_body)


def _length(body: ResponseBody, has_body: bool) -> int | None:
    """
    Bytes of the body. Nothing isn't the length of one that is left out: what is announced without a body is the
    length that one would have (RFC 9110, section 8.6).
    """
    if isinstance(body, bytes):
        return len(body) if body or has_body else None
    return body.length if isinstance(body, BlobBody) else None


def send_at_once(stream: ResponseStream, head: ResponseHead) -> bool:
    """Send a response that needs no waiting; whether it was one."""
    body = head.response.body if head.has_body else b""
    if not isinstance(body, bytes) or len(body) > SMALL_BODY_BYTES:
        return False
    stream.begin(head, body)
    stream.end()
    return True


async def send(stream: ResponseStream, head: ResponseHead) -> None:
    """
    Send a response whose body comes piece by piece.

    :raises SourceFailed: the body ended too early; nothing can be told any more when the headers are out.
    """
    body = head.response.body
    if isinstance(body, BlobBody):
        await _send_blob(stream, head, body)
    elif isinstance(body, bytes):
        stream.begin(head, body)
        await _room(stream)
    else:
        await _send_iterator(stream, head, body)
    stream.end()


async def _send_blob(stream: ResponseStream, head: ResponseHead, body: BlobBody) -> None:
    if body.length <= SMALL_BODY_BYTES:
        pieces = [piece if isinstance(piece, bytes) else await _read(body.reader, piece) for piece in body.pieces]
        stream.begin(head, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return
    stream.begin(head)
    for piece in body.pieces:
        if isinstance(piece, bytes):
            stream.write(piece)
        elif piece.length <= SMALL_BODY_BYTES:
            stream.write(await _read(body.reader, piece))
        else:
            await _send_range(stream, body.reader, piece)
        await _room(stream)


async def _send_range(stream: ResponseStream, reader: IBlobReader, piece: ByteRange) -> None:
    descriptor = reader.fileno()
    sending = None if descriptor is None else stream.send_file(descriptor, piece.start, piece.length)
    if sending is None:
        await _copy_range(stream, reader, await _relayed(stream, reader, piece))
    elif await sending != piece.length:
        raise SourceFailed("the file is shorter than its blob")


async def _relayed(stream: ResponseStream, reader: IBlobReader, piece: ByteRange) -> ByteRange:
    """
    Let the kernel pass on what comes from elsewhere, where it can.

    The beginning goes the ordinary way: it brings the reader to where the range begins, or shows that it can't.

    :return: what is left to be sent; what came no further is read anew.
    """
    if piece.length < _RELAYED_BYTES or not stream.relays() or not IHandingReader.providedBy(reader):
        return piece
    first = ByteRange(piece.start, piece.start + PIECE_BYTES)
    stream.write(await _read(reader, first))
    await _room(stream)
    handed = reader.hand_over(first.end, piece.end - first.end)
    if handed is None:
        return ByteRange(first.end, piece.end)
    stream.write(handed.first)
    await _room(stream)
    position = first.end + len(handed.first)
    sending = stream.send_socket(handed, piece.end - position)
    return ByteRange(position + (await sending if sending is not None else 0), piece.end)


async def _copy_range(stream: ResponseStream, reader: IBlobReader, piece: ByteRange) -> None:
    """Read the next piece while the one before is on its way."""
    position = piece.start
    data = b""
    while position < piece.end or data:
        if data:
            stream.write(data)
        length = min(PIECE_BYTES, piece.end - position)
        data = await _read(reader, ByteRange(position, position + length)) if length else b""
        position += length
        await _room(stream)


async def _send_iterator(stream: ResponseStream, head: ResponseHead, body: AsyncIterator[bytes]) -> None:
    remaining = head.length
    begun = False
    async for data in body:
        if remaining is not None:
            remaining -= len(data)
            if remaining < 0:
                raise SourceFailed("the body is longer than announced")
        if begun:
            stream.write(data)
        else:
            begun = True
            stream.begin(head, data)
        await _room(stream)
    if remaining:
        raise SourceFailed("the body is shorter than announced")
    if not begun:
        stream.begin(head)


async def _room(stream: ResponseStream) -> None:
    waiting = stream.drained()
    if waiting is not None:
        await waiting


async def _read(reader: IBlobReader, piece: ByteRange) -> bytes:
    data = await reader.read(piece.start, piece.length)
    if len(data) != piece.length:
        raise SourceFailed("the blob is shorter than its size")
    return data


async def release(response: Response) -> None:
    """Free what a response's body holds, sent or not. Never fails."""
    body: Any = response.body
    if isinstance(body, BlobBody):
        body.reader.close()
    elif not isinstance(body, bytes):
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()
