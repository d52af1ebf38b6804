"""What all parts of the contract suite for metadata stores stand on."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from callfs.errors import CallFSError
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import Inode
from tests.support.commands import Commands

R = TypeVar("R")
E = TypeVar("E", bound=Exception)


class StoreTests:
    """
    The frame of a suite; mixed with trial's ``TestCase`` and a binding that has the two methods below.

    :ivar store: a store of this test's own, empty at its start.
    :ivar make: makes commands.
    """

    store: IMetadataStore
    make: Commands

    async def open_store(self) -> IMetadataStore:
        """Open an empty store that ends with the test."""
        raise NotImplementedError

    async def open_other(self) -> IMetadataStore:
        """Open a second client, at least a reading one, of the state behind :attr:`store`."""
        raise NotImplementedError

    async def setUp(self) -> None:
        """An empty store."""
        self.make = Commands()
        self.store = await self.open_store()

    async def apply(self, command: Command[R]) -> R:
        """The result of a command."""
        return await self.store.apply(command)

    async def apply_all(self, *commands: Command[Any]) -> list[Any]:
        """The results of commands given to the store in this order, without waiting in between."""
        return await gatherResults([self.store.apply(command) for command in commands], consumeErrors=True)

    async def refused(self, command: Command[Any], error: type[CallFSError]) -> CallFSError:
        """The refusal of a command, which is exactly of this class and changes nothing."""
        before = await self.everything()
        refusal = await failure(self.store.apply(command), error)
        assert await self.everything() == before
        return refusal

    async def existing(self, path: str) -> Inode:
        """What is at ``path``."""
        inode = await self.store.get(path)
        assert inode is not None, path
        return inode

    async def everything(self) -> list[Inode]:
        """All inodes, the root first."""
        return [await self.existing("/"), *await self.store.walk("/", limit=100_000)]

    async def listed_paths(self, directory: str = "/") -> list[str]:
        """The paths of all that is below a directory."""
        return [inode.path for inode in await self.store.walk(directory, limit=100_000)]

    async def garbage_ids(self, kind: str = "localfs", instance_id: str | None = "node-1") -> set[str]:
        """The blobs in the garbage queue, whenever they are due."""
        entries = await self.store.garbage(2**62, kind, instance_id, 100_000)
        return {entry.blob.id for entry in entries}


async def failure(deferred: Deferred[Any], error: type[E]) -> E:
    """What a Deferred fails with, which is of exactly this class."""
    try:
        result = await deferred
    except error as caught:
        if type(caught) is error:
            return caught
        raise
    raise AssertionError(f"{error.__name__} was expected, the result was {result!r}")
