"""Opens SQLite stores for trial's test cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor

from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.sqlite import SqliteStore
from tests.metadata.ondisk import OnDisk
from tests.support.commands import Commands

TMPFS = Path("/dev/shm")


class SqliteBinding(OnDisk):
    """To be mixed, first, with trial's ``TestCase``: stores in folders that go away with the test."""

    database: Path | None = None

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
