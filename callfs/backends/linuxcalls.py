"""
System calls that Python doesn't wrap. Each has a plain answer for "not here", so that callers work without it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Any

_AT_FDCWD = -100
_SYS_OPENAT2 = 437  # the same number on every architecture but Alpha
_RESOLVE_CACHED = 0x20
_FALLOC_FL_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not block the open
_NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ENODEV})


class _OpenHow(ctypes.Structure):
    """``struct open_how`` of ``openat2(2)``."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def _function(name: str) -> Any:
    """A function of the C library, or ``None``."""
    if not sys.platform.startswith("linux"):
        return None  # type: ignore[unreachable, unused-ignore]
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


class CachedOpener:
    """
    Opens files for reading only if that takes no disk access: ``openat2`` with ``RESOLVE_CACHED`` (Linux 5.12).

    It spares small reads the way through a thread; where the kernel lacks it, every call says "don't know".

    :param enabled: false: as on a kernel that lacks it.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._syscall = _function("syscall") if enabled else None
        self._how = _OpenHow(READ_FLAGS, 0, _RESOLVE_CACHED)

    def open(self, path: str) -> int | None:
        """
        A file descriptor, or ``None`` when it can't be told without the disk.

        :raises FileNotFoundError: the kernel knows that there is no such file.
        """
        if self._syscall is None:
            return None
        how, size = ctypes.byref(self._how), ctypes.sizeof(self._how)
        fd: int = self._syscall(_SYS_OPENAT2, _AT_FDCWD, os.fsencode(path), how, size)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number == errno.ENOENT:
            raise FileNotFoundError(number, os.strerror(number), path)
        if number in _NOT_SUPPORTED:
            self._syscall = None
        return None


class Allocator:
    """
    Reserves room on the disk and starts write-out early, where the system can.

    :param enabled: false: as where it can't.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._fallocate = (_function("fallocate64") or _function("fallocate")) if enabled else None
        self._sync_file_range = _function("sync_file_range") if enabled else None
        for function, rest in ((self._fallocate, []), (self._sync_file_range, [ctypes.c_uint])):
            if function is not None:
                leading = [ctypes.c_int] if rest else [ctypes.c_int, ctypes.c_int]
                function.argtypes = [*leading, ctypes.c_int64, ctypes.c_int64, *rest]

    def reserve(self, fd: int, size: int) -> bool:
        """
        Give the file ``size`` bytes of disk without changing its length (``FALLOC_FL_KEEP_SIZE``).

        ``posix_fallocate`` isn't used: where the file system can't, glibc writes zeros instead.

        :return: whether they are reserved; false where the file system can't.
        :raises OSError: the disk is full, or fails.
        """
        while self._fallocate is not None:
            if self._fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, size) == 0:
                return True
            number = ctypes.get_errno()
            if number in _NOT_SUPPORTED:
                return False
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))
        return False

    def start_write_out(self, fd: int, offset: int, length: int) -> None:
        """Let the kernel begin to write these bytes, so that the final fsync is short. A hint: it never fails."""
        if self._sync_file_range is not None:
            self._sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)
