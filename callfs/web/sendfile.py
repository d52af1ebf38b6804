"""
Files from the page cache to a TCP connection (sendfile(2)).
"""

from __future__ import annotations

import os
import select

from callfs.web.duplicates import Duplicates
from callfs.web.zerocopy import SLICE_BYTES, Sender, Stop, soon


async def send_file(sender: Sender, target: int, source: int, start: int, length: int) -> int:
    """
    Send one stretch of a file.

    :param target: a socket, non-blocking, to which nobody else writes meanwhile. It and ``source`` are duplicated
        at once: the caller may close them whenever it likes.
    :param start: where the stretch begins, in bytes.
    :return: bytes sent; fewer than ``length`` where the file ends before.
    :raises OSError: the connection is gone, the file can't be read, or there are no descriptors left.
    """
    return await sender.send(FileFlow(target, source, start), length)


class FileFlow:
    """
    A file from an offset on, and the socket that it goes to.

    :raises OSError: there are no descriptors left.
    """

    def __init__(self, target: int, source: int, start: int) -> None:
        self.ends = Duplicates((target, source))
        self.target, self.source = self.ends.descriptors
        self._at = start

    def move(self, length: int) -> tuple[int, Stop]:
        """Send until the socket is full and stays so for a moment; blocks on the disk alone."""
        sent = 0
        while sent < length:
            try:
                count = os.sendfile(self.target, self.source, self._at, min(SLICE_BYTES, length - sent))
            except BlockingIOError:
                if not soon(self.target, select.POLLOUT):
                    return sent, Stop.NOTHING_TAKEN
                continue
            if count == 0:
                return sent, Stop.ENDED
            self._at += count
            sent += count
        return sent, Stop.TURN_OVER
