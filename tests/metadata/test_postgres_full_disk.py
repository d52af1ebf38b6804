"""The PostgreSQL store when the disk below the server's tables is full, in earnest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from callfs.errors import InsufficientStorage
from tests.metadata.postgres_binding import PostgresBinding
from tests.support.commands import Commands
from tests.support.mounts import SmallDisk
from tests.support.postgres import PostgresServer

DISK_BYTES = 24 << 20
MOST_FILES = 3000


class FullDiskTests(PostgresBinding, TestCase):
    """A server whose tables are on a small disk of their own, and its log of changes elsewhere."""

    folder: ClassVar[Path]
    disk: ClassVar[SmallDisk]
    small: ClassVar[PostgresServer]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server."""
        cls.folder = Path(tempfile.mkdtemp(prefix="callfs-small-"))
        cls.folder.chmod(0o755)
        cls.disk = SmallDisk(cls.folder, DISK_BYTES)
        cls.small = PostgresServer(disk=cls.disk)
        cls.small.start()
        cls.small.execute(f"CREATE TABLESPACE small LOCATION '{cls.folder}'")

    @classmethod
    def tearDownClass(cls) -> None:
        """End it."""
        cls.small.close()
        cls.disk.close()
        shutil.rmtree(cls.folder)

    def server(self) -> PostgresServer:
        """The server with the small disk."""
        return self.small

    async def test_full_and_free_again(self) -> None:
        """Nothing more fits: that is said, nothing of it is visible, reads go on; with room there is service."""
        self.server().execute("CREATE SCHEMA full_disk")
        store = await self.opened(self.server().dsn(options="-csearch_path=full_disk -cdefault_tablespace=small"))
        make = Commands()
        await store.apply(make.create("/d/before"))
        self.disk.fill()
        numbers = iter(range(MOST_FILES))

        async def write_on() -> None:
            for number in numbers:
                await store.apply(make.create(f"/d/{number:05}"))

        await self.assertFailure(Deferred.fromCoroutine(write_on()), InsufficientStorage)
        written = next(numbers)
        for number in range(20):
            await self.assertFailure(store.apply(make.create(f"/d/full-{number}")), InsufficientStorage)
        assert len(await store.walk("/d", limit=MOST_FILES)) == written
        assert await store.get("/d/full-0") is None
        assert await store.verify() == []
        self.disk.free()
        assert (await store.apply(make.create("/d/after"))).created
        assert (await store.statistics()).files == written + 1
        assert await store.verify() == []
