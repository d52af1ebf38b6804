"""Copies of the replicated state, for nodes that are too far behind to get it from the log."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.cluster.interfaces import ISnapshot, SnapshotMeta
from callfs.identifiers import TokenBytes
from callfs.metadata.replicated_file import made_durably, recorded, synchronised
from callfs.metadata.sqlite_file import DatabaseFile

InThread = Callable[[Callable[[], bytes]], Deferred[bytes]]
"""Calls something that blocks in a thread."""

_UNFINISHED = ".part"
_PIECE_BYTES = 1 << 20


@implementer(ISnapshot)
class SnapshotFile:
    """
    A copy in a file, which may lose its name while it is open.

    :param in_thread: does what blocks.
    """

    def __init__(self, path: Path, meta: SnapshotMeta, in_thread: InThread) -> None:
        self.meta = meta
        self._in_thread = in_thread
        self._reading = 0
        self._closed = False
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self._descriptor).st_size
            self.sha256 = self._digest()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for offset in range(0, self.size, _PIECE_BYTES):
            digest.update(os.pread(self._descriptor, _PIECE_BYTES, offset))
        return digest.digest()

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See :meth:`ISnapshot.read`."""
        if self._closed:
            return fail(ValueError("the copy is closed"))
        self._reading += 1
        return self._in_thread(lambda: os.pread(self._descriptor, size, offset)).addBoth(self._has_read)

    def _has_read(self, result: bytes | Failure) -> bytes | Failure:
        self._reading -= 1
        self._close_if_idle()
        return result

    def close(self) -> Deferred[None]:
        """See :meth:`ISnapshot.close`. What is being read is read to its end."""
        if not self._closed:
            self._closed = True
            self._close_if_idle()
        return succeed(None)

    def _close_if_idle(self) -> None:
        """Not while a thread reads: the number of a closed descriptor may be another file's at once."""
        if self._closed and not self._reading:
            os.close(self._descriptor)


class SnapshotFolder:
    """
    The folder of the copies; the newest ones are kept.

    :param retained: how many.
    """

    def __init__(self, folder: Path, token_bytes: TokenBytes, retained: int) -> None:
        self._folder = folder
        self._token_bytes = token_bytes
        self._retained = retained

    def clean(self) -> None:
        """Remove what was left unfinished; nothing is being made meanwhile."""
        for path in self._folder.glob(f"*{_UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def make(self, file: DatabaseFile, in_thread: InThread) -> ISnapshot:
        """
        Copy a database as it is at one moment; blocks.

        :raises sqlite3.Error: it couldn't be read, or the copy not be written.
        :raises OSError: the same.
        """
        made_durably(self._folder)
        unfinished = self._folder / f"{self._token_bytes(8).hex()}{_UNFINISHED}"
        try:
            meta = self._copied(file, unfinished)
            path = self._folder / f"{meta.index:020}-{meta.term}.sqlite3"
            os.replace(unfinished, path)
            synchronised(self._folder)
            snapshot = SnapshotFile(path, meta, in_thread)
        except BaseException:
            self.clean()
            raise
        self._remove_old()
        return snapshot

    def _copied(self, file: DatabaseFile, unfinished: Path) -> SnapshotMeta:
        """In one step of the backup API: no commit of the writer makes it begin anew."""
        source: Any = file.reader(may_wait=True)
        target = sqlite3.connect(unfinished, isolation_level=None)
        try:
            # Nobody needs it before it is whole, and then it is synchronised.
            target.execute("PRAGMA synchronous = OFF")
            target.execute("PRAGMA journal_mode = OFF").fetchall()
            source.backup(target, pages=-1)
            # Without a write-ahead log of its own: the one file is all of it.
            target.execute("PRAGMA journal_mode = DELETE").fetchall()
            meta = recorded(target)
        finally:
            target.close()
            source.close()
        synchronised(unfinished)
        return meta

    def _remove_old(self) -> None:
        copies = sorted(self._folder.glob("*.sqlite3"))
        for path in copies[: max(0, len(copies) - self._retained)]:
            path.unlink(missing_ok=True)
