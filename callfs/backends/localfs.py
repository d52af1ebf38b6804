"""
Blobs on the local disk.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from callfs.backends.blobfolders import BlobFolders
from callfs.backends.durability import FolderSync
from callfs.backends.faults import read_fault, write_fault
from callfs.backends.interfaces import BlobMissing, BlobStat, Hasher, IBlobBackend, IBlobReader, IStagedBlob
from callfs.backends.jobs import Jobs, handed_over
from callfs.backends.linuxcalls import READ_FLAGS, Allocator, CachedOpener
from callfs.backends.localreader import LocalBlobReader
from callfs.backends.space import SpaceGuard
from callfs.backends.stagedblob import FLUSH_BYTES, LocalStagedBlob
from callfs.backends.stagedfile import Disk, Reached, StagedFile
from callfs.deferreds import returns_deferred, shielded
from callfs.errors import CallFSError
from callfs.identifiers import is_blob_id

_REMOVE_STEP = 1000

T = TypeVar("T")


def ignore(step: str) -> None:
    """Nobody wants to know of the steps of a write."""


@implementer(IBlobBackend)
class LocalBackend:
    """
    Blobs in the files of a root folder, which :class:`callfs.backends.rootfolder.RootFolder` has locked.

    :param root: exists; only this process writes in it.
    :param pool: where everything that may block runs; started and stopped by whoever made it.
    :param now: the instant, in microseconds.
    :param min_free_bytes: uploads fail before the disk's free space falls below it.
    :param reached: told of each step of a write, in its thread.
    :param linux_calls: whether to use what Linux has beyond POSIX, where the kernel and the file system know it.
    """

    name = "localfs"

    def __init__(
        self,
        root: Path,
        *,
        reactor: IReactorFromThreads,
        pool: ThreadPool,
        now: Callable[[], int],
        min_free_bytes: int,
        reached: Reached = ignore,
        linux_calls: bool = True,
    ) -> None:
        folder_sync = FolderSync()
        self._now = now
        self._jobs = Jobs(reactor, pool)
        self._folder_sync = folder_sync
        self._folders = BlobFolders(root, folder_sync)
        self._space = SpaceGuard(str(root), min_free_bytes)
        self._disk = Disk(self._folders, folder_sync, self._space, Allocator(linux_calls), reached)
        self._opener = CachedOpener(linux_calls)
        self._linux_calls = linux_calls
        self._staged: dict[str, LocalStagedBlob] = {}

    def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> Deferred[IStagedBlob]:
        """See :meth:`IBlobBackend.stage`. A small blob makes its file only when it is committed."""
        if not is_blob_id(blob_id) or blob_id in self._staged:
            return fail(ValueError(f"not an id for a new blob: {blob_id!r}"))
        file = StagedFile(self._disk, blob_id, declared_size, hashers)
        staged = LocalStagedBlob(blob_id, file, self._jobs, lambda: self._forget(blob_id))
        self._staged[blob_id] = staged
        if (declared_size or 0) <= FLUSH_BYTES and self._space.looks_roomy(declared_size or 0):
            return succeed(staged)
        return handed_over(self._prepared(staged), lambda late: late.abort())

    def open(self, blob_id: str) -> Deferred[IBlobReader]:
        """See :meth:`IBlobBackend.open`."""
        if not is_blob_id(blob_id):
            return fail(BlobMissing(blob_id))
        path = self._folders.blob_path(blob_id)
        try:
            fd = self._opener.open(path)
            if fd is not None:
                return succeed(self._reader(blob_id, fd))
        except FileNotFoundError:
            return fail(BlobMissing(blob_id))
        except CallFSError as error:
            return fail(error)
        return handed_over(self._open(blob_id, path), lambda reader: reader.close())

    def delete(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.delete`."""
        return self._change("delete", blob_id, self._delete)

    def set_aside(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.set_aside`; a blob that isn't there is no error."""
        return self._change("set_aside", blob_id, self._set_aside)

    def list_set_aside(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_set_aside`: by id."""
        return self._look("list_set_aside", after, self._folders.list_set_aside, after, limit)

    def put_back(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.put_back`."""
        return self._change("put_back", blob_id, self._put_back)

    def purge_set_aside(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.purge_set_aside`."""
        folder = self._folders.aside
        return shielded(self._remove_old("purge_set_aside", folder, before_at))

    def stat(self, blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`IBlobBackend.stat`."""
        if not is_blob_id(blob_id):
            return fail(BlobMissing(blob_id))
        return self._look("stat", blob_id, self._folders.stat, blob_id)

    def list_blobs(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_blobs`: by the id's last two characters, then by id."""
        return self._look("list_blobs", after, self._folders.list_blobs, after, limit)

    def remove_stale_staged(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.remove_stale_staged`."""
        folder = self._folders.staging
        return shielded(self._remove_old("remove_stale_staged", folder, before_at))

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`IBlobBackend.close`; a commit under way is finished first."""
        while self._staged:
            for staged in list(self._staged.values()):
                await staged.abort()

    def _forget(self, blob_id: str) -> None:
        self._staged.pop(blob_id, None)

    def _reader(self, blob_id: str, fd: int) -> LocalBlobReader:
        """A reader that owns the descriptor."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise read_fault(OSError("not a regular file"), "open", blob_id)
        return LocalBlobReader(blob_id, fd, found.st_size, self._jobs, self._linux_calls)

    @returns_deferred
    async def _prepared(self, staged: LocalStagedBlob) -> IStagedBlob:
        await staged.prepare()
        return staged

    @returns_deferred
    async def _open(self, blob_id: str, path: str) -> IBlobReader:
        fd = await self._look("open", blob_id, os.open, path, READ_FLAGS)
        return self._reader(blob_id, fd)

    @returns_deferred
    async def _look(self, operation: str, blob_id: str, function: Callable[..., T], *args: object) -> T:
        """A job that only reads."""
        try:
            return await self._jobs.run(function, *args)
        except FileNotFoundError as error:
            raise BlobMissing(blob_id) from error
        except OSError as error:
            raise read_fault(error, operation, blob_id) from error

    def _change(self, operation: str, blob_id: str, function: Callable[[str], None]) -> Deferred[None]:
        """A job that changes a committed blob; once begun it goes on to its end."""
        if not is_blob_id(blob_id):
            return succeed(None)
        return shielded(self._write_job(operation, blob_id, function, blob_id))

    @returns_deferred
    async def _write_job(self, operation: str, blob_id: str, function: Callable[..., T], *args: object) -> T:
        try:
            return await self._jobs.run(function, *args)
        except OSError as error:
            raise write_fault(error, operation, blob_id) from error

    def _delete(self, blob_id: str) -> None:
        try:
            os.unlink(self._folders.blob_path(blob_id))
        except FileNotFoundError:
            return
        self._folder_sync.sync(self._folders.shard_path(blob_id))

    def _set_aside(self, blob_id: str) -> None:
        """The time is durable first: should a crash come between, the blob isn't taken for one that waited long."""
        path = self._folders.blob_path(blob_id)
        try:
            self._set_time(path, self._now())
            os.rename(path, self._folders.aside_path(blob_id))
        except FileNotFoundError:
            return
        self._folder_sync.sync(self._folders.aside)
        self._folder_sync.sync(self._folders.shard_path(blob_id))

    def _set_time(self, path: str, at: int) -> None:
        fd = os.open(path, READ_FLAGS)
        try:
            os.utime(fd, ns=(at * 1000, at * 1000))
            os.fsync(fd)
        finally:
            os.close(fd)

    def _put_back(self, blob_id: str) -> None:
        if not os.path.lexists(self._folders.aside_path(blob_id)):
            return
        self._folders.take_in(self._folders.aside_path(blob_id), blob_id)
        self._folder_sync.sync(self._folders.shard_path(blob_id))
        self._folder_sync.sync(self._folders.aside)

    @returns_deferred
    async def _remove_old(self, operation: str, folder: str, before_at: int) -> int:
        """In steps, so that no thread is held for long."""
        removed = 0
        while count := await self._write_job(operation, "", self._remove_step, folder, before_at):
            removed += count
        return removed

    def _remove_step(self, folder: str, before_at: int) -> int:
        """In a thread: unlink some of the old files that no blob of this process is written to."""
        found = self._folders.old_files(folder, before_at)
        old = list(itertools.islice((name for name in found if name not in self._staged), _REMOVE_STEP))
        for blob_id in old:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{blob_id}")
        if old:
            self._folder_sync.sync(folder)
        return len(old)
