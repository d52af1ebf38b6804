"""What ``verify`` finds of a replication queue, or a list of a node's blobs, that isn't what it should be."""

from __future__ import annotations

import sqlite3

from twisted.trial.unittest import TestCase

from tests.metadata.postgres_binding import PostgresBinding
from tests.metadata.redis_binding import RedisBinding
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.support.commands import TO_S3, Commands

NO_FIRST_COPY = "a copy of {} is queued to be made, but it is no file's first copy"
CHANGE_A_FIRST_COPY = "UPDATE blobs SET blob_id = 'another' WHERE role = 0"
MAKE_IT_A_REPLICA = "UPDATE blobs SET role = 1"


class SqliteFindings(SqliteBinding, TestCase):
    """SQLite."""

    base_folder = TMPFS

    async def test_an_entry_of_no_first_copy(self) -> None:
        """An entry whose blob isn't there any more, or is a replica, is found."""
        for damage in (CHANGE_A_FIRST_COPY, MAKE_IT_A_REPLICA):
            path, command = self.folder() / "callfs.sqlite3", Commands().create("/f", replicate=TO_S3)
            store = await self.opened(path)
            await store.apply(command)
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute(damage)
            connection.close()
            assert NO_FIRST_COPY.format(command.blob.id) in await store.verify()


class PostgresFindings(PostgresBinding, TestCase):
    """PostgreSQL."""

    async def test_an_entry_of_no_first_copy(self) -> None:
        """An entry whose blob isn't there any more, or is a replica, is found."""
        for damage in (CHANGE_A_FIRST_COPY, MAKE_IT_A_REPLICA):
            dsn, command = self.server().new_schema(), Commands().create("/f", replicate=TO_S3)
            store = await self.opened(dsn)
            await store.apply(command)
            with self.server().connect(dsn) as connection:
                connection.execute(damage)
            assert NO_FIRST_COPY.format(command.blob.id) in await store.verify()


class RedisFindings(RedisBinding, TestCase):
    """Redis, which keeps its lists itself."""

    async def found_after(self, *words: str) -> tuple[str, str, list[str]]:
        """The blob and the inode of a queued file, and what is found after a command to the server."""
        prefix = f"{self.id()}-{words}:"
        store = await self.opened(prefix)
        command = Commands().create("/f", replicate=TO_S3)
        await store.apply(command)
        assert await store.verify() == []
        names = {"key": prefix + "{fs}:", "blob": command.blob.id, "inode": command.inode_id}
        self.server.command(*(word.format(**names) for word in words))
        return command.blob.id, command.inode_id, list(await store.verify())

    async def test_an_entry_that_is_gone(self) -> None:
        """A list that names an entry which isn't there."""
        blob_id, _, found = await self.found_after("HDEL", "{key}replications", "{blob}")
        assert NO_FIRST_COPY.format(blob_id) in found
        assert "the lists of the replication queue are incomplete" in found

    async def test_an_entry_that_a_list_lacks(self) -> None:
        """An entry that isn't in the queue of its node, or isn't counted where it leads to, or as failing."""
        for words in (
            ("ZREM", "{key}q:node-1", "{blob}"),
            ("ZREM", "{key}replications:to", "s3\0{blob}"),
            ("ZADD", "{key}replications:failing", "0", "node-1\0{blob}"),
        ):
            blob_id, _, found = await self.found_after(*words)
            assert f"the lists of the replication queue are wrong about {blob_id}" in found

    async def test_an_entry_of_no_first_copy(self) -> None:
        """An entry whose file is gone."""
        blob_id, _, found = await self.found_after("DEL", "{key}i:{inode}")
        assert NO_FIRST_COPY.format(blob_id) in found

    async def test_a_blob_that_its_node_lacks(self) -> None:
        """A file's copy that isn't in the list of its node, and one in the list that no file has."""
        blob_id, _, found = await self.found_after("DEL", "{key}blobs:local")
        assert found == [f"the blob {blob_id} of /f isn't in the list of its node's blobs"]
        member = "localfs:node-2\0{blob}\0{inode}"
        blob_id, _, found = await self.found_after("ZADD", "{key}blobs:local", "0", member)
        assert found == [f"the blob {blob_id} is listed on localfs:node-2, where no file has it"]
