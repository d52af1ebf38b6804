"""
A staged file on the local disk, as threads see it: one job at a time, and nothing here knows of Deferreds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence

from callfs.backends.blobfolders import BlobFolders
from callfs.backends.durability import FolderSync
from callfs.backends.interfaces import CommittedBlob, Hasher
from callfs.backends.linuxcalls import Allocator
from callfs.backends.space import SpaceGuard
from callfs.errors import InsufficientStorage

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_RESERVED_FROM_BYTES = 1024 * 1024  # less is written as soon as the file is there, which finds its room as well
_PROMISE_STEP_BYTES = 8 * 1024 * 1024
_WRITE_OUT_STEP_BYTES = 8 * 1024 * 1024
_MAX_VECTORS = 512  # IOV_MAX is 1024

Reached = Callable[[str], None]
"""Told of each step of a write, in its thread; tests kill the process there."""


class Disk:
    """What the staged files of one root share."""

    def __init__(
        self,
        folders: BlobFolders,
        folder_sync: FolderSync,
        space: SpaceGuard,
        allocator: Allocator,
        reached: Reached,
    ) -> None:
        self.folders = folders
        self.folder_sync = folder_sync
        self.space = space
        self.reached = reached
        self.allocator = allocator


class StagedFile:
    """
    The file of a blob under way.

    :param declared_size: bytes that will come, or ``None``.
    :param hashers: fed with the content besides SHA-256.
    """

    def __init__(self, disk: Disk, blob_id: str, declared_size: int | None, hashers: Sequence[Hasher]) -> None:
        self._disk = disk
        self._blob_id = blob_id
        self._declared_size = declared_size or 0
        self._sha256 = hashlib.sha256()
        self._hashers: tuple[Hasher, ...] = (self._sha256, *hashers)
        self._path = disk.folders.staged_path(blob_id)
        self._fd: int | None = None
        self._size = 0
        self._reserved = 0
        self._allowed = 0
        self._promised = 0
        self._written_out = 0

    def create(self) -> None:
        """
        Make the file, and its room on the disk when the size is declared.

        :raises callfs.errors.InsufficientStorage: no room.
        :raises OSError: the disk fails.
        """
        self._disk.folders.make()
        if self._declared_size:
            self._promise(self._declared_size)
        self._fd = os.open(self._path, _CREATE_FLAGS, 0o600)
        if os.fstat(self._fd).st_mode & 0o777 != 0o600:
            os.fchmod(self._fd, 0o600)
        large = self._declared_size >= _RESERVED_FROM_BYTES
        if large and self._disk.allocator.reserve(self._fd, self._declared_size):
            self._reserved = self._declared_size
            self._fulfil(self._promised)
        self._disk.reached("blob.staged")

    def append(self, chunks: Sequence[bytes]) -> None:
        """
        Write and hash; makes the file when it isn't there yet.

        :raises callfs.errors.InsufficientStorage: no room.
        :raises OSError: the disk fails; what was written then is unknown.
        """
        if self._fd is None:
            self.create()
        length = sum(map(len, chunks))
        missing = self._size + length - self._allowed
        if missing > 0:
            self._promise_more(missing)
        self._write(chunks)
        self._size += length
        self._fulfil(min(self._promised, length))
        for chunk in chunks:
            for hasher in self._hashers:
                hasher.update(chunk)
        self._start_write_out()

    def commit(self, chunks: Sequence[bytes]) -> CommittedBlob:
        """
        Write the last bytes, then make the file durable under its final name; on failure nothing is left.

        An fsync that failed isn't tried again: the kernel may have dropped the pages and would report success.
        """
        try:
            self.append(chunks)
            self._disk.reached("blob.written")
            self._publish()
        except BaseException:
            with contextlib.suppress(OSError):
                self.discard()
            raise
        self._disk.reached("blob.committed")
        return CommittedBlob(size=self._size, sha256=self._sha256.digest())

    def discard(self) -> None:
        """
        Close and unlink.

        :raises OSError: the file can't be unlinked; the next start removes it.
        """
        self._fulfil(self._promised)
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.close(fd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _publish(self) -> None:
        """fsync, rename, fsync of the folder."""
        assert self._fd is not None
        if self._reserved > self._size:
            os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)
        self._disk.reached("blob.fsynced")
        folders = self._disk.folders
        if os.path.lexists(folders.blob_path(self._blob_id)):
            raise FileExistsError(17, "a blob of this id exists", self._blob_id)
        self._path = folders.take_in(self._path, self._blob_id)
        self._disk.reached("blob.renamed")
        # The folder that the name came from needs no fsync: should a crash bring the old name back beside
        # the new one, removing it at the next start leaves the blob.
        self._disk.folder_sync.sync(folders.shard_path(self._blob_id))
        fd, self._fd = self._fd, None
        self._fulfil(self._promised)
        with contextlib.suppress(OSError):  # everything is on stable storage
            os.close(fd)

    def _write(self, chunks: Sequence[bytes]) -> None:
        """All of the chunks at the end of the file; a short write goes on where it stopped."""
        assert self._fd is not None
        rest = [memoryview(chunk) for chunk in chunks if chunk]
        while rest:
            written = os.writev(self._fd, rest[:_MAX_VECTORS])
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]

    def _promise(self, wanted_bytes: int) -> None:
        """Be allowed to write so many bytes more."""
        self._disk.space.promise(wanted_bytes)
        self._promised += wanted_bytes
        self._allowed += wanted_bytes

    def _promise_more(self, missing: int) -> None:
        """The same for a size that nobody declared: a step ahead where there is so much, so as to ask seldom."""
        if self._size and missing < _PROMISE_STEP_BYTES:
            with contextlib.suppress(InsufficientStorage):
                return self._promise(_PROMISE_STEP_BYTES)
        return self._promise(missing)

    def _fulfil(self, promised_bytes: int) -> None:
        """So many promised bytes are on the disk, or won't come."""
        self._disk.space.fulfil(promised_bytes)
        self._promised -= promised_bytes

    def _start_write_out(self) -> None:
        """Start the disk on what has gathered, so that the fsync at the end is short."""
        waiting = self._size - self._written_out
        if waiting >= _WRITE_OUT_STEP_BYTES and self._fd is not None:
            self._disk.allocator.start_write_out(self._fd, self._written_out, waiting)
            self._written_out = self._size
