"""
Bytes from one TCP connection to another (splice(2), Linux).

What a node reads from another one on behalf of a client passes through a pipe in the kernel, by reference; to take
it into Python and give it out again costs several times as much.
"""

from __future__ import annotations

import fcntl
import os
import select

from callfs.web.duplicates import Duplicates
from callfs.web.zerocopy import SLICE_BYTES, Sender, Stop, soon

AVAILABLE = hasattr(os, "splice")


async def send_socket(sender: Sender, target: int, source: int, length: int, timeout_seconds: float) -> int:
    """
    Send the next ``length`` bytes that come from ``source``.

    :param target: a socket, non-blocking, to which nobody else writes meanwhile.
    :param source: a socket, non-blocking, from which nobody else reads. Both are duplicated at once: the caller may
        close them whenever it likes.
    :param timeout_seconds: how long ``source`` may be silent.
    :return: bytes sent; fewer than ``length`` where ``source`` ended, failed or was silent before, none where there
        are no descriptors left. Bytes that came and weren't sent are lost then.
    :raises OSError: the connection of ``target`` is gone.
    """
    try:
        flow = _SocketFlow(target, source)
    except OSError:
        return 0
    return await sender.send(flow, length, timeout_seconds)


class _SocketFlow:
    """
    Two sockets and the pipe between them.

    :raises OSError: there are no descriptors left.
    """

    def __init__(self, target: int, source: int) -> None:
        self.ends = Duplicates((target, source))
        self.target, self.source = self.ends.descriptors
        try:
            self._outlet, self._inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self.ends.give_up()
            raise
        self.ends.add((self._outlet, self._inlet))
        self._held = 0
        _widen(self._inlet)

    def move(self, length: int) -> tuple[int, Stop]:
        """Pass on what comes, for as long as it comes and is taken."""
        sent = 0
        while sent < length:
            if not self._held and (stop := self._fill(length - sent)) is not None:
                return sent, stop
            try:
                count = os.splice(self._outlet, self.target, self._held, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                if not soon(self.target, select.POLLOUT):
                    return sent, Stop.NOTHING_TAKEN
                continue
            self._held -= count
            sent += count
        return sent, Stop.TURN_OVER

    def _fill(self, length: int) -> Stop | None:
        """Bring something into the empty pipe; never more than is wanted: it could not be put back."""
        while True:
            try:
                self._held = os.splice(
                    self.source, self._inlet, min(length, SLICE_BYTES), flags=os.SPLICE_F_NONBLOCK
                )
            except BlockingIOError:
                if not soon(self.source, select.POLLIN):
                    return Stop.NOTHING_CAME
            except OSError:
                return Stop.ENDED
            else:
                return None if self._held else Stop.ENDED


def _widen(pipe: int) -> None:
    """A wider pipe needs fewer calls; where the system doesn't grant it, the one there is will do."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, SLICE_BYTES)
    except OSError:
        return
