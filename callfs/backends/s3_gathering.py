"""
The bytes of an upload that aren't sent yet.
"""

from __future__ import annotations

from callfs.backends.s3_request import Chunks

_SMALL_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024


class Gathering:
    """
    Keeps what is written, without copying what is large: many tiny pieces would take many times their size.

    :ivar size: bytes so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self._chunks: list[bytes | memoryview] = []
        self._tail = bytearray()

    def add(self, data: bytes | memoryview) -> None:
        """Take more."""
        self.size += len(data)
        if len(data) < _SMALL_BYTES:
            self._tail += data
            if len(self._tail) >= _PIECE_BYTES:
                self._keep_tail()
        else:
            self._keep_tail()
            self._chunks.append(data)

    def take(self) -> Chunks:
        """Give everything, and begin anew."""
        self._keep_tail()
        chunks, self._chunks, self.size = tuple(self._chunks), [], 0
        return chunks

    def _keep_tail(self) -> None:
        if self._tail:
            self._chunks.append(bytes(self._tail))
            self._tail = bytearray()
