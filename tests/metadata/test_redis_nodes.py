"""Two nodes on one Redis: their commands meet on the server, and nobody starves."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from callfs.errors import CallFSError, Conflict, DirectoryNotEmpty, FileNotFound, LinkUsed
from callfs.metadata.commands import Condemn, PostponeReplication, Relocated, Written
from callfs.model import S3Placement
from tests.contract.metadata_base import StoreTests, failure
from tests.metadata.redis_binding import RedisBinding
from tests.support.commands import TO_S3


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

    async def test_one_of_fifty_relocates(self) -> None:
        """Compare-and-set holds between nodes for copies."""
        inode = (await self.apply(self.make.create("/f", replicate=TO_S3))).inode
        assert inode.blob is not None
        copies = [self.make.copy_of(inode.blob, S3Placement()) for _ in range(50)]
        results = await self.outcomes(*(self.make.relocate(inode, copy, replicate=TO_S3) for copy in copies))
        (winner,) = [result for result in results if isinstance(result, Relocated)]
        assert sum(isinstance(result, Conflict) for result in results) == 49
        assert await self.existing("/f") == winner.inode
        (entry,) = await self.store.replications(2**62, "node-1")
        assert entry.blob_id == winner.inode.blob.id
        assert await self.store.verify() == []

    async def test_relocations_against_everything(self) -> None:
        """Files that one node relocates while the other writes, moves and removes them stay sound."""
        for number in range(10):
            inodes = [
                (await self.apply(self.make.create(f"/{number}/{n}", replicate=TO_S3))).inode for n in range(6)
            ]
            commands: list[Any] = []
            for n, inode in enumerate(inodes):
                assert inode.blob is not None
                commands += [
                    self.make.relocate(inode, self.make.copy_of(inode.blob, S3Placement()), replicate=TO_S3),
                    self.make.put(f"/{number}/{n}", replicate=TO_S3),
                    PostponeReplication(at=1, blob_id=inode.blob.id, due_at=2, by="node-2"),
                ]
            commands.insert(2 + number, self.make.move(f"/{number}", f"/moved-{number}"))
            commands.insert(9 + number, self.make.remove(f"/moved-{number}", recursive=number % 2 == 0))
            for result in await self.outcomes(*commands):
                assert isinstance(result, CallFSError) or not isinstance(result, Exception), result
            assert await self.store.verify() == []

    async def test_a_copy_is_named_or_condemned(self) -> None:
        """Of a relocation and the sweep that gives its new copy up, one is told that the other was first."""
        for number in range(30):
            inode = (await self.apply(self.make.create(f"/{number}"))).inode
            assert inode.blob is not None
            copy = self.make.copy_of(inode.blob, S3Placement())
            pair = [self.make.relocate(inode, copy), Condemn(at=self.make.tick(), blob_ids=(copy.id,))]
            results = await self.outcomes(*pair[:: 1 if number % 2 else -1])
            relocated, condemned = results if number % 2 else results[::-1]
            assert isinstance(relocated, Conflict) == bool(condemned.ids)
        assert await self.store.verify() == []

    async def test_the_second_removal_finds_nothing(self) -> None:
        """Of many removals of one file on two nodes one succeeds."""
        await self.apply(self.make.create("/f"))
        results = await self.outcomes(*(self.make.remove("/f") for _ in range(20)))
        assert sum(isinstance(result, FileNotFound) for result in results) == 19
        assert (await self.store.statistics()).garbage == 1

    async def waiting_for_a_turn(self, command: Any) -> list[Deferred[Any]]:
        """A command that waits because a third node, which has died, has the turn."""
        self.server.command("SET", f"{self.prefix}{{fs}}:turn", "another", "PX", 300)
        waiting = self.store.apply(command)
        patience = self.scripts_run() + 10
        while self.scripts_run() < patience:
            await deferLater(reactor, 0.01)
        return [waiting]

    def scripts_run(self) -> int:
        """How many there were on this server."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", self.server.command("INFO", "commandstats"))
        return 0 if found is None else int(found[1])

    async def test_a_refusal_ends_the_turn(self) -> None:
        """Who started over so often that it got the turn, and then is refused, holds up nobody any longer."""
        inode = (await self.apply(self.make.create("/f"))).inode
        (waiting,) = await self.waiting_for_a_turn(self.make.remove("/f"))
        self.server.command("ZREM", f"{self.prefix}{{fs}}:paths", f"/f\0{inode.id}")
        await failure(waiting, FileNotFound)
        assert self.server.command("EXISTS", f"{self.prefix}{{fs}}:turn") == 0

    async def test_nothing_to_do_ends_the_turn(self) -> None:
        """So does who got the turn and finds that all is as it should be."""
        directory = (await self.apply(self.make.make_directory("/d"))).inode
        member = f"/d\0{directory.id}"
        self.server.command("ZREM", f"{self.prefix}{{fs}}:paths", member)
        (waiting,) = await self.waiting_for_a_turn(self.make.make_directory("/d"))
        self.server.command("ZADD", f"{self.prefix}{{fs}}:paths", 0, member)
        assert not (await waiting).created
        assert self.server.command("EXISTS", f"{self.prefix}{{fs}}:turn") == 0
