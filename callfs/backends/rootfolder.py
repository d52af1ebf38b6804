"""
A root folder: locked by one daemon, and marked with an identity.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from callfs.backends.durability import make_folder, replace_durably, sync_folder
from callfs.backends.identity import VERSION, Identity, UnreadableIdentity, format_identity, parse_identity
from callfs.identifiers import new_store_id

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class RootUnusable(Exception):
    """The root folder can't be used; the message is for the operator: what is wrong and what to do."""


class RootInUse(RootUnusable):
    """Another process has locked the root folder."""


class RootFolder:
    """
    The folder below which a node keeps blobs. Its methods block shortly and belong to the start and the end.

    :param path: made when it is missing; its parent must be there.
    :param token_bytes: chance, for a new identity.
    """

    def __init__(self, path: Path, token_bytes: Callable[[int], bytes]) -> None:
        self.path = path
        self._token_bytes = token_bytes
        self._lock_fd: int | None = None

    def lock(self) -> None:
        """
        Make the folder if need be, and take it for this process until :meth:`unlock` or the process's end.

        :raises RootInUse: another process has it; the message names it.
        :raises RootUnusable: no folder, no permission, read-only.
        """
        try:
            self._make()
            self._lock()
        except OSError as error:
            self._refuse(error)

    def unlock(self) -> None:
        """Give the folder free. The lock file stays: unlinking it would let two processes lock two of them."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def identity(self) -> Identity | None:
        """
        What the folder says of itself; ``None``: nothing. Needs no lock.

        :raises RootUnusable: it says something that can't be understood, or can't be read.
        """
        path = self.path / "identity.json"
        try:
            return parse_identity(path.read_bytes())
        except FileNotFoundError:
            return None
        except UnreadableIdentity as error:
            raise RootUnusable(f"{path} {error}.") from error
        except OSError as error:
            self._refuse(error)

    def adopt(self, store_id: str) -> Identity:
        """
        Mark the folder, durably, as one of this store, with a new identity of its own.

        :raises RootUnusable: it can't be written.
        """
        assert self._lock_fd is not None, "lock the folder first"
        identity = Identity(store_id=store_id, root_id=new_store_id(self._token_bytes), version=VERSION)
        try:
            replace_durably(self.path / "identity.json", format_identity(identity))
        except OSError as error:
            self._refuse(error)
        return identity

    def has_blobs(self) -> bool:
        """
        Whether there is anything among the committed blobs or those set aside.

        :raises RootUnusable: it can't be read.
        """
        try:
            shards = [self.path / "aside", *_entries(self.path / "blobs")]
            return any(not shard.is_dir() or _entries(shard) for shard in shards if os.path.lexists(shard))
        except OSError as error:
            self._refuse(error)

    def _make(self) -> None:
        path = str(self.path)
        if make_folder(path):
            sync_folder(os.path.dirname(os.path.abspath(path)))
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def _lock(self) -> None:
        if self._lock_fd is not None:
            return
        fd = os.open(self.path / "lock", _LOCK_FLAGS, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise RootInUse(
                f"The root folder {self.path} is in use by another CallFS process (pid {holder}). "
                "Stop it first, or give this one a root folder of its own."
            ) from error
        except OSError:
            os.close(fd)
            raise
        self._lock_fd = fd

    def _refuse(self, error: OSError) -> NoReturn:
        raise RootUnusable(_explain(self.path, error)) from error


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing when it is missing."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _explain(path: Path, error: OSError) -> str:
    """A message for the operator."""
    if error.errno == errno.ENOENT:
        return f"The root folder {path} can't be made: its parent {path.parent} does not exist. Create it first."
    if error.errno == errno.ENOTDIR:
        return f"The root folder {path} is no folder. Set backend.localfs_root_path to one."
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"No permission to use the root folder {path} ({error.filename}). It must belong to the daemon's user."
        )
    if error.errno == errno.EROFS:
        return f"The root folder {path} is on a read-only file system. Remount it for writing."
    return f"The root folder {path} can't be used: {error.strerror} ({error.filename})."
