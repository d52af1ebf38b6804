"""
An open blob on the local disk.
"""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from callfs.backends.faults import read_fault
from callfs.backends.interfaces import IBlobReader
from callfs.backends.jobs import Jobs
from callfs.deferreds import returns_deferred, shielded

INLINE_BYTES = 256 * 1024


@implementer(IBlobReader)
class LocalBlobReader:
    """
    Reads from a descriptor: what is in the page cache at once, the rest in a thread.

    :param fd: now the reader's own.
    :param inline: whether to try the page cache (``preadv2`` with ``RWF_NOWAIT``, Linux) before a thread.
    """

    def __init__(self, blob_id: str, fd: int, size: int, jobs: Jobs, inline: bool = True) -> None:
        self.size = size
        self._blob_id = blob_id
        self._fd = fd
        self._jobs = jobs
        self._users = 0
        self._closed = False
        self._inline = inline and hasattr(os, "preadv") and hasattr(os, "RWF_NOWAIT")

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :meth:`IBlobReader.read`."""
        if self._closed:
            return fail(ValueError("the reader is closed"))
        length = max(0, min(length, self.size - offset))
        cached = self._read_cached(offset, length) if self._inline and length <= INLINE_BYTES else b""
        if len(cached) == length:
            return succeed(cached)
        return shielded(self._read(offset, length, cached))

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`."""
        return None if self._closed else self._fd

    def close(self) -> None:
        """See :meth:`IBlobReader.close`. The descriptor goes with the last read: its number could be used again."""
        if not self._closed:
            self._closed = True
            self._close_unused()

    def _close_unused(self) -> None:
        if self._closed and self._users == 0:
            os.close(self._fd)

    def _read_cached(self, offset: int, length: int) -> bytes:
        """What the page cache has of the beginning of this range."""
        buffer = bytearray(length)
        try:
            got = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            self._inline = False  # the file system can't, or the disk fails: the thread tells
            return b""
        return bytes(memoryview(buffer)[:got])

    @returns_deferred
    async def _read(self, offset: int, length: int, head: bytes) -> bytes:
        self._users += 1
        try:
            return await self._jobs.run(self._read_all, offset, length, head)
        except OSError as error:
            raise read_fault(error, "read", self._blob_id) from error
        finally:
            self._users -= 1
            self._close_unused()

    def _read_all(self, offset: int, length: int, head: bytes) -> bytes:
        """In a thread: all of the range, ``head`` being there; less only where the file ends."""
        pieces = [head] if head else []
        got = len(head)
        while got < length:
            piece = os.pread(self._fd, length - got, offset + got)
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
