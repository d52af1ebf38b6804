"""The contract of metadata stores: copies of content, where they are, and the queue of those to be made."""

from __future__ import annotations

from typing import Any

import msgspec

from callfs.errors import Conflict, ContentMoved, FileNotFound, PermissionDenied
from callfs.metadata.commands import Command, Condemn, PostponeReplication
from callfs.metadata.interfaces import ReplicationBacklog
from callfs.model import (
    BlobRef,
    Inode,
    LocalPlacement,
    Placement,
    Principal,
    ReplicaOrder,
    Replication,
    S3Placement,
)
from tests.contract.metadata_base import StoreTests
from tests.support.commands import HOUR, NODE, TO_S3

OTHER = LocalPlacement("node-2")
S3 = S3Placement()
EVER = 2**62


class CopiesTests(StoreTests):
    """What the suites below share."""

    async def file(self, path: str = "/f", *places: Placement, **fields: Any) -> tuple[Inode, BlobRef]:
        """A new file with copies at these places, on node-1 where none is named."""
        blob = self.make.replicated_blob(*(places or (NODE,)))
        inode = (await self.apply(self.make.create(path, blob=blob, **fields))).inode
        return inode, blob

    async def queue(self, by: str = "node-1", now: int = EVER) -> list[Replication]:
        """What a node has to copy."""
        return list(await self.store.replications(now, by))

    async def queued_blobs(self, by: str = "node-1") -> list[str]:
        """The first copies of which a node has to make another."""
        return [entry.blob_id for entry in await self.queue(by)]

    async def due(self) -> dict[str, int]:
        """The whole garbage queue: blob to instant."""
        found = {}
        for kind, instance_id in (("localfs", "node-1"), ("localfs", "node-2"), ("s3", None)):
            for entry in await self.store.garbage(EVER, kind, instance_id):
                assert entry.blob.replicas == ()
                found[entry.blob.id] = entry.not_before_at
        return found

    async def rejected(self, command: Command[Any], error: type[Any]) -> None:
        """A refusal that changes neither inodes nor queues."""
        before = await self.queue(), await self.due(), await self.store.statistics()
        await self.refused(command, error)
        assert (await self.queue(), await self.due(), await self.store.statistics()) == before
        assert await self.store.verify() == []


