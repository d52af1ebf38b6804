"""Opening the PostgreSQL store: made, recognised, upgraded, refused."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
import pytest
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.postgres_schema import migrations, prepare
from callfs.model import S3Placement
from tests.contract.metadata_base import failure
from tests.metadata.postgres_binding import PostgresBinding
from tests.support.commands import TO_S3, Commands
from tests.support.postgres import shared_server

APPLIED_AT = "applied_at timestamptz DEFAULT now()"
OLD_FILE = """
INSERT INTO store (id) VALUES ('0123');
INSERT INTO inodes (id, path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at, generation,
    content_id)
VALUES ('a', '/f', '00000000000000000000000000000000', 'f', 1, 'file', 420, 'alice', 1, 1, 1, 1, 'c');
INSERT INTO blobs (inode_id, role, blob_id, kind, instance_id, size, sha256)
VALUES ('a', 0, 'b', 'localfs', 'node-1', 3, '0');
"""
"""What every version can hold."""


class OpenTests(PostgresBinding, TestCase):
    """What is there already."""

    def setUp(self) -> None:
        """An empty schema."""
        self.dsn = self.server().new_schema()

    async def test_nodes_that_start_together_make_one_store(self) -> None:
        """The first makes the tables, the others wait and find them: one identity, and all work."""
        stores = await gatherResults([self._deferred_open() for _ in range(5)])
        assert len({store.store_id for store in stores}) == 1
        make = Commands()
        for number, store in enumerate(stores):
            await store.apply(make.create(f"/{number}"))
        assert len(await stores[0].walk("/")) == 5

    def _deferred_open(self) -> Any:
        store = self.postgres_store(str(self.dsn))
        self.addCleanup(store.close)
        return store.open().addCallback(lambda _: store)

    async def test_a_store_keeps_its_identity(self) -> None:
        """Opened again it is the same one, and isn't empty when something is in it."""
        first = await self.opened(str(self.dsn))
        second = await self.opened(str(self.dsn))
        assert (first.store_id, first.was_empty) == (second.store_id, True)
        assert second.was_empty
        await first.apply(Commands().create("/f"))
        assert not (await self.opened(str(self.dsn))).was_empty

    async def test_two_stores_in_one_database(self) -> None:
        """Schemas keep them apart: identity, names, and locks."""
        one = await self.opened(str(self.dsn))
        other = await self.opened(self.server().new_schema())
        assert one.store_id != other.store_id
        await one.apply(Commands().create("/f"))
        assert await other.walk("/") == []

    async def test_a_schema_whose_name_needs_quotes(self) -> None:
        """A schema may be called as its operator likes."""
        self.server().execute('CREATE SCHEMA "CallFS-1"')
        self.addCleanup(self.server().execute, 'DROP SCHEMA "CallFS-1" CASCADE')
        store = await self.opened(self.server().dsn(options='-csearch_path="CallFS-1"'))
        assert (await store.apply(Commands().create("/f"))).created

    async def test_a_newer_schema_is_refused(self) -> None:
        """Tables of a newer version are left alone, and the message says what to do."""
        await self.opened(str(self.dsn))
        with self.server().connect(self.dsn) as connection:
            connection.execute("INSERT INTO callfs_migrations (number) VALUES (99)")
        refusal = await failure(self.postgres_store(str(self.dsn)).open(), StoreUnusable)
        assert "has schema 99, made by a newer CallFS" in str(refusal)

    async def test_an_older_store_is_used(self) -> None:
        """The tables of each older version, with a file in them, become those of this one, and go on."""
        for version in range(1, len(migrations())):
            dsn, make = self.server().new_schema(), Commands()
            with self.server().connect(dsn) as connection:
                connection.execute(f"CREATE TABLE callfs_migrations (number integer PRIMARY KEY, {APPLIED_AT})")
                for number, script in migrations()[:version]:
                    connection.execute(script)
                    connection.execute("INSERT INTO callfs_migrations (number) VALUES (%s)", (number,))
                connection.execute(OLD_FILE)
            store = await self.opened(str(dsn))
            inode = await store.get("/f")
            assert inode is not None
            assert inode.blob is not None
            assert await store.verify() == []
            assert await store.list_blobs(instance_id="node-1") == [(inode.blob, "/f")]
            await store.apply(make.relocate(inode, make.copy_of(inode.blob, S3Placement()), replicate=TO_S3))
            assert len(await store.replications(make.now, "node-1")) == 1

    async def test_tables_of_another_program_are_left_alone(self) -> None:
        """A schema in which somebody else has such a table isn't used."""
        with self.server().connect(self.dsn) as connection:
            connection.execute("CREATE TABLE links (url text)")
        refusal = await failure(self.postgres_store(str(self.dsn)).open(), StoreUnusable)
        assert "'links' of another program" in str(refusal)

    async def test_what_the_operator_has_to_mend(self) -> None:
        """No such database, no such schema, no right to make tables, an encoding without Unicode."""
        server = self.server()
        server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-password'")
        self.addCleanup(server.execute, "DROP ROLE guest")
        server.execute("CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        self.addCleanup(server.execute, "DROP DATABASE narrow")
        for dsn, reason in (
            (server.dsn(dbname="missing"), 'database "missing" does not exist'),
            (server.dsn(options="-csearch_path=missing"), "the schema in the search_path"),
            (server.dsn(user="guest", password="guest-password"), "may not create tables there"),
            (server.dsn(dbname="narrow"), "the encoding LATIN1"),
            (server.dsn(sslmode="require"), "server does not support SSL"),
        ):
            store = self.postgres_store(dsn, op_timeout_seconds=0.2)
            assert reason in str(await failure(store.open(), StoreUnusable))

    async def test_no_server(self) -> None:
        """A server that isn't there may come: that is another error, and says what was tried."""
        port = self.server().port
        store = self.postgres_store(self.server().dsn().replace(str(port), "1"), op_timeout_seconds=0.2)
        assert "Connection refused" in str(await failure(store.open(), MetadataUnavailable))

    async def test_ids_of_commands_are_forgotten(self) -> None:
        """After an hour nobody asks any more how a command ended; younger ids stay."""
        clock = Clock()
        store = await self.opened(str(self.dsn), clock=clock)
        make = Commands()
        await store.apply(make.create("/old"))
        with self.server().connect(self.dsn) as connection:
            connection.execute("UPDATE applied_commands SET at = now() - interval '61 minutes'")
            await store.apply(make.create("/new"))
            clock.advance(300)
            for _ in range(500):
                if connection.execute("SELECT count(*) FROM applied_commands").fetchone() == (1,):
                    break
                await deferLater(reactor, 0.01)
            else:
                pytest.fail("the old id is still there")


def test_an_older_schema_is_upgraded() -> None:
    """What is there stays; the steps that are missing are done, once, whole or not at all."""
    known = list(migrations())
    latest = known[-1][0]
    colour = (latest + 1, "ALTER TABLE inodes ADD COLUMN colour text DEFAULT 'grey'")
    broken = (latest + 1, "ALTER TABLE inodes ADD COLUMN colour text; SELECT nonsense")
    with psycopg.connect(shared_server().new_schema(), autocommit=True) as connection:
        first = prepare(connection, secrets.token_bytes, known)
        with pytest.raises(psycopg.Error):
            prepare(connection, secrets.token_bytes, [*known, broken])
        for _ in range(2):
            assert prepare(connection, secrets.token_bytes, [*known, colour]) == first
        numbers = connection.execute("SELECT number FROM callfs_migrations ORDER BY number").fetchall()
        assert numbers == [(number,) for number, _ in [*known, colour]]
        assert connection.execute("SELECT path, colour FROM inodes").fetchall() == [("/", "grey")]


def test_every_version_there_was_is_upgraded() -> None:
    """Tables of each older version become those of this one, and the store stays the same."""
    known = list(migrations())
    for count in range(1, len(known) + 1):
        with psycopg.connect(shared_server().new_schema(), autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE callfs_migrations (number integer PRIMARY KEY, applied_at timestamptz DEFAULT now())"
            )
            for number, script in known[:count]:
                connection.execute(script)
                connection.execute("INSERT INTO callfs_migrations (number) VALUES (%s)", (number,))
            connection.execute("INSERT INTO store (id) VALUES ('0123')")
            assert prepare(connection, secrets.token_bytes, known).store_id == "0123"
