"""The contract of metadata stores: many at once."""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList, gatherResults

from callfs.errors import CallFSError, Conflict, DirectoryNotEmpty, FileAlreadyExists, FileNotFound, LinkUsed
from callfs.metadata.commands import Command, Moved, Relocated, Removed, Written
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import Preconditions, S3Placement
from tests.contract.metadata_base import StoreTests
from tests.support.commands import TO_S3

TREE_SIZE = 5000


class RaceContract(StoreTests):
    """Atomicity and order, with more than one at work."""

    async def outcomes(self, *commands: Command[object]) -> list[object]:
        """For each command, given at once, its result or its error."""
        results = await DeferredList([self.store.apply(command) for command in commands], consumeErrors=True)
        return [result if success else result.value for success, result in results]

    async def test_one_of_fifty_uses_a_link(self) -> None:
        """Of 50 simultaneous uses of one link exactly one succeeds."""
        link = await self.apply(self.make.issue_link((await self.apply(self.make.create("/f"))).inode))
        results = await self.outcomes(*(self.make.consume_link(link.token_hash) for _ in range(50)))
        assert sum(isinstance(result, LinkUsed) for result in results) == 49
        assert sum(not isinstance(result, CallFSError) for result in results) == 1

    async def test_one_of_fifty_creates_a_file(self) -> None:
        """Of 50 simultaneous creations at one path exactly one wins, and it is the one that is there."""
        results = await self.outcomes(*(self.make.create("/a/b/f", f"user-{n}") for n in range(50)))
        (winner,) = [result for result in results if isinstance(result, Written)]
        assert sum(isinstance(result, FileAlreadyExists) for result in results) == 49
        assert await self.existing("/a/b/f") == winner.inode
        assert await self.store.verify() == []

    async def test_one_of_fifty_replaces_what_it_knows(self) -> None:
        """Compare-and-set: of 50 puts that expect the same content exactly one succeeds."""
        inode = (await self.apply(self.make.create("/f"))).inode
        assert inode.etag is not None
        expected = Preconditions(if_match=(inode.etag,))
        results = await self.outcomes(*(self.make.put("/f", preconditions=expected) for _ in range(50)))
        assert sum(isinstance(result, Written) for result in results) == 1
        assert (await self.existing("/f")).generation == 2

    async def test_one_of_fifty_relocates(self) -> None:
        """Of 50 relocations that expect the same copies one wins; the others' copies get no name."""
        inode = (await self.apply(self.make.create("/f", replicate=TO_S3))).inode
        assert inode.blob is not None
        copies = [self.make.copy_of(inode.blob, S3Placement()) for _ in range(50)]
        results = await self.outcomes(*(self.make.relocate(inode, copy) for copy in copies))
        (winner,) = [result for result in results if isinstance(result, Relocated)]
        assert sum(isinstance(result, Conflict) for result in results) == 49
        assert await self.existing("/f") == winner.inode
        assert winner.inode.generation == 2
        assert await self.store.named_blobs([copy.id for copy in copies]) == {winner.inode.blob.id}
        assert await self.garbage_ids() == {inode.blob.id}
        assert await self.store.replication_backlog() == []
        assert await self.store.verify() == []

    async def test_a_relocation_races_with_new_content(self) -> None:
        """Whichever comes first, the file has one content, every other copy is garbage, and none is lost."""
        for round_number in range(20):
            created = (await self.apply(self.make.create("/f", replicate=TO_S3))).inode
            assert created.blob is not None
            copy = self.make.copy_of(created.blob, created.blob.placement)
            relocate = self.make.relocate(created, copy, replicate=TO_S3)
            put = self.make.put("/f", replicate=TO_S3)
            pair = (relocate, put) if round_number % 2 else (put, relocate)
            results = await self.outcomes(*pair)
            relocated, written = results if round_number % 2 else reversed(results)
            assert isinstance(written, Written)
            assert isinstance(relocated, Relocated | Conflict)
            assert (await self.existing("/f")).blob == put.blob
            named = {copy.id} if isinstance(relocated, Relocated) else set()
            assert await self.garbage_ids() & {created.blob.id, copy.id} == {created.blob.id} | named
            (entry,) = await self.store.replications(2**62, "node-1")
            assert entry.blob_id == put.blob.id
            assert await self.store.verify() == []
            await self.apply(self.make.remove("/f"))

    async def test_relocations_race_with_a_rename_of_the_tree(self) -> None:
        """All files are relocated and all have moved, whatever the order: they are known by their ids."""
        inodes = [(await self.apply(self.make.create(f"/a/{n % 3}/{n}"))).inode for n in range(30)]
        copies = [self.make.copy_of(inode.blob, S3Placement()) for inode in inodes if inode.blob is not None]
        relocations = [self.make.relocate(inode, copy) for inode, copy in zip(inodes, copies, strict=True)]
        moves = [self.make.move("/a", "/b"), self.make.move("/b", "/c/d", create_parents=True)]
        results = await self.outcomes(*relocations[:10], moves[0], *relocations[10:20], moves[1], *relocations[20:])
        assert all(isinstance(result, Relocated | Moved) for result in results), results
        listed = await self.store.walk("/")
        assert sorted(inode.path for inode in listed if inode.blob) == sorted(
            inode.path.replace("/a", "/c/d", 1) for inode in inodes
        )
        assert {inode.id: inode.blob for inode in listed if inode.blob} == {
            inode.id: copy for inode, copy in zip(inodes, copies, strict=True)
        }
        assert await self.store.verify() == []

    async def test_relocations_race_with_the_removal_of_the_tree(self) -> None:
        """Nothing of the tree is left: each copy is garbage, or was never named."""
        inodes = [(await self.apply(self.make.create(f"/a/{n}", replicate=TO_S3))).inode for n in range(20)]
        copies = [self.make.copy_of(inode.blob, S3Placement()) for inode in inodes if inode.blob is not None]
        relocations = [
            self.make.relocate(inode, copy, replicate=TO_S3) for inode, copy in zip(inodes, copies, strict=True)
        ]
        remove = self.make.remove("/a", recursive=True)
        results = await self.outcomes(*relocations[:10], remove, *relocations[10:])
        assert isinstance(results.pop(10), Removed)
        for copy, result in zip(copies, results, strict=True):
            assert isinstance(result, Relocated | FileNotFound)
            named = await self.store.named_blobs([copy.id])
            assert bool(named) == isinstance(result, Relocated)
        counts = await self.store.statistics()
        assert (counts.files, counts.bytes, counts.replications) == (0, 0, 0)
        assert len(await self.garbage_ids()) == 20
        assert await self.store.verify() == []

    async def test_parents_that_many_make_are_made_once(self) -> None:
        """Simultaneous files below the same missing parents all get there."""
        await self.apply_all(*(self.make.create(f"/a/b/{number}", f"user-{number}") for number in range(50)))
        directory = await self.existing("/a/b")
        assert len(await self.store.list_children(directory.id)) == 50
        assert await self.store.verify() == []

    async def test_a_creation_races_with_the_removal_of_its_folder(self) -> None:
        """Whichever comes first, no file is left without its folder."""
        for round_number in range(20):
            await self.apply(self.make.make_directory("/d"))
            create, remove = self.make.create("/d/f"), self.make.remove("/d")
            pair = (create, remove) if round_number % 2 else (remove, create)
            results = await self.outcomes(*pair)
            created, removed = results if round_number % 2 else reversed(results)
            assert isinstance(created, Written)
            if isinstance(removed, DirectoryNotEmpty):
                assert await self.existing("/d/f") == created.inode
            assert await self.store.verify() == []
            await self.apply(self.make.remove("/d", recursive=True))

    async def test_a_refusal_leaves_its_neighbours_alone(self) -> None:
        """Commands that are refused in between others change nothing of theirs."""
        await self.apply(self.make.create("/taken"))
        commands = [
            self.make.create("/taken") if number % 2 else self.make.create(f"/new/{number}") for number in range(60)
        ]
        results = await self.outcomes(*commands)
        assert [isinstance(result, FileAlreadyExists) for result in results] == [n % 2 == 1 for n in range(60)]
        assert len(await self.store.walk("/new")) == 30

    async def test_commands_take_effect_in_order(self) -> None:
        """What one client gives without waiting is applied in that order."""
        results = await self.outcomes(
            self.make.create("/a"),
            self.make.move("/a", "/b"),
            self.make.create("/a"),
            self.make.move("/a", "/b", overwrite=True),
            self.make.remove("/b"),
            self.make.remove("/b"),
        )
        assert [isinstance(result, CallFSError) for result in results] == [False] * 5 + [True]
        assert isinstance(results[-1], FileNotFound)

    async def test_a_tree_is_seen_whole_at_one_place(self) -> None:
        """Readers on another connection see all of a tree of 5,000 at the old place or all at the new."""
        other = await self.open_other()
        for start in range(0, TREE_SIZE, 500):
            await self.apply_all(*(self.make.create(f"/old/{n % 50}/{n}") for n in range(start, start + 500)))
        for source, destination in (("/old", "/new"), ("/new", "/old")):
            await self._move_watched(other, source, destination)
        assert (await self.apply(self.make.remove("/old", recursive=True))).count == TREE_SIZE + 51

    async def _move_watched(self, other: IMetadataStore, source: str, destination: str) -> None:
        seen: list[tuple[int, int]] = []
        done = self.store.apply(self.make.move(source, destination))

        async def watch() -> None:
            while not seen or not done.called:
                page = await other.walk("/", limit=100_000)
                at_source = sum(inode.path.startswith(source) for inode in page)
                seen.append((at_source, len(page) - at_source))

        await gatherResults([Deferred.fromCoroutine(watch()), done])
        await watch_once(other, destination)
        assert set(seen) <= {(TREE_SIZE + 51, 0), (0, TREE_SIZE + 51)}


async def watch_once(store: IMetadataStore, directory: str) -> None:
    """All of the tree is below ``directory`` now."""
    assert len(await store.walk(directory, limit=100_000)) == TREE_SIZE + 50