class RelocationContract(CopiesTests):
    """``Relocate``."""

    async def test_a_file_is_elsewhere_afterwards(self) -> None:
        """It has the new copy under the same path, id, tag and times, one generation later; the old is garbage."""
        inode, old = await self.file("/a/f", content_type="text/html")
        new = self.make.copy_of(old, S3)
        command = self.make.relocate(inode, new)
        relocated = (await self.apply(command)).inode
        assert relocated == msgspec.structs.replace(inode, generation=inode.generation + 1, blob=new)
        assert await self.existing("/a/f") == relocated == await self.store.get_by_id(inode.id)
        assert await self.due() == {old.id: command.at}
        assert await self.store.list_blobs() == [(new, "/a/f")]
        assert (await self.store.statistics()).bytes == new.size
        assert await self.store.verify() == []

    async def test_the_directory_is_not_touched(self) -> None:
        """Where bytes are is no matter of the directory that holds the name."""
        inode, old = await self.file("/a/f")
        before = await self.existing("/a")
        await self.apply(self.make.relocate(inode, self.make.copy_of(old, S3)))
        assert await self.existing("/a") == before

    async def test_dropped_copies_go_in_their_time(self) -> None:
        """A copy on a local disk may go at once, others only after the delay; a kept one stays."""
        inode, old = await self.file("/f", S3, NODE, OTHER)
        on_node, on_other = old.replicas
        new = self.make.copy_of(old, OTHER, (on_node,))
        command = self.make.relocate(inode, new)
        assert (await self.apply(command)).inode.blob == new
        assert (await self.existing("/f")).blob == new
        assert await self.due() == {old.id: command.garbage_not_before_at, on_other.id: command.at}
        assert await self.store.named_blobs([new.id, on_node.id]) == {new.id, on_node.id}
        assert await self.store.verify() == []

    async def test_a_copy_is_added(self) -> None:
        """The second copy comes beside the first; nothing becomes garbage, the bytes count once."""
        inode, old = await self.file()
        both = msgspec.structs.replace(old, replicas=(self.make.copy_of(old, S3),))
        assert (await self.apply(self.make.relocate(inode, both))).inode.blob == both
        assert await self.due() == {}
        assert (await self.store.statistics()).bytes == old.size

    async def test_copies_change_their_roles(self) -> None:
        """A replica becomes the first copy, and what was the first is kept as its replica, or dropped."""
        inode, old = await self.file("/f", NODE, S3)
        (replica,) = old.replicas
        bare = msgspec.structs.replace(old, replicas=())
        swapped = msgspec.structs.replace(replica, replicas=(bare,))
        inode = (await self.apply(self.make.relocate(inode, swapped))).inode
        assert inode.blob == swapped == (await self.existing("/f")).blob
        assert await self.due() == {}
        command = self.make.relocate(inode, replica)
        inode = (await self.apply(command)).inode
        assert (await self.existing("/f")).blob == replica
        assert await self.due() == {old.id: command.at}
        assert await self.store.verify() == []

    async def test_only_what_is_as_expected_is_relocated(self) -> None:
        """Other content, another copy more, or less, or another order: a conflict."""
        inode, old = await self.file("/f", NODE, S3)
        new = self.make.copy_of(old, OTHER)
        (replica,) = old.replicas
        for expected in ((), (old.id,), (replica.id, old.id), (old.id, replica.id, new.id), (new.id,)):
            await self.rejected(self.make.relocate(inode, new, expected_blob_ids=expected), Conflict)
        await self.apply(self.make.put("/f"))
        await self.rejected(self.make.relocate(inode, new), Conflict)

    async def test_a_repeated_relocation(self) -> None:
        """What has happened is a conflict the second time."""
        inode, old = await self.file()
        new = self.make.copy_of(old, S3)
        await self.apply(self.make.relocate(inode, new))
        await self.rejected(self.make.relocate(inode, new), Conflict)

    async def test_what_is_gone(self) -> None:
        """A removed file, also where another took its path, an unknown id, and a directory aren't found."""
        inode, old = await self.file()
        directory = (await self.apply(self.make.make_directory("/d"))).inode
        new = self.make.copy_of(old, S3)
        await self.rejected(self.make.relocate(inode, new, inode_id=directory.id), FileNotFound)
        await self.rejected(self.make.relocate(inode, new, inode_id="1" * 32), FileNotFound)
        await self.apply(self.make.remove("/f"))
        await self.apply(self.make.create("/f"))
        await self.rejected(self.make.relocate(inode, new), FileNotFound)

    async def test_whose_it_is(self) -> None:
        """The owner and administrators may, others not; what they expect isn't looked at."""
        inode, old = await self.file()
        new = self.make.copy_of(old, S3)
        bob = Principal("bob")
        await self.rejected(self.make.relocate(inode, new, bob), PermissionDenied)
        await self.rejected(self.make.relocate(inode, new, bob, expected_blob_ids=()), PermissionDenied)
        assert (await self.apply(self.make.relocate(inode, new, Principal("alice")))).inode.blob == new

    async def test_a_condemned_copy(self) -> None:
        """A copy that the sweep has given up can't be named, as first copy or as replica."""
        inode, old = await self.file()
        new = self.make.copy_of(old, S3)
        await self.apply(Condemn(at=self.make.tick(), blob_ids=(new.id,)))
        await self.rejected(self.make.relocate(inode, new), Conflict)
        both = msgspec.structs.replace(old, replicas=(new,))
        await self.rejected(self.make.relocate(inode, both), Conflict)

    async def test_what_is_no_copy(self) -> None:
        """Another size or digest, a kept copy said to be elsewhere, and a copy named twice are refused."""
        inode, old = await self.file()
        good = self.make.copy_of(old, S3)
        for wrong in (
            msgspec.structs.replace(good, size=old.size + 1),
            msgspec.structs.replace(good, sha256=b"x" * 32),
            msgspec.structs.replace(old, replicas=(msgspec.structs.replace(good, sha256=b"x" * 32),)),
            msgspec.structs.replace(old, placement=S3),
            msgspec.structs.replace(old, replicas=(old,)),
            msgspec.structs.replace(good, replicas=(good,)),
            msgspec.structs.replace(old, replicas=(msgspec.structs.replace(good, replicas=(old,)),)),
        ):
            await self.rejected(self.make.relocate(inode, wrong), Conflict)

    async def test_wherever_the_file_is_by_now(self) -> None:
        """A file that was moved, itself or with the tree around it, is relocated by its id."""
        inode, old = await self.file("/a/b/f")
        await self.apply(self.make.move("/a", "/x"))
        moved = (await self.apply(self.make.move("/x/b/f", "/x/g"))).inode
        await self.apply(self.make.move("/x", "/y"))
        new = self.make.copy_of(old, S3)
        relocated = (await self.apply(self.make.relocate(inode, new))).inode
        assert (relocated.path, relocated.generation) == ("/y/g", moved.generation + 1)
        assert await self.existing("/y/g") == relocated
        assert await self.listed_paths() == ["/y", "/y/b", "/y/g"]
        assert await self.store.verify() == []

    async def test_links_and_new_content_go_on(self) -> None:
        """A link still leads to the file, and its next content has to be where it is now."""
        inode, old = await self.file()
        link = await self.apply(self.make.issue_link(inode))
        await self.apply(self.make.relocate(inode, self.make.copy_of(old, S3)))
        assert (await self.apply(self.make.consume_link(link.token_hash))).inode_id == inode.id
        await self.rejected(self.make.put("/f"), ContentMoved)
        await self.apply(self.make.put("/f", blob=self.make.blob(4, S3)))


