"""Opening an SQLite store: what is made, what is recognised, and what is refused with which words."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.sqlite_file import APPLICATION_ID, migrations
from callfs.model import S3Placement
from tests.contract.metadata_base import failure
from tests.metadata.processes import DatabaseUser, run_store
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.support.commands import TO_S3, Commands
from tests.support.mounts import SmallDisk

OLD_FILE = """
INSERT INTO store (id) VALUES ('0123');
INSERT INTO inodes (id, path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at, generation,
    content_id)
VALUES ('a', '/f', '00000000000000000000000000000000', 'f', 1, 'file', 420, 'alice', 1, 1, 1, 1, 'c');
INSERT INTO blobs (inode_id, role, blob_id, kind, instance_id, size, sha256)
VALUES ('a', 0, 'b', 'localfs', 'node-1', 3, x'00');
"""
"""What every version can hold."""


def execute(path: Path, *statements: str) -> None:
    """Run statements on a database that no store has open."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


class OpenTests(SqliteBinding, TestCase):
    """``open`` and ``close``."""

    base_folder = TMPFS

    def setUp(self) -> None:
        self.path = self.folder() / "callfs.sqlite3"
        self.make = Commands()

    async def made(self) -> None:
        """A database with one file, closed."""
        store = self.sqlite_store(self.path)
        await store.open()
        await store.apply(self.make.create("/f"))
        await store.close()

    async def unusable(self, *words: str, **options: Any) -> None:
        """The store refuses to open, in these words."""
        error = await failure(self.sqlite_store(self.path, **options).open(), StoreUnusable)
        assert [word for word in words if word not in str(error)] == [], str(error)

    async def test_a_store_comes_back_as_it_was(self) -> None:
        """After a restart identity and content are the same, and the store says that it wasn't empty."""
        store = await self.opened(self.path)
        created = await store.apply(self.make.create("/f"))
        identity = store.store_id
        await store.close()
        again = await self.opened(self.path, token_bytes=os.urandom)
        assert again.store_id == identity
        assert not again.was_empty
        assert await again.get("/f") == created.inode

    async def test_the_files_are_for_their_owner_alone(self) -> None:
        """Database, log and lock can be read by nobody else."""
        store = await self.opened(self.path)
        await store.apply(self.make.create("/f"))
        files = list(self.path.parent.iterdir())
        assert {file.name.removeprefix("callfs.sqlite3") for file in files} == {"", "-wal", "-shm", "-lock"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    async def test_the_database_says_whose_it_is(self) -> None:
        """Application id and schema version are in the file's header."""
        await self.made()
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert connection.execute("PRAGMA user_version").fetchone()[0] == migrations()[-1][0]

    async def test_migrations_are_numbered_without_gaps(self) -> None:
        """The scripts are 1, 2, 3 ..."""
        assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))

    async def test_a_second_store_on_the_same_file(self) -> None:
        """A second daemon, in this process or another, is refused and told why; after the first ended it isn't."""
        store = await self.opened(self.path)
        await self.unusable("another CallFS daemon", "metadata_store.sqlite_path")
        other = run_store(self.path, "print('open')")
        assert "another CallFS daemon" in other.stderr
        await store.close()
        assert run_store(self.path, "print('open')").stdout == "open\n"

    async def test_a_refused_store_holds_nothing(self) -> None:
        """After a refusal the lock is free, so that a repaired file can be opened."""
        self.path.write_bytes(b"x" * 4096)
        await self.unusable("isn't an SQLite database")
        self.path.unlink()
        await self.opened(self.path)

    async def test_a_folder_that_is_not_there(self) -> None:
        """The folder isn't made."""
        self.path = self.path.parent / "missing" / "callfs.sqlite3"
        await self.unusable("doesn't exist", str(self.path.parent))

    async def test_a_folder_in_place_of_the_file(self) -> None:
        """A directory is no database."""
        self.path.mkdir()
        await self.unusable("can't open the database")

    async def test_another_programs_database(self) -> None:
        """A database with another application id, or with tables of another, is left alone."""
        execute(self.path, "PRAGMA application_id = 99")
        await self.unusable("another program")
        self.path.unlink()
        execute(self.path, "CREATE TABLE bookmarks (url TEXT)")
        before = self.path.read_bytes()
        await self.unusable("another program")
        assert self.path.read_bytes() == before

    async def test_a_newer_schema(self) -> None:
        """What a newer version has written isn't touched by an older."""
        await self.made()
        execute(self.path, "PRAGMA user_version = 999")
        await self.unusable("999", "newer")

    async def test_every_version_there_was_is_upgraded(self) -> None:
        """A database of each older version, with a file in it, becomes one of this version and is used."""
        for version in range(1, len(migrations())):
            self.path = self.folder() / "callfs.sqlite3"
            connection = sqlite3.connect(self.path)
            for number, script in migrations()[:version]:
                connection.executescript(f"{script}\nPRAGMA user_version = {number};")
            connection.executescript(f"PRAGMA application_id = {APPLICATION_ID};\n{OLD_FILE}")
            connection.close()
            store = await self.opened(self.path)
            assert store.store_id == "0123"
            inode = await store.get("/f")
            assert inode is not None
            assert inode.blob is not None
            assert await store.verify() == []
            assert await store.list_blobs(instance_id="node-1") == [(inode.blob, "/f")]
            relocated = await store.apply(
                self.make.relocate(inode, self.make.copy_of(inode.blob, S3Placement()), replicate=TO_S3)
            )
            assert len(await store.replications(self.make.now, "node-1")) == 1
            assert await store.get("/f") == relocated.inode

    async def test_an_older_schema_for_reading(self) -> None:
        """A reader can't upgrade."""
        await self.made()
        execute(self.path, "PRAGMA user_version = 0")
        await self.unusable("older schema", "start the daemon once", read_only=True)

    async def test_a_damaged_database(self) -> None:
        """Damage is found at the start, and named."""
        await self.made()
        content = bytearray(self.path.read_bytes())
        for page in range(2, len(content) // 4096):
            content[page * 4096 : page * 4096 + 100] = os.urandom(100)
        self.path.write_bytes(content)
        await self.unusable("damaged", "restore a backup")

    async def test_a_truncated_database(self) -> None:
        """A file that lost its end is damaged."""
        await self.made()
        os.truncate(self.path, self.path.stat().st_size // 2)
        await self.unusable("damaged")

    async def crashed(self) -> Path:
        """What the disk has when a daemon was killed after creations, each a commit of its own."""
        store = await self.opened(self.path)
        for number in range(6):
            await store.apply(self.make.create(f"/{number}"))
        left = self.folder()
        for file in self.path.parent.iterdir():
            shutil.copy(file, left)
        await store.close()
        self.path = left / self.path.name
        return self.path.with_name(self.path.name + "-wal")

    async def test_a_log_with_damage_amid_acknowledged_changes(self) -> None:
        """SQLite would drop what follows the damage; nobody opens the database instead, and it all stays there."""
        log = await self.crashed()
        content = bytearray(log.read_bytes())
        content[len(content) // 2] ^= 4
        log.write_bytes(content)
        for _ in range(2):
            await self.unusable("write-ahead log", "is damaged", "restore a backup", "callfs fsck")
            await self.unusable("write-ahead log", "is damaged", read_only=True)
        assert log.read_bytes() == content

    async def test_a_log_with_a_torn_end(self) -> None:
        """The change under way in a power failure is gone, and nobody was told of it; the others are there."""
        log = await self.crashed()
        os.truncate(log, log.stat().st_size - 100)
        store = await self.opened(self.path)
        assert [number for number in range(6) if await store.get(f"/{number}") is not None] == list(range(5))

    async def test_a_database_that_another_process_holds(self) -> None:
        """A file that something else has locked is refused in time, and opens when that has ended."""
        await self.made()
        user = DatabaseUser(self.path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE")
        self.addCleanup(user.end)
        await self.unusable("locked by another process", op_timeout_seconds=0.2)
        user.end()
        await self.opened(self.path)

    async def test_a_read_only_disk(self) -> None:
        """A database that can't be written to is refused, with the reason."""
        disk = SmallDisk(self.folder(), 4 * 1024 * 1024)
        self.addCleanup(disk.close)
        path = disk.folder / "callfs.sqlite3"
        assert run_store(path, "await store.apply(make.create('/f'))", wrapper=disk.wrapper).returncode == 0
        disk.make_read_only()
        refused = run_store(path, "print('open')", wrapper=disk.wrapper)
        assert "StoreUnusable: can't open the database" in refused.stderr
        assert "Read-only file system" in refused.stderr

    async def test_what_was_not_open(self) -> None:
        """Before and after its time a store answers with a refusal, not with a crash."""
        store = self.sqlite_store(self.path)
        await failure(store.get("/"), MetadataUnavailable)
        await store.open()
        await store.close()
        await failure(store.get("/"), MetadataUnavailable)
        await failure(store.walk("/"), MetadataUnavailable)
        await failure(store.apply(self.make.create("/f")), MetadataUnavailable)
        await store.close()


class ReadOnlyTests(SqliteBinding, TestCase):
    """``read_only``: a tool beside a running daemon."""

    base_folder = TMPFS

    async def test_reading_beside_a_daemon(self) -> None:
        """A reader takes no lock, sees each change once it is answered, and changes nothing."""
        path, make = self.folder() / "callfs.sqlite3", Commands()
        daemon = await self.opened(path)
        tool = await self.opened(path, read_only=True)
        await daemon.apply(make.create("/f"))
        assert tool.store_id == daemon.store_id
        assert await tool.get("/f") == await daemon.get("/f")
        assert await tool.verify() == []
        refusal = await failure(tool.apply(make.create("/g")), MetadataUnavailable)
        assert "reading only" in refusal.message
        await tool.close()
        await daemon.apply(make.create("/g"))

    async def test_reading_without_a_daemon(self) -> None:
        """A database that nobody has open can be read; one that isn't there is refused and not made."""
        path = self.folder() / "callfs.sqlite3"
        store = self.sqlite_store(path)
        await store.open()
        await store.apply(Commands().create("/f"))
        await store.close()
        tool = await self.opened(path, read_only=True)
        assert await tool.get("/f") is not None
        missing = path.with_name("other.sqlite3")
        error = await failure(self.sqlite_store(missing, read_only=True).open(), StoreUnusable)
        assert "no database" in str(error)
        assert not missing.exists()
