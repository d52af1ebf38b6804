"""Two nodes on one Redis: their commands meet on the server, and nobody starves."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.trial.unittest import TestCase

from callfs.errors import CallFSError, DirectoryNotEmpty, FileNotFound, LinkUsed
from callfs.metadata.commands import Written
from tests.contract.metadata_base import StoreTests
from tests.metadata.redis_binding import RedisBinding


class NodesTests(RedisBinding, StoreTests, TestCase):
    """Commands by turns on two stores that share everything but their connections."""

    async def setUp(self) -> None:
        """Two clients of one empty store."""
        await super().setUp()
        self.stores = [self.store, await self.open_other()]

    async def outcomes(self, *commands: Any) -> list[Any]:
        """Results and errors of simultaneous commands, every other one on the other node."""
        pending = [self.stores[number % 2].apply(command) for number, command in enumerate(commands)]
        found = await DeferredList(pending, consumeErrors=True)
        return [result if success else result.value for success, result in found]

    async def test_one_of_fifty_uses_a_link(self) -> None:
        """Of 50 uses of one link on two nodes exactly one succeeds."""
        link = await self.apply(self.make.issue_link((await self.apply(self.make.create("/f"))).inode))
        results = await self.outcomes(*(self.make.consume_link(link.token_hash) for _ in range(50)))
        assert sum(isinstance(result, LinkUsed) for result in results) == 49

    async def test_every_put_counts_once(self) -> None:
        """Puts on one file from two nodes each make one generation."""
        await self.apply(self.make.create("/f"))
        results = await self.outcomes(*(self.make.put("/f") for _ in range(60)))
        assert all(isinstance(result, Written) for result in results)
        assert sorted(result.inode.generation for result in results) == list(range(2, 62))

    async def test_writers_in_one_directory_do_not_starve(self) -> None:
        """32 clients who write different files in one directory all get on."""

        async def client(number: int) -> None:
            for count in range(10):
                await self.stores[number % 2].apply(self.make.create(f"/d/{number}-{count}"))

        await gatherResults([Deferred.fromCoroutine(client(number)) for number in range(32)])
        assert len(await self.store.walk("/d", limit=1000)) == 320
        assert await self.store.verify() == []

    async def test_changing_a_busy_directory(self) -> None:
        """A directory's own attributes can be changed while another node keeps writing into it."""
        await self.apply(self.make.make_directory("/d"))
        writing = True
        written = 0

        async def writer(number: int) -> None:
            nonlocal written
            while writing:
                await self.stores[1].apply(self.make.create(f"/d/{number}-{written}"))
                written += 1

        writers = [Deferred.fromCoroutine(writer(number)) for number in range(16)]
        for mode in range(10):
            await self.store.apply(self.make.change("/d", mode=mode))
        writing = False
        await gatherResults(writers)
        assert (await self.existing("/d")).mode == 9
        assert (await self.existing("/d")).generation == 1 + 10 + written

    async def test_a_creation_races_with_the_removal_of_its_folder(self) -> None:
        """Whichever comes first, no file is left without its folder."""
        for number in range(40):
            await self.apply(self.make.make_directory("/d"))
            pair = (self.make.create("/d/f"), self.make.remove("/d"))
            created, removed = await self.outcomes(*(pair if number % 2 else pair[::-1]))
            if not number % 2:
                created, removed = removed, created
            assert isinstance(created, Written)
            if isinstance(removed, DirectoryNotEmpty):
                assert await self.existing("/d/f") == created.inode
            assert await self.store.verify() == []
            await self.apply(self.make.remove("/d", recursive=True))

    async def test_trees_that_are_moved_and_filled(self) -> None:
        """Trees that one node moves and removes while the other fills them stay trees."""
        await self.apply(self.make.make_directory("/a"))
        for number in range(30):
            commands: list[Any] = [
                self.make.create(f"/a/x/{number}"),
                self.make.move("/a", "/b"),
                self.make.create(f"/b/x/y/{number}"),
                self.make.move("/b", "/a"),
                self.make.remove("/a/x", recursive=True),
                self.make.move("/b/x", f"/a/z{number}", create_parents=True),
            ]
            for result in await self.outcomes(*commands):
                assert isinstance(result, Written | CallFSError) or not isinstance(result, Exception), result
            assert await self.store.verify() == []

    async def test_a_write_is_seen_at_once(self) -> None:
        """What one node was told is done, the other sees in its next question."""
        for number in range(50):
            one, other = self.stores[number % 2], self.stores[1 - number % 2]
            inode = (await one.apply(self.make.create(f"/{number}"))).inode
            assert await other.get(f"/{number}") == inode
            await other.apply(self.make.remove(f"/{number}"))
            assert await one.get(f"/{number}") is None

    async def test_the_second_removal_finds_nothing(self) -> None:
        """Of many removals of one file on two nodes one succeeds."""
        await self.apply(self.make.create("/f"))
        results = await self.outcomes(*(self.make.remove("/f") for _ in range(20)))
        assert sum(isinstance(result, FileNotFound) for result in results) == 19
        assert (await self.store.statistics()).garbage == 1
