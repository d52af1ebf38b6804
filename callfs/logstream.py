"""Where log lines go: a file descriptor that may be gone, or full."""

from __future__ import annotations

import os
from threading import Lock

# JSON, so that in a log of JSON every line stays an object; people can read it, too.
_NOTICE = (
    b'{"level":"warn","namespace":"callfs.logstream","message":"the output was full: events lost","lost":%d}\n'
)


class LogStream:
    """
    Writes lines to a file descriptor, from any thread, and never raises.

    A pipe whose reader is gone takes nothing more. One that is full and doesn't block takes no new line, instead of
    holding up the daemon; as soon as there is room a line says how many are missing. A line is written whole, its
    rest first when only a part of it found room.

    :param fd: stays open; the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = Lock()
        self._rest = b""
        self._lost = 0

    def write(self, text: str) -> None:
        """Write whole lines."""
        with self._lock:
            if not self._flush():
                self._lost += 1
                return
            if self._lost:
                self._rest = _NOTICE % self._lost
                self._lost = 0
            self._rest += text.encode("utf-8", "backslashreplace")
            self._flush()

    def _flush(self) -> bool:
        """Whether all that was waiting is written."""
        while self._rest:
            try:
                written = os.write(self._fd, self._rest)
            except OSError:
                return False
            self._rest = self._rest[written:]
        return True
