"""Opens SQLite stores for trial's test cases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.sqlite import SqliteStore
from tests.support.commands import Commands

TMPFS = Path("/dev/shm")


class SqliteBinding:
    """
    To be mixed, first, with trial's ``TestCase``: stores in folders that go away with the test.

    :cvar base_folder: where the folders are made; the system's temporary folder when ``None``.
    """

    base_folder: Path | None = None
    timeout = 100
    database: Path | None = None
    _pool: ThreadPool | None = None
    addCleanup: Callable[..., None]

    def pool(self) -> ThreadPool:
        """Threads that end after everything else of the test."""
        if self._pool is None:
            self._pool = ThreadPool(0, 4)
            self._pool.start()
            self.addCleanup(self._pool.stop)
        return self._pool

    def folder(self) -> Path:
        """A new folder."""
        folder = Path(tempfile.mkdtemp(prefix="callfs-metadata-", dir=self.base_folder))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def sqlite_store(self, path: Path, **options: Any) -> SqliteStore:
        """A store that isn't open yet."""
        given: dict[str, Any] = {"token_bytes": Commands().token_bytes, "op_timeout_seconds": 20.0}
        return SqliteStore(path, reactor=reactor, pool=self.pool(), **(given | options))

    async def opened(self, path: Path, **options: Any) -> SqliteStore:
        """A store that is closed with the test."""
        store = self.sqlite_store(path, **options)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def open_store(self) -> IMetadataStore:
        """An empty store in a folder of its own."""
        path = self.folder() / "callfs.sqlite3"
        if self.database is None:
            self.database = path
        return await self.opened(path)

    async def open_other(self) -> IMetadataStore:
        """A reader beside the first store."""
        assert self.database is not None
        return await self.opened(self.database, read_only=True)


def in_turn(clock_step: Callable[[], None]) -> Deferred[None]:
    """Let the reactor go round once, then call."""
    deferred: Deferred[None] = Deferred()
    reactor.callLater(0, deferred.callback, None)
    return deferred.addCallback(lambda _: clock_step())
