"""
Frames between raft peers: four bytes of length, big-endian, then so many bytes.

A frame that is over the limit is refused when its length is known, before a byte of it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""The longest frame, without its length, that a peer that proved itself may send."""

_LENGTH_BYTES = 4


class FrameTooLong(Exception):
    """The other side announced a frame over the limit."""


def framed(body: bytes) -> bytes:
    """
    A frame.

    :raises FrameTooLong: nobody would read it.
    """
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLong(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class FrameBuffer:
    """
    Bytes as they come in, until they are frames.

    :param limit_bytes: the longest frame accepted; it may be changed between two frames.
    """

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._kept = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Take bytes and give out the frames that they complete, one at a time, so that what a frame changes (the
        limit) holds for the next.

        :raises FrameTooLong: nothing that follows can be understood; the connection is to be closed.
        """
        self._kept += data
        start = 0
        try:
            while (body_start := start + _LENGTH_BYTES) <= len(self._kept):
                length = int.from_bytes(self._kept[start:body_start], "big")
                if length > self.limit_bytes:
                    raise FrameTooLong(f"a frame of {length} bytes is over the limit of {self.limit_bytes}")
                if body_start + length > len(self._kept):
                    return
                start = body_start + length
                yield bytes(self._kept[body_start:start])
        finally:
            del self._kept[:start]
