"""
The free-space guard: uploads are refused before the disk falls below its reserve.
"""

from __future__ import annotations

import os
import threading

from callfs.errors import InsufficientStorage

_COMFORT_BYTES = 256 * 1024 * 1024


def no_room() -> InsufficientStorage:
    """What a client is told when the disk is full."""
    return InsufficientStorage("There is not enough free space to store this content.")


class SpaceGuard:
    """
    Room on a file system, for threads.

    *Promised* are bytes that uploads under way may still write and that the file system doesn't count as used
    yet; so two uploads can't both be promised the same room.

    :param path: a folder on the file system.
    :param min_free_bytes: what stays free for the operator and the metadata.
    """

    def __init__(self, path: str, min_free_bytes: int) -> None:
        self._path = path
        self._min_free_bytes = min_free_bytes
        self._lock = threading.Lock()
        self._promised = 0
        self._seen_bytes = 0

    def looks_roomy(self, wanted_bytes: int) -> bool:
        """A guess without a system call, from what was seen last: room for this and plenty more."""
        return self._seen_bytes - self._promised - wanted_bytes > _COMFORT_BYTES

    def promise(self, wanted_bytes: int) -> None:
        """
        Set room aside until :meth:`fulfil`.

        :raises callfs.errors.InsufficientStorage: there isn't so much above the reserve.
        """
        found = os.statvfs(self._path)
        with self._lock:
            self._seen_bytes = found.f_bavail * found.f_frsize - self._min_free_bytes
            if self._seen_bytes - self._promised < wanted_bytes:
                raise no_room()
            self._promised += wanted_bytes

    def fulfil(self, promised_bytes: int) -> None:
        """These bytes are written or allocated now, or will never come."""
        with self._lock:
            self._promised -= promised_bytes
