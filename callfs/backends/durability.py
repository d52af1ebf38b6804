"""
Durable names: fsync of folders, shared by simultaneous writers.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sync_folder(path: str) -> None:
    """
    Bring a folder's entries to stable storage.

    :raises OSError: it can't be opened, is a symlink, or the disk fails.
    """
    fd = os.open(path, _FOLDER_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: str) -> bool:
    """
    Make a folder that only its owner may enter, whatever the umask; an existing one is kept as it is.

    :return: whether it is new; then its parent wants a :func:`sync_folder`.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    os.chmod(path, 0o700)
    return True


def replace_durably(path: Path, data: bytes) -> None:
    """
    Write a small file so that a crash leaves the old or the new content, and the new one when this returns.

    :raises OSError: as the disk says.
    """
    temporary = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(data)
        file.flush()
        os.fsync(fd)
    os.rename(temporary, path)
    sync_folder(str(path.parent))


class _Round:
    """One fsync of a folder, and who waits for it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: OSError | None = None


class _Folder:
    """A folder's rounds: at most one runs, at most one gathers."""

    def __init__(self) -> None:
        self.running = threading.Lock()
        self.gathering: _Round | None = None


class FolderSync:
    """
    Batched fsync of folders, for threads.

    An fsync serves every change that was made before it began. So while one is running, all who come gather
    for the next. What is remembered of a folder stays; a backend has about a thousand.

    :param sync_one: brings one folder to stable storage.
    """

    def __init__(self, sync_one: Callable[[str], None] = sync_folder) -> None:
        self._sync_one = sync_one
        self._lock = threading.Lock()
        self._folders: dict[str, _Folder] = {}

    def sync(self, path: str) -> None:
        """
        Return when all that was changed in the folder before this call is on stable storage.

        :raises OSError: the round that this call was part of failed.
        """
        with self._lock:
            folder = self._folders.setdefault(path, _Folder())
            joined = folder.gathering
            if joined is None:
                folder.gathering = current = _Round()
        if joined is None:
            self._lead(path, folder, current)
        else:
            joined.ended.wait()
            current = joined
        if current.error is not None:
            raise OSError(current.error.errno, current.error.strerror, path)

    def _lead(self, path: str, folder: _Folder, current: _Round) -> None:
        """Wait for the round before, close the gathering, then fsync for all in it."""
        with folder.running:
            with self._lock:
                folder.gathering = None
            try:
                self._sync_one(path)
            except OSError as error:
                current.error = error
            finally:
                current.ended.set()
