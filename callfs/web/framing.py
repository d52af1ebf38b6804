"""
Where the body of an HTTP/1 request ends (RFC 9112, sections 6 and 7.1).
"""

from __future__ import annotations

import enum
import re
from typing import Protocol

from callfs.errors import BadRequest

_MAX_CHUNK_LINE_BYTES = 1024
_MAX_TRAILER_BYTES = 8192
# Blanks before the semicolon are in the grammar, but not every parser takes them, and nobody sends them.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
_CRLF = b"\r\n"


class BodyDecoder(Protocol):
    """Takes a body out of the bytes of a connection."""

    complete: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Take more of the connection.

        :return: content of the body, and what follows the body once it is complete.
        :raises callfs.errors.BadRequest: the framing is broken; nothing more can be read from this connection.
        """


class FixedLength:
    """A body with ``Content-Length``."""

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.complete = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`BodyDecoder`."""
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            return data, b""
        content, rest = data[: self._remaining], data[self._remaining :]
        self._remaining = 0
        self.complete = True
        return content, rest


class _Expect(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()


class Chunked:
    """
    A body in chunks. Chunk extensions and trailers are read past.

    =========  ======================  =====================================
    expecting  what comes              then
    =========  ======================  =====================================
    SIZE       a size above 0          DATA
    SIZE       0                       TRAILER
    DATA       as many bytes           DATA_END
    DATA_END   CR LF                   SIZE
    TRAILER    a header line           TRAILER
    TRAILER    CR LF                   complete
    any        anything else           refused
    =========  ======================  =====================================
    """

    def __init__(self) -> None:
        self.complete = False
        self._expect = _Expect.SIZE
        self._remaining = 0
        self._line = b""
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """See :class:`BodyDecoder`."""
        pieces: list[bytes] = []
        position = 0
        while position < len(data) and not self.complete:
            if self._expect is _Expect.DATA:
                piece = data[position : position + self._remaining]
                pieces.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if self._remaining == 0:
                    self._expect = _Expect.DATA_END
            elif self._expect is _Expect.SIZE and not self._line:
                position = self._take_line(data, self._take_chunks(data, position, pieces))
            else:
                position = self._take_line(data, position)
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), data[position:] if self.complete else b""

    def _take_chunks(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """
        Take the chunks that are there whole; where the rest begins.

        It is the same grammar as line by line, in a fraction of the time: chunks of one byte each are the dearest
        that a client can send.
        """
        while (match := _CHUNK_LINE.match(data, position)) is not None:
            start = match.end()
            end = start + int(match[1], 16)
            too_long = start - position > _MAX_CHUNK_LINE_BYTES
            if end == start or too_long or not data.startswith(_CRLF, end):
                break
            pieces.append(data[start:end])
            position = end + len(_CRLF)
        return position

    def _take_line(self, data: bytes, position: int) -> int:
        """Take a line, or what there is of it; where the rest begins."""
        end = data.find(b"\n", position) + 1
        self._line += data[position : end or len(data)]
        if self._expect is _Expect.DATA_END and not _CRLF.startswith(self._line):
            raise BadRequest("the chunked body is malformed: a chunk is longer than its size")
        if len(self._line) > _MAX_CHUNK_LINE_BYTES:
            raise BadRequest("the chunked body is malformed: a line in it is too long")
        if not end:
            return len(data)
        line, self._line = self._line, b""
        self._line_received(line)
        return end

    def _line_received(self, line: bytes) -> None:
        if self._expect is _Expect.SIZE:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise BadRequest("the chunked body is malformed: bad chunk size")
            self._remaining = int(match[1], 16)
            self._expect = _Expect.DATA if self._remaining else _Expect.TRAILER
        elif self._expect is _Expect.DATA_END:
            self._expect = _Expect.SIZE
        elif line == _CRLF:
            self.complete = True
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES or _TRAILER_LINE.fullmatch(line) is None:
                raise BadRequest("the chunked body is malformed: bad trailer")


def decoder(length: int | None) -> BodyDecoder:
    """The decoder for a body of ``length`` bytes, or in chunks when that is ``None``."""
    return Chunked() if length is None else FixedLength(length)
