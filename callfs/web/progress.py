"""
How much of what was sent the other end has taken.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

_TCP_INFO_BYTES = 136
_BYTES_ACKED_OFFSET = 120
_UNSENT_UNITS = struct.Struct("i")


def acknowledged(connection: socket.socket) -> int | None:
    """
    A number that changes whenever the peer takes data: what tells a slow peer from a stalled one.

    A socket's buffer of several MiB may stay too full for another write for minutes while a slow peer makes good
    progress on it, so neither writability nor the size of a buffer in this process says whether data moves.

    :return: bytes acknowledged so far (``tcpi_bytes_acked``, Linux 4.1); on a socket that isn't TCP what still
        waits in the kernel; ``None`` when the socket is closed.
    """
    try:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(information) >= _BYTES_ACKED_OFFSET + 8:
            return int.from_bytes(information[_BYTES_ACKED_OFFSET : _BYTES_ACKED_OFFSET + 8], "little")
    except OSError:
        pass
    return _waiting(connection)


def _waiting(connection: socket.socket) -> int | None:
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, _UNSENT_UNITS.pack(0))
    except (OSError, ValueError):
        return None
    waiting: int = _UNSENT_UNITS.unpack(answer)[0]
    return waiting
