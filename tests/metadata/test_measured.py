"""The measuring store: the same store, with each operation counted and timed."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from callfs.errors import FileAlreadyExists
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.measured import MeasuredStore
from callfs.metadata.sqlite import SqliteStore
from tests.contract.metadata import MetadataContract
from tests.contract.metadata_base import failure
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.support.commands import Commands


class Observer:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, float]] = []

    def metadata_query(self, operation: str, seconds: float) -> None:
        """An operation has ended."""
        self.operations.append((operation, seconds))


class MeasuredContractTests(SqliteBinding, MetadataContract, TestCase):
    """A measured store is a store."""

    provider = MeasuredStore
    base_folder = TMPFS
    machine_examples = 5

    async def open_store(self) -> IMetadataStore:
        """The twin on tmpfs, measured."""
        return MeasuredStore(await super().open_store(), Observer(), Clock())


class MeasuringTests(SqliteBinding, TestCase):
    """What is reported."""

    base_folder = TMPFS

    async def test_operations_are_reported_when_they_end(self) -> None:
        """Reads by their name, commands by their tag, refused ones too, each with the time it took."""
        clock, observer, make = Clock(), Observer(), Commands()
        inner: SqliteStore = await self.opened(
            self.folder() / "callfs.sqlite3", reached=lambda step: clock.advance(2)
        )
        store = MeasuredStore(inner, observer, clock)
        await store.apply(make.create("/f"))
        await failure(store.apply(make.create("/f")), FileAlreadyExists)
        await store.get("/f")
        await store.walk("/")
        assert [operation for operation, _ in observer.operations] == ["create_file", "create_file", "get", "walk"]
        assert observer.operations[0][1] >= 2
        assert observer.operations[2][1] == 0
