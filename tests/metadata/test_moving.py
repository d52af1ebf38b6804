"""Exports that meet changes and lost connections: one view, or none."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread
from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.redis_export import export
from callfs.metadata.transfer import Record
from tests.contract.metadata_base import failure
from tests.metadata.postgres_binding import PostgresBinding
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.support.commands import Commands


async def exported_while_changed(store: IMetadataStore, make: Commands) -> list[Record]:
    """What an export gives that a new file and a removal come into after its first part."""
    found: list[Record] = []

    def consume(records: Sequence[Record]) -> None:
        if not found:
            blockingCallFromThread(reactor, store.apply, make.create("/zz"))
            blockingCallFromThread(reactor, store.apply, make.remove("/d/1499"))
        found.extend(records)

    await store.export(consume)
    return found


async def filled(store: IMetadataStore, make: Commands) -> list[Record]:
    """A store with more than one part; what is in it."""
    for number in range(1500):
        await store.apply(make.make_directory(f"/d/{number:04}"))
    found: list[Record] = []
    await store.export(found.extend)
    return found


class SqliteExportTests(SqliteBinding, TestCase):
    """SQLite keeps a view."""

    base_folder = TMPFS

    async def test_one_view(self) -> None:
        """What is changed meanwhile, also on the parts that weren't read yet, isn't in it."""
        store, make = await self.open_store(), Commands()
        before = await filled(store, make)
        assert await exported_while_changed(store, make) == before

    async def test_a_reader_exports(self) -> None:
        """A tool beside the daemon gets everything."""
        store, make = await self.open_store(), Commands()
        before = await filled(store, make)
        found: list[Record] = []
        await (await self.open_other()).export(found.extend)
        assert found == before


class PostgresExportTests(PostgresBinding, TestCase):
    """PostgreSQL keeps a view, on a connection that may be lost."""

    async def test_one_view(self) -> None:
        """What is changed meanwhile, also on the parts that weren't read yet, isn't in it."""
        store, make = await self.open_store(), Commands()
        before = await filled(store, make)
        assert await exported_while_changed(store, make) == before

    async def test_a_lost_connection_ends_it(self) -> None:
        """Nothing is given out twice: an export whose connection is cut in the middle fails."""
        store, make = await self.open_store(), Commands()
        before = await filled(store, make)
        found: list[Record] = []

        def consume(records: Sequence[Record]) -> None:
            found.extend(records)
            self.server().cut_connections()

        await failure(store.export(consume), MetadataUnavailable)
        assert found == before[: len(found)]
        again: list[Record] = []
        await store.export(again.extend)
        assert again == before


class RedisExportTests(TestCase):
    """Redis keeps no view."""

    async def test_a_change_ends_it(self) -> None:
        """As soon as the server's count of changes is another, the export fails and says why."""
        changes = iter([b"7", b"7", b"8"])
        asked: list[str] = []

        async def ask(what: str, at: bytes, limit: int) -> bytes:
            asked.append(what)
            parts = [next(changes), b""]
            return struct.pack(">3I", 2, *map(len, parts)) + b"".join(parts)

        with pytest.raises(MetadataUnavailable, match="stop all daemons"):
            await export(ask, lambda records: None)
        assert asked == ["inodes", "links", "garbage"]
