"""Several nodes on one PostgreSQL: whatever overtakes what, the state is one that some order gives."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import DeferredList, gatherResults
from twisted.trial.unittest import TestCase

from callfs.errors import CallFSError, Conflict, InternalError, LinkUsed, MetadataUnavailable, OutcomeUnknown
from callfs.metadata.commands import (
    Command,
    Condemn,
    ForgetInstance,
    PostponeReplication,
    Relocated,
    Written,
)
from callfs.metadata.postgres import PostgresStore
from callfs.model import LocalPlacement, Preconditions, S3Placement
from tests.metadata.postgres_binding import PostgresBinding
from tests.support.commands import ADMIN, TO_S3, Commands

NODES = 3


class NodesTests(PostgresBinding, TestCase):
    """Three nodes with connections of their own."""

    async def setUp(self) -> None:
        """The nodes."""
        self.dsn = self.server().new_schema()
        self.nodes: list[PostgresStore] = [await self.opened(self.dsn, pool_size=4) for _ in range(NODES)]
        self.make = Commands()

    async def outcomes(self, commands: list[Command[Any]]) -> list[Any]:
        """The results or errors of commands given to the nodes in turn, at once."""
        given = [self.nodes[number % NODES].apply(command) for number, command in enumerate(commands)]
        results = await DeferredList(given, consumeErrors=True)
        outcomes = [result if success else result.value for success, result in results]
        assert not [each for each in outcomes if isinstance(each, InternalError | MetadataUnavailable)]
        return outcomes

    async def sound(self) -> None:
        """The store finds nothing wrong with itself."""
        assert await self.nodes[0].verify() == []

    async def test_one_of_sixty_creates_a_file(self) -> None:
        """One wins; the others are told that something is there."""
        outcomes = await self.outcomes([self.make.create("/a/b/f", f"user-{n}") for n in range(60)])
        assert sum(isinstance(each, Written) for each in outcomes) == 1
        await self.sound()

    async def test_one_of_sixty_replaces_what_it_knows(self) -> None:
        """Compare-and-set holds between nodes."""
        inode = (await self.nodes[0].apply(self.make.create("/f"))).inode
        expected = Preconditions(if_match=(str(inode.etag),))
        outcomes = await self.outcomes([self.make.put("/f", preconditions=expected) for _ in range(60)])
        assert sum(isinstance(each, Written) for each in outcomes) == 1
        await self.sound()

    async def test_every_put_counts(self) -> None:
        """Puts without a condition all succeed, and none is lost: each replaced blob is garbage."""
        outcomes = await self.outcomes([self.make.put("/f") for _ in range(60)])
        assert all(isinstance(each, Written) for each in outcomes)
        inode = await self.nodes[1].get("/f")
        assert inode is not None
        assert inode.generation == 60
        assert len(await self.nodes[2].garbage(2**62, "localfs", "node-1")) == 59
        await self.sound()

    async def test_one_of_sixty_uses_a_link(self) -> None:
        """A link works once, on any node."""
        inode = (await self.nodes[0].apply(self.make.create("/f"))).inode
        link = await self.nodes[0].apply(self.make.issue_link(inode))
        outcomes = await self.outcomes([self.make.consume_link(link.token_hash) for _ in range(60)])
        assert sum(isinstance(each, LinkUsed) for each in outcomes) == 59
        await self.sound()

    async def test_no_child_slips_into_what_goes_away(self) -> None:
        """Files made while their folder is moved, or removed with all in it, are where some order puts them."""
        for number in range(12):
            await self.nodes[0].apply(self.make.create("/d/sub/first"))
            commands: list[Command[Any]] = [self.make.create(f"/d/sub/{number}-{n}") for n in range(6)]
            last = (
                self.make.move("/d", f"/moved-{number}") if number % 2 else self.make.remove("/d", recursive=True)
            )
            commands.insert(number % 4, last)
            await self.outcomes(commands)
            await self.sound()
            await self.outcomes([self.make.remove("/d", recursive=True, principal=ADMIN)])

    async def test_an_empty_folder_is_removed_or_filled(self) -> None:
        """Of a removal and a creation inside, whichever is first, no file is without its folder."""
        for number in range(20):
            await self.nodes[0].apply(self.make.make_directory("/d"))
            await self.outcomes([self.make.create(f"/d/{number}"), self.make.remove("/d")])
            await self.sound()
            await self.outcomes([self.make.remove("/d", recursive=True)])

    async def test_moves_against_each_other(self) -> None:
        """Files that change places between two folders, and folders that would come into each other."""
        for path in ("/a/1", "/b/2", "/x/f", "/y/g"):
            await self.nodes[0].apply(self.make.create(path))
        for _ in range(15):
            await self.outcomes(
                [
                    self.make.move("/a/1", "/b/1"),
                    self.make.move("/b/2", "/a/2"),
                    self.make.move("/x", "/y/x"),
                    self.make.move("/y", "/x/y"),
                ]
            )
            await self.sound()
            await self.outcomes(
                [
                    self.make.move("/b/1", "/a/1"),
                    self.make.move("/a/2", "/b/2"),
                    self.make.move("/y/x", "/x"),
                    self.make.move("/x/y", "/y"),
                ]
            )
        await self.sound()

    async def test_a_blob_is_named_or_condemned(self) -> None:
        """Never both, whichever command is first."""
        creations = [self.make.create(f"/{number}") for number in range(40)]
        sweeps = [Condemn(at=self.make.tick(), blob_ids=(creation.blob.id,)) for creation in creations]
        pairs: list[Command[Any]] = []
        for creation, sweep in zip(creations, sweeps, strict=True):
            pairs += [creation, sweep]
        await self.outcomes(pairs)
        await self.sound()

    async def test_one_of_sixty_relocates(self) -> None:
        """Compare-and-set holds between nodes for copies, too."""
        inode = (await self.nodes[0].apply(self.make.create("/f", replicate=TO_S3))).inode
        copies = [self.make.copy_of(inode.blob, S3Placement()) for _ in range(60)]
        outcomes = await self.outcomes([self.make.relocate(inode, copy, replicate=TO_S3) for copy in copies])
        (winner,) = [each for each in outcomes if isinstance(each, Relocated)]
        assert sum(isinstance(each, Conflict) for each in outcomes) == 59
        assert await self.nodes[1].get("/f") == winner.inode
        assert await self.nodes[2].named_blobs([copy.id for copy in copies]) == {winner.inode.blob.id}
        (entry,) = await self.nodes[0].replications(2**62, "node-1")
        assert entry.blob_id == winner.inode.blob.id
        await self.sound()

    async def test_relocations_against_everything(self) -> None:
        """Files that are relocated while others write, move and remove them are as some order leaves them."""
        for number in range(8):
            inodes = [
                (await self.nodes[0].apply(self.make.create(f"/{number}/{n}", replicate=TO_S3))).inode
                for n in range(8)
            ]
            commands: list[Command[Any]] = []
            for n, inode in enumerate(inodes):
                commands += [
                    self.make.relocate(inode, self.make.copy_of(inode.blob, S3Placement()), replicate=TO_S3),
                    self.make.put(f"/{number}/{n}", replicate=TO_S3),
                    self.make.relocate(inode, self.make.copy_of(inode.blob, S3Placement())),
                    PostponeReplication(at=1, blob_id=inode.blob.id, due_at=2, by="node-2"),
                ]
            commands.insert(3 + number, self.make.move(f"/{number}", f"/moved-{number}"))
            commands.insert(14 + number, self.make.remove(f"/moved-{number}", recursive=number % 2 == 0))
            outcomes = await self.outcomes(commands)
            assert not [each for each in outcomes if isinstance(each, OutcomeUnknown)]
            await self.sound()

    async def test_a_copy_is_named_or_condemned(self) -> None:
        """Of a relocation and the sweep that gives its new copy up, one is told that the other was first."""
        inodes = [(await self.nodes[0].apply(self.make.create(f"/{number}"))).inode for number in range(20)]
        copies = [self.make.copy_of(inode.blob, S3Placement()) for inode in inodes]
        pairs: list[Command[Any]] = []
        for inode, copy in zip(inodes, copies, strict=True):
            pairs += [self.make.relocate(inode, copy), Condemn(at=self.make.tick(), blob_ids=(copy.id,))]
        outcomes = await self.outcomes(pairs)
        for relocated, condemned in zip(outcomes[::2], outcomes[1::2], strict=True):
            assert isinstance(relocated, Conflict) == bool(condemned.ids)
        await self.sound()

    async def test_a_node_is_forgotten_or_used(self) -> None:
        """No entry is handed to a node, and no file put on it, while it is being forgotten."""
        for number in range(20):
            blob = self.make.blob(3, LocalPlacement("node-9"))
            created = self.make.create(f"/{number}", replicate=TO_S3)
            await self.nodes[0].apply(created)
            commands: list[Command[Any]] = [
                ForgetInstance(at=self.make.tick(), instance_id="node-9"),
                PostponeReplication(at=1, blob_id=created.blob.id, due_at=2, by="node-9"),
                self.make.create(f"/on-{number}", blob=blob),
            ]
            await self.outcomes(commands[number % 3 :] + commands[: number % 3])
            await self.outcomes([self.make.remove(f"/{number}"), self.make.remove(f"/on-{number}")])
            assert (await self.nodes[1].apply(ForgetInstance(at=1, instance_id="node-9"))).count == 1
            await self.sound()

    async def test_anything_against_anything(self) -> None:
        """Random commands on few names from all nodes at once leave a sound store, and all see the same."""
        chance = random.Random(7)

        def path() -> str:
            return "/" + "/".join(chance.choice("ab") for _ in range(chance.randint(1, 3)))

        def command() -> Command[Any]:
            kinds = [
                lambda: self.make.create(path()),
                lambda: self.make.put(path()),
                lambda: self.make.make_directory(path()),
                lambda: self.make.remove(path(), recursive=chance.random() < 0.5),
                lambda: self.make.move(path(), path(), overwrite=True, create_parents=chance.random() < 0.5),
            ]
            return chance.choice(kinds)()

        for _ in range(8):
            outcomes = await self.outcomes([command() for _ in range(60)])
            assert not [each for each in outcomes if isinstance(each, OutcomeUnknown)]
            assert [each for each in outcomes if not isinstance(each, CallFSError)]
            await self.sound()
        seen = await gatherResults([node.walk("/") for node in self.nodes])
        assert seen[0] == seen[1] == seen[2]
