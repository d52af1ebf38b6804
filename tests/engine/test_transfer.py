"""Moving metadata: an import is checked against what came in before it counts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.trial.unittest import TestCase

from callfs.engine.transfer import Imperfect, Import, export_metadata
from callfs.metadata.interfaces import IMetadataStore, UnfinishedImport
from callfs.metadata.transfer import LinkRecord, Record
from callfs.metadata.transfer_reading import Reading
from callfs.model import Link
from tests.contract.metadata_base import failure
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.support.commands import Commands


def unseen(_count: int) -> None:
    """Progress that nobody looks at."""


class MovingTests(SqliteBinding, TestCase):
    """From one SQLite store to another."""

    base_folder = TMPFS

    async def setUp(self) -> None:
        """A store with a file and a link; its lines, read; an import that has begun."""
        self.make = Commands()
        self.source = await self.open_store()
        written = await self.source.apply(self.make.create("/a/f"))
        await self.source.apply(self.make.issue_link(written.inode))
        self.reading, self.records = await self.lines_of(self.source)
        self.target = await self.open_store()
        self.moving = Import(self.target, now=self.make.tick, token_bytes=self.make.token_bytes)
        await self.moving.begin(again=False)

    async def lines_of(self, store: IMetadataStore) -> tuple[Reading, Sequence[Record]]:
        """A store's export, read."""
        written: list[bytes] = []
        done: list[int] = []
        counts = await export_metadata(store, written.append, self.make.tick(), done.append)
        assert sum(done) == counts.all
        reading = Reading()
        lines = b"".join(written).splitlines(keepends=True)
        records = [record for line in lines if (record := reading.line(line)) is not None]
        reading.end()
        return reading, records

    async def test_the_whole_way(self) -> None:
        """The target has the same records and the same identity."""
        await self.moving.add(self.records)
        await self.moving.check(self.reading.tally, unseen)
        await self.moving.finish(self.source.store_id)
        assert self.target.store_id == self.source.store_id
        reading, records = await self.lines_of(self.target)
        assert records == self.records
        assert reading.tally == self.reading.tally

    async def test_something_is_missing(self) -> None:
        """A target that lacks a record isn't accepted, and stays unfinished."""
        await self.moving.add(self.records[:-1])
        with pytest.raises(Imperfect, match="read back"):
            await self.moving.check(self.reading.tally, unseen)
        await self.target.close()
        await failure(self.target.open(), UnfinishedImport)

    async def test_something_else_was_written(self) -> None:
        """A target that somebody else wrote to meanwhile isn't accepted."""
        await self.moving.add(self.records)
        await self.target.apply(self.make.make_directory("/foreign"))
        with pytest.raises(Imperfect, match="read back"):
            await self.moving.check(self.reading.tally, unseen)

    async def test_what_does_not_fit_together(self) -> None:
        """Records that were all taken, but of which one belongs to nothing, aren't accepted."""
        await self.moving.add(self.records)
        link = Link(token_hash=b"x" * 32, inode_id="0" * 32, created_by="a", created_at=1, expires_at=2)
        extra = LinkRecord(link=link)  # of the root, which is no file
        await self.moving.add([extra])
        self.reading.tally.add([extra])
        with pytest.raises(Imperfect, match="belongs to no file"):
            await self.moving.check(self.reading.tally, unseen)
