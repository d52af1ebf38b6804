"""Where log lines go: a file descriptor that may be gone, or full."""

from __future__ import annotations

import os
from collections import deque
from threading import RLock

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
        # A signal's handler runs on the main thread wherever that is, in the middle of a write too, and may log.
        # What it logs then must neither wait for the lock, which would be for ever, nor come into another line.
        self._lock = RLock()
        self._writing = False
        self._interrupting: deque[bytes] = deque()
        self._rest = b""
        self._lost = 0

    def write(self, text: str) -> None:
        """Write whole lines."""
        line = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._writing:
                self._interrupting.append(line)
                return
            self._writing = True
            try:
                self._write(line)
                while self._interrupting:
                    self._write(self._interrupting.popleft())
            finally:
                self._writing = False

    def _write(self, line: bytes) -> None:
        if not self._flush():
            self._lost += 1
            return
        if self._lost:
            self._rest = _NOTICE % self._lost
            self._lost = 0
        self._rest += line
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