class ReplicationContract(CopiesTests):
    """The replication queue: ``replicate``, ``PostponeReplication``, ``replications``, ``replication_backlog``."""

    async def test_a_new_file_is_queued(self) -> None:
        """With ``replicate`` the entry is there with the file, due at once; without, there is none."""
        create, put = self.make.create("/f", replicate=TO_S3), self.make.put("/g", replicate=TO_S3)
        await self.apply_all(create, put, self.make.create("/h"))
        assert await self.queue() == [
            Replication(command.blob.id, command.inode_id, TO_S3, queued_at=command.at, due_at=command.at)
            for command in (create, put)
        ]
        assert (await self.store.statistics()).replications == 2
        assert await self.store.verify() == []

    async def test_each_node_has_its_own(self) -> None:
        """A node gets what it has to make, whatever the target; the backlog counts them all."""
        orders = [ReplicaOrder(OTHER, "node-2"), ReplicaOrder(S3, "a"), ReplicaOrder(OTHER, "node-2")]
        commands = [self.make.create(f"/{n}", replicate=order) for n, order in enumerate(orders)]
        for command in commands:
            await self.apply(command)
        assert [entry.order for entry in await self.queue("node-2")] == [orders[0], orders[2]]
        assert [entry.order for entry in await self.queue("a")] == [orders[1]]
        assert await self.queue("node-1") == []
        assert list(await self.store.replication_backlog()) == [
            ReplicationBacklog("a", 1, 0, commands[1].at),
            ReplicationBacklog("node-2", 2, 0, commands[0].at),
        ]

    async def test_nothing_waits(self) -> None:
        """A store without entries has no backlog."""
        await self.file()
        assert list(await self.store.replication_backlog()) == []
        assert (await self.store.statistics()).replications == 0

    async def test_pages_have_what_is_due(self) -> None:
        """Not before its time, the longest due first, at most so many."""
        commands = [self.make.create(f"/{number:03}", replicate=TO_S3) for number in range(150)]
        await self.apply_all(*commands)
        ids = [command.blob.id for command in commands]
        assert [entry.blob_id for entry in await self.store.replications(commands[9].at, "node-1")] == ids[:10]
        assert await self.store.replications(commands[0].at - 1, "node-1") == []
        assert [entry.blob_id for entry in await self.store.replications(EVER, "node-1", 7)] == ids[:7]
        assert await self.queued_blobs() == ids

    async def test_a_failure_postpones(self) -> None:
        """The entry comes again at its new time, after others, with one attempt more."""
        first, second = (self.make.create(path, replicate=TO_S3) for path in ("/f", "/g"))
        await self.apply_all(first, second)
        later = self.make.now + HOUR
        for attempts in (1, 2):
            postpone = PostponeReplication(at=self.make.tick(), blob_id=first.blob.id, due_at=later + attempts)
            assert (await self.apply(postpone)).count == 1
            assert await self.queued_blobs() == [second.blob.id, first.blob.id]
            assert len(await self.queue(now=later)) == 1
            entry = (await self.queue())[1]
            assert entry == Replication(first.blob.id, first.inode_id, TO_S3, first.at, later + attempts, attempts)
        assert list(await self.store.replication_backlog()) == [ReplicationBacklog("node-1", 2, 1, first.at)]

    async def test_an_entry_is_handed_over(self) -> None:
        """Another node gets it, and the first has it no more."""
        command = self.make.create("/f", replicate=TO_S3)
        await self.apply(command)
        await self.apply(PostponeReplication(at=1, blob_id=command.blob.id, due_at=5, by="node-2"))
        assert await self.queue("node-1") == []
        (entry,) = await self.queue("node-2")
        assert entry == Replication(
            command.blob.id, command.inode_id, ReplicaOrder(S3, "node-2"), command.at, due_at=5, attempts=1
        )
        assert list(await self.store.replication_backlog()) == [ReplicationBacklog("node-2", 1, 1, command.at)]
        assert await self.store.verify() == []

    async def test_postponing_what_is_not_there(self) -> None:
        """An entry that is gone, and one that never was, are no error and aren't made."""
        command = self.make.create("/f", replicate=TO_S3)
        await self.apply(command)
        await self.apply(self.make.remove("/f"))
        for blob_id in (command.blob.id, self.make.blob().id):
            assert (await self.apply(PostponeReplication(at=1, blob_id=blob_id, due_at=2, by="x"))).count == 0
        assert list(await self.store.replication_backlog()) == []

    async def test_new_content_takes_the_entry_away(self) -> None:
        """The old content's entry goes with it; the new one has its own if it shall."""
        await self.apply(self.make.create("/f", replicate=TO_S3))
        put = self.make.put("/f", replicate=TO_S3)
        await self.apply(put)
        assert [(entry.blob_id, entry.queued_at) for entry in await self.queue()] == [(put.blob.id, put.at)]
        await self.apply(self.make.put("/f"))
        assert await self.queue() == []
        assert await self.store.verify() == []

    async def test_the_end_of_a_file_takes_the_entry_away(self) -> None:
        """Whether it is removed, goes with its tree, or another file is moved over it."""
        for path in ("/alone", "/tree/a/f", "/tree/g", "/over"):
            await self.apply(self.make.create(path, replicate=TO_S3))
        stays = self.make.create("/new", replicate=TO_S3)
        await self.apply(stays)
        await self.apply(self.make.remove("/alone"))
        await self.apply(self.make.remove("/tree", recursive=True))
        await self.apply(self.make.move("/new", "/over", overwrite=True))
        assert await self.queued_blobs() == [stays.blob.id]
        assert (await self.store.statistics()).replications == 1
        assert await self.store.verify() == []

    async def test_an_entry_follows_nothing_but_its_blob(self) -> None:
        """Moves and new attributes leave it as it is."""
        await self.apply(self.make.create("/a/f", replicate=TO_S3))
        before = await self.queue()
        await self.apply(self.make.move("/a", "/b"))
        await self.apply(self.make.change("/b/f", mode=0o600))
        await self.apply(self.make.move("/b/f", "/g"))
        assert await self.queue() == before

    async def test_the_copy_was_made(self) -> None:
        """The command that names the copy takes the entry away."""
        inode, blob = await self.file(replicate=TO_S3)
        both = msgspec.structs.replace(blob, replicas=(self.make.copy_of(blob, S3),))
        await self.apply(self.make.relocate(inode, both))
        assert await self.queue() == []
        assert list(await self.store.replication_backlog()) == []
        assert await self.store.verify() == []

    async def test_another_first_copy(self) -> None:
        """The entry for the old first copy goes; one for the new comes if it shall."""
        inode, blob = await self.file(replicate=TO_S3)
        await self.apply(PostponeReplication(at=self.make.tick(), blob_id=blob.id, due_at=EVER - 1))
        there = self.make.copy_of(blob, OTHER)
        order = ReplicaOrder(S3, "node-2")
        command = self.make.relocate(inode, there, replicate=order)
        inode = (await self.apply(command)).inode
        assert await self.queue("node-1") == []
        assert await self.queue("node-2") == [Replication(there.id, inode.id, order, command.at, command.at)]
        await self.apply(self.make.relocate(inode, self.make.copy_of(blob, NODE)))
        assert list(await self.store.replication_backlog()) == []
        assert await self.store.verify() == []

    async def test_another_order_for_the_same_copy(self) -> None:
        """A kept first copy with a new order has that one alone."""
        inode, blob = await self.file(replicate=TO_S3)
        order = ReplicaOrder(OTHER, "node-1")
        command = self.make.relocate(inode, blob, replicate=order)
        await self.apply(command)
        assert await self.queue() == [Replication(blob.id, inode.id, order, command.at, command.at)]
        assert await self.due() == {}
